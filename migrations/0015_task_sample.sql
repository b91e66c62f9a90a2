-- no-transaction
-- A sample of the tasks, from which GET /admin/status estimates what it does not count: every 512th, so the index costs
-- almost nothing. Its columns are those that choose the rows. Only statements that change the status or settle the task
-- write to it, and those are never HOT updates because of tasks_by_status.
create index concurrently if not exists tasks_sample on tasks (status, settled_at, created_at) where id % 512 = 0;
