-- no-transaction
-- The scheduled tasks in the order of their times: a sweep reads those whose time comes next, and never the others. Other
-- tasks are not in it, so creating, claiming and settling them costs nothing more.
create index concurrently if not exists tasks_scheduled on tasks (run_at, id) where status = 'scheduled';
