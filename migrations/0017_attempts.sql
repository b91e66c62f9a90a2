-- The earlier attempts of a task, up to ten, oldest first. Null if there are none: the columns of the task describe its
-- latest attempt, so one that completes at once, as nearly all do, writes nothing here.
alter table tasks add column earlier_attempts jsonb;

-- Both functions are text to Postgres, which so lets a later migration change the columns that they read.

-- The latest attempt of a task, unless that is one of the earlier ones.
create function latest_attempt(task tasks) returns jsonb
    language sql stable
as $$
    select case when task.started_at is not null then jsonb_build_object(
        'number', task.attempts,
        'started_at', rfc3339(task.started_at),
        'ended_at', rfc3339(case
            when task.lease_expires_at > now() then null
            else coalesce(task.lease_expires_at, task.settled_at, task.updated_at)
        end),
        'outcome', case
            when task.lease_expires_at > now() then 'running'
            when task.lease_expires_at is not null then 'lost'
            when task.settled_at is not null then task.status::text
            else 'retried'
        end,
        'error', case when task.status = 'failed' then task.result end
    ) end
$$;

-- The attempts of a task as they are when it is queued or changed, which discards the outcome of a running one; or, with a
-- reason, when an attempt fails and is to be retried.
create function ended_attempts(task tasks, error text) returns jsonb
    language sql stable
as $$
    select case
        when latest is null then earlier
        when jsonb_array_length(earlier) >= 10 then (earlier - 0) || ended
        else coalesce(earlier, '[]') || ended
    end
    from (
        select task.earlier_attempts as earlier, latest_attempt(task) as latest
    ) as attempts cross join lateral (
        select latest || case
            when error is not null
                then jsonb_build_object('ended_at', rfc3339(now()), 'outcome', 'retried', 'error', error)
            when latest ->> 'outcome' = 'running'
                then jsonb_build_object('ended_at', rfc3339(now()), 'outcome', 'discarded')
            else '{}'
        end as ended
    ) as last
$$;
