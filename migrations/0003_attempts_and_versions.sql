-- How often a worker has started on the task since it was last asked for. After too many the task-reconciler
-- gives it up: a task that kills its worker each time would otherwise go round for ever.
alter table tasks add column attempts integer not null default 0;

-- Grows with every change that clients see: their ETag. Not updated_at, because two changes may share a moment.
alter table tasks add column version bigint not null default 1;

-- When the task was completed or failed. A message sent later than that was sent on purpose (a redrive of the
-- dead-letter queue): it runs a failed task again, where a late duplicate must not.
alter table tasks add column settled_at timestamptz;
update tasks set settled_at = updated_at where status in ('completed', 'failed');
alter table tasks
    add constraint tasks_settled check ((status in ('completed', 'failed')) = (settled_at is not null));
