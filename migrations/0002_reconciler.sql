-- What the task-reconciler looks for: open tasks, those first that were never enqueued, then those whose message
-- was sent the longest ago. Partial, so that it holds the few open tasks and not the many settled ones.
create index tasks_open on tasks (enqueued_at nulls first, id) where status in ('pending', 'processing');
