-- What operators have done. A statement that changes tasks for an admin adds the row itself, so neither is there without the
-- other. The functions may add rows, and not change or delete them (roles.sql).
create table operator_actions (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    -- The admin: the `sub` of their token.
    operator text not null
        constraint operator_actions_operator_length check (char_length(operator) between 1 and 255),
    -- Not an enum: a new kind of action then needs one deployment, not two.
    action text not null,
    -- The task, if the action was about one. No foreign key: the action remains when the task is deleted.
    task_id bigint,
    -- Which tasks, if it was about all that match.
    filter jsonb,
    -- How many tasks or messages. Null: unknown.
    count bigint
);
