-- When a scheduled task is to run; of any other, when it was to. Null: at once.
alter table tasks
    add column run_at timestamptz,
    add constraint tasks_run_at check (status <> 'scheduled' or run_at is not null) not valid;

create or replace function task_document(task tasks) returns jsonb
    language sql stable
    return jsonb_build_object(
        'id', task.id,
        'title', task.title,
        'description', task.description,
        'status', shown_status(task.status, task.lease_expires_at),
        'result', task.result,
        'attempts', task.attempts,
        'run_at', rfc3339(task.run_at),
        'created_at', rfc3339(task.created_at),
        'updated_at', rfc3339(task.updated_at)
    );
