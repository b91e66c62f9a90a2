-- What POST /tasks has answered to requests with an Idempotency-Key, so that a repeated one creates nothing.
create table idempotency_keys (
    -- What the client sent. Its limits repeat those of the type IdempotencyKey.
    key text primary key
        constraint idempotency_keys_length check (char_length(key) between 1 and 255),

    -- SHA-256 of the title and the description: another body under the same key is a mistake of the client.
    fingerprint bytea not null,

    -- With the body, all of the response. No foreign key: it is answered again even when the task is gone.
    task_id bigint not null,
    created_at timestamptz not null default now(),

    -- From then on the key is unknown; the task-reconciler deletes the row.
    expires_at timestamptz not null
);

create index idempotency_keys_expiry on idempotency_keys (expires_at);
