-- What operators see beside the task itself. When it was last asked for: created, sent to be processed again, or
-- redriven. What it took from there is its latency.
alter table tasks add column requested_at timestamptz not null default now();
update tasks set requested_at = created_at;
-- When a worker last started on it.
alter table tasks add column started_at timestamptz;

-- What GET /admin/status asks about the last half hour. BRIN, because rows are created in the order of time: it is
-- a thousandth of a B-tree's size, and costs an insert next to nothing.
create index tasks_created on tasks using brin (created_at) with (pages_per_range = 16);
create index tasks_settled on tasks (settled_at) where settled_at is not null;

-- A time as the API shows it (RFC 3339, UTC).
create function rfc3339(moment timestamptz) returns text
    language sql stable strict
    return to_char(moment at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

-- A task as the API shows it. A test compares the two.
create function task_document(task tasks) returns jsonb
    language sql stable
    return jsonb_build_object(
        'id', task.id,
        'title', task.title,
        'description', task.description,
        'status', task.status,
        'result', task.result,
        'attempts', task.attempts,
        'created_at', rfc3339(task.created_at),
        'updated_at', rfc3339(task.updated_at)
    );
