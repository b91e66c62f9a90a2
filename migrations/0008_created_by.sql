-- Who created the task: the `sub` of their token, with the authorizer's limits. Null: nobody knows, because it was
-- stored before this column was there, or by a function that does not know the column yet. Only admins see such a task.
alter table tasks
    add column created_by text
        constraint tasks_created_by_length check (char_length(created_by) between 1 and 255);

-- `GET /tasks` and `GET /tasks?status=..` of everybody but admins: their own tasks by id, so that every page is one walk
-- along an index. Partial, so that both are made in a moment: they need not sort the tasks of before.
create index tasks_by_creator on tasks (created_by, id) where created_by is not null;
create index tasks_by_creator_and_status on tasks (created_by, status, id) where created_by is not null;

-- An Idempotency-Key is its caller's own: what is stored is the key, a quote, which no key contains, and the subject.
alter table idempotency_keys
    drop constraint idempotency_keys_length,
    add constraint idempotency_keys_length check (char_length(key) between 1 and 511);
