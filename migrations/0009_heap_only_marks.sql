-- Without this index no index has `enqueued_at`, so that noting that a message was sent, which every POST /tasks does,
-- writes a new version of the row and nothing else (PostgreSQL manual, "Heap-Only Tuples"). With it each note wrote to
-- all indexes. The task-reconciler finds the open tasks by tasks_by_status: once a minute it reads all of
-- them (a million in 0.2 s).
drop index tasks_open;
