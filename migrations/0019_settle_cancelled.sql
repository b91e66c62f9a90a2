-- A cancelled task is settled, like a completed or failed one: it is deleted after the same time.
alter table tasks
    drop constraint tasks_settled,
    add constraint tasks_settled check ((status in ('completed', 'failed', 'cancelled')) = (settled_at is not null)) not valid;
