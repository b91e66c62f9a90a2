-- The one table of the API. A row is a task, its place in the queue and its worker's lease at once: what
-- belongs together changes in one statement.

-- An enum, not text: an unknown status cannot be stored, and it sorts in the order of a task's life.
create type task_status as enum ('pending', 'processing', 'completed', 'failed');

create table tasks (
    -- `always`: only the sequence hands out ids, so that none is ever used twice.
    id bigint generated always as identity primary key,

    -- What the client sent. The limits repeat those of the types Title and Description, for every other writer.
    title text not null
        constraint tasks_title_length check (char_length(title) between 1 and 255),
    description text
        constraint tasks_description_length check (char_length(description) <= 10000),

    -- How far the task is, and what came out of it (or why it failed).
    status task_status not null default 'pending',
    result text,

    created_at timestamptz not null default now(),
    -- Set by every statement that changes what clients see.
    updated_at timestamptz not null default now(),

    -- When a message about the task was last accepted by SQS. Null: not yet, it must still be sent.
    enqueued_at timestamptz,

    -- The lease of the worker that is processing the task. After it has expired another may take over.
    lease_expires_at timestamptz,
    -- Grows with every claim; the outcome of a claim is stored only while its token is the newest.
    fencing_token bigint not null default 0,

    -- A task is leased exactly while it is processing.
    constraint tasks_lease_while_processing check ((status = 'processing') = (lease_expires_at is not null))
);

-- Every statement finds its rows by id, and lists are in the order of id: the primary key serves them all.
