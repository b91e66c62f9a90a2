//! The statements for operators: statistics, the history of a task, and failures by reason.

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{
    Statement,
    columns::{query_tasks_and_more, task_of},
};
use crate::domain::{Description, StoredStatus, Task, TaskId, Title};

/// Statistics of the tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Overview {
    /// Tasks by status.
    pub tasks: Counts,
    /// Activity in each of the last 30 minutes, oldest first.
    pub throughput: Vec<Minute>,
    /// The 10 tasks created last, newest first.
    pub recent_tasks: Vec<Task>,
    /// The 10 tasks that failed last, latest first; `result` contains the reason.
    pub recent_failures: Vec<Task>,
    /// The members that are estimates: `tasks.pending` for instance, or `throughput`. Numbers below
    /// 5,000 are exact. Missing if everything is exact.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub estimates: Vec<String>,
}

/// The number of tasks, by status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    /// All tasks.
    #[schema(minimum = 0)]
    pub total: i64,
    /// Tasks waiting for a worker.
    #[schema(minimum = 0)]
    pub pending: i64,
    /// Tasks leased by a worker.
    #[schema(minimum = 0)]
    pub processing: i64,
    /// Completed tasks.
    #[schema(minimum = 0)]
    pub completed: i64,
    /// Failed tasks.
    #[schema(minimum = 0)]
    pub failed: i64,
    /// Cancelled tasks.
    #[schema(minimum = 0)]
    pub cancelled: i64,
    /// Tasks waiting for their time.
    #[schema(minimum = 0)]
    pub scheduled: i64,
    /// Seconds since the oldest pending task was queued, of the 1,000 with the lowest ids; null without
    /// pending tasks.
    #[schema(required, minimum = 0)]
    pub oldest_pending_seconds: Option<f64>,
}

/// Activity in one minute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Minute {
    /// The start of the minute (RFC 3339, UTC).
    #[serde(with = "time::serde::rfc3339")]
    pub minute: OffsetDateTime,
    /// Tasks created.
    #[schema(minimum = 0)]
    pub created: i64,
    /// Tasks completed.
    #[schema(minimum = 0)]
    pub completed: i64,
    /// Tasks failed.
    #[schema(minimum = 0)]
    pub failed: i64,
    /// The median time from request to outcome; null without settled tasks.
    #[schema(required, minimum = 0)]
    pub p50_seconds: Option<f64>,
    /// The 99th percentile of the time from request to outcome; null without settled tasks.
    #[schema(required, minimum = 0)]
    pub p99_seconds: Option<f64>,
}

/// Reads the [`Overview`] in one round trip: Postgres builds it as JSON.
///
/// Nothing is counted beyond some thousand rows. Larger numbers are estimated from a sample, every
/// 512th task, which has its own small index (`tasks_sample`): more than 10 tasks of the sample
/// stand for more than 5,000. Every other part walks along one index up to a limit.
pub struct ReadOverview;

impl Statement for ReadOverview {
    type Output = Overview;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let overview = sqlx::query_scalar!(
            r#"with period as (
                  select date_trunc('minute', now()) - interval '29 minutes' as start
               ), sampled as materialized (
                  select status, created_at, requested_at, started_at, settled_at
                  from tasks
                  where id % 512 = 0 and status in ('completed', 'failed') and settled_at >= (select start from period)
                  union all
                  select status, created_at, requested_at, started_at, settled_at
                  from tasks
                  where id % 512 = 0 and status in ('pending', 'processing', 'scheduled') and settled_at is null
                    and created_at >= (select start from period)
               ), sizes as materialized (
                  select count(*) filter (where created_at >= (select start from period)) > 10 as is_created_large,
                         count(settled_at) > 10 as is_settled_large
                  from sampled
               ), created as (
                  select date_trunc('minute', created_at) as minute, sum(weight)::bigint as tasks
                  from (
                      select created_at, 512 as weight
                      from sampled
                      where (select is_created_large from sizes)
                      union all
                      select created_at, 1
                      from (select created_at from tasks order by id desc limit 10000) as newest
                      where not (select is_created_large from sizes)
                  ) as tasks
                  where created_at >= (select start from period)
                  group by 1
               ), settled as (
                  select date_trunc('minute', settled_at) as minute,
                         (sum(weight) filter (where status = 'completed'))::bigint as completed,
                         (sum(weight) filter (where status = 'failed'))::bigint as failed,
                         -- Without tasks that a client has settled.
                         percentile_cont(array[0.5, 0.99]) within group (
                             order by extract(epoch from settled_at - requested_at)
                         ) filter (where started_at is not null) as seconds
                  from (
                      select status, requested_at, started_at, settled_at, 512 as weight
                      from sampled
                      where settled_at is not null and (select is_settled_large from sizes)
                      union all
                      select status, requested_at, started_at, settled_at, 1
                      from (
                          select status, requested_at, started_at, settled_at
                          from tasks
                          where settled_at >= (select start from period)
                          order by settled_at desc
                          limit 10000
                      ) as latest
                      where not (select is_settled_large from sizes)
                  ) as tasks
                  group by 1
               ), statuses as materialized (
                  select status, (
                      select count(*)
                      from (
                          select
                          from tasks
                          where id % 512 = 0 and tasks.status = any (array[statuses.status])
                          order by tasks.status, settled_at, created_at
                          limit 10000
                      ) as sampled
                  ) as sampled
                  from unnest(enum_range(null::task_status)) as statuses (status)
               ), counted as materialized (
                  select status, sampled > 10 as is_estimate, sampled = 10000 as is_limited, case
                      when sampled > 10 then sampled * 512
                      else (
                          select count(*)
                          from (
                              select
                              from tasks
                              where tasks.status = any (array[statuses.status])
                              order by tasks.status, id
                              limit 10000
                          ) as exact
                      )
                  end as tasks
                  from statuses
               ), leased as materialized (
                  -- A leased task is stored as pending, and is most likely among the oldest.
                  select count(*) as tasks
                  from (
                      select lease_expires_at
                      from tasks
                      where tasks.status = any (array['pending'::task_status])
                      order by tasks.status, id
                      limit 2000
                  ) as oldest
                  where lease_expires_at is not null
               ), by_status as (
                  select coalesce(sum(tasks), 0)::bigint as total,
                         greatest(
                             coalesce(sum(tasks) filter (where status = 'pending'), 0) - (select tasks from leased), 0
                         )::bigint as pending,
                         (coalesce(sum(tasks) filter (where status = 'processing'), 0)
                             + (select tasks from leased))::bigint as processing,
                         coalesce(sum(tasks) filter (where status = 'completed'), 0)::bigint as completed,
                         coalesce(sum(tasks) filter (where status = 'failed'), 0)::bigint as failed,
                         coalesce(sum(tasks) filter (where status = 'cancelled'), 0)::bigint as cancelled,
                         coalesce(sum(tasks) filter (where status = 'scheduled'), 0)::bigint as scheduled,
                         -- What the sample leaves out of the status with the most tasks.
                         greatest(
                             case when bool_or(is_limited) then (
                                 select reltuples / greatest(relpages, 1)
                                        * pg_relation_size(oid) / current_setting('block_size')::integer
                                 from pg_class
                                 where oid = 'tasks'::regclass
                             ) end - sum(tasks), 0
                         )::bigint as others
                  from counted
               )
               select jsonb_build_object(
                   'tasks', (
                       select to_jsonb(by_status) - 'others' || jsonb_build_object(
                           'total', total + others,
                           'completed', completed + others,
                           -- A task that was requested again may be behind younger ones.
                           'oldest_pending_seconds', (
                               select extract(epoch from now() - min(requested_at))
                               from (
                                   select requested_at, lease_expires_at
                                   from tasks
                                   where tasks.status = any (array['pending'::task_status])
                                   order by tasks.status, id
                                   limit 1000
                               ) as oldest
                               where lease_expires_at is null
                           )
                       )
                       from by_status
                   ),
                   'estimates', (
                       select to_jsonb(
                           array(
                               select 'tasks.' || status
                               from counted
                               where is_estimate or status = 'processing' and exists (
                                   select from counted where status = 'pending' and (is_estimate or tasks > 2000)
                               )
                               order by status
                           )
                           || array(select 'tasks.total' where exists (select from counted where is_estimate))
                           || array(select 'throughput' from sizes where is_created_large or is_settled_large)
                       )
                   ),
                   'throughput', (
                       select jsonb_agg(jsonb_build_object(
                           'minute', rfc3339(minute),
                           'created', coalesce(created.tasks, 0),
                           'completed', coalesce(completed, 0),
                           'failed', coalesce(failed, 0),
                           'p50_seconds', seconds[1],
                           'p99_seconds', seconds[2]
                       ) order by minute)
                       from generate_series(
                                (select start from period), date_trunc('minute', now()), '1 minute'
                            ) as minutes (minute)
                            left join created using (minute) left join settled using (minute)
                   ),
                   'recent_tasks', coalesce((
                       select jsonb_agg(task_document(recent) order by id desc)
                       from (select * from tasks order by id desc limit 10) as recent
                   ), '[]'),
                   'recent_failures', coalesce((
                       select jsonb_agg(task_document(recent) order by settled_at desc)
                       from (select * from tasks where status = 'failed' order by settled_at desc limit 10) as recent
                   ), '[]')
               )::text as "overview!""#
        )
        .fetch_one(connection)
        .await?;
        serde_json::from_str(&overview).map_err(|error| sqlx::Error::Decode(error.into()))
    }
}

/// Finds a task and the times of its events.
pub struct FindHistory(pub TaskId);

/// An attempt to process a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    /// 1 for the first attempt since the task was last queued.
    #[schema(minimum = 1)]
    pub number: i32,
    /// When a worker claimed the task (RFC 3339, UTC).
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When the attempt ended (RFC 3339, UTC); null while it runs.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub ended_at: Option<OffsetDateTime>,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// The reason, if it failed.
    #[schema(required)]
    pub error: Option<String>,
}

/// The outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AttemptOutcome {
    /// A worker is on it.
    Running,
    /// The task was completed.
    Completed,
    /// The task failed.
    Failed,
    /// The attempt failed, and another was to follow.
    Retried,
    /// The worker stopped without an outcome: its lease expired.
    Lost,
    /// A client changed the task in the meantime: the outcome was discarded.
    Discarded,
}

/// A task and the times of its events. Repeated events have their latest time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    pub task: Task,
    /// The owner; `None` if the task is older than this column.
    pub created_by: Option<String>,
    /// When processing was last requested.
    pub requested_at: OffsetDateTime,
    /// When SQS last accepted its message.
    pub enqueued_at: Option<OffsetDateTime>,
    /// The last attempts, oldest first, at most [`History::MAX_ATTEMPTS`].
    pub attempts: Vec<Attempt>,
    /// When it was completed, failed or cancelled.
    pub settled_at: Option<OffsetDateTime>,
}

impl History {
    /// How many attempts are shown.
    pub const MAX_ATTEMPTS: usize = 10;
}

impl Statement for FindHistory {
    type Output = Option<History>;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let found = query_tasks_and_more!(
            "select",
            r#", created_by, requested_at, enqueued_at, settled_at,
                 (coalesce(earlier_attempts, '[]') || coalesce(latest_attempt(tasks), '[]'))::text as "attempts_made!"
             from tasks
             where id = $1"#,
            self.0.get(),
        )
        .fetch_optional(connection)
        .await?;
        let Some(row) = found else { return Ok(None) };
        let mut attempts: Vec<Attempt> =
            serde_json::from_str(&row.attempts_made).map_err(|error| sqlx::Error::Decode(error.into()))?;
        attempts.drain(..attempts.len().saturating_sub(History::MAX_ATTEMPTS));
        Ok(Some(History {
            task: task_of!(row),
            created_by: row.created_by,
            requested_at: row.requested_at,
            enqueued_at: row.enqueued_at,
            attempts,
            settled_at: row.settled_at,
        }))
    }
}

/// The failures of a day, by reason.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Failures {
    /// The start of the day (RFC 3339, UTC).
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// False if more than 10,000 tasks failed: the latest 10,000 are grouped.
    pub is_complete: bool,
    /// The most frequent reasons, most frequent first.
    #[schema(max_items = 50)]
    pub groups: Vec<FailureGroup>,
}

/// The failures with one reason.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct FailureGroup {
    /// The reason, with `#` for each word with a digit; empty if none was recorded.
    #[schema(example = "HTTP # after # s")]
    pub error: String,
    /// How many tasks.
    #[schema(minimum = 1)]
    pub count: i64,
    /// When the first of them failed (RFC 3339, UTC).
    #[serde(with = "time::serde::rfc3339")]
    pub first_at: OffsetDateTime,
    /// When the last of them failed (RFC 3339, UTC).
    #[serde(with = "time::serde::rfc3339")]
    pub last_at: OffsetDateTime,
    /// The task that failed last.
    pub example_id: TaskId,
    /// Its reason.
    #[schema(required, example = "HTTP 503 after 2.5 s")]
    pub example_error: Option<String>,
}

/// Groups the tasks that failed in the last 24 hours. Reads the latest 10,000 of them at most.
pub struct GroupFailures;

impl GroupFailures {
    const MAX_READ: i64 = 10_000;
    const MAX_GROUPS: i64 = 50;
}

impl Statement for GroupFailures {
    type Output = Failures;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let rows = sqlx::query!(
            r#"with period as materialized (
                   select now() - interval '1 day' as since
               ), failed as materialized (
                   select id, settled_at, coalesce(error_group(result), '') as error
                   from (
                       select id, settled_at, result
                       from tasks
                       where status = 'failed' and settled_at >= (select since from period)
                       order by settled_at desc
                       limit $1
                   ) as latest
               ), grouped as (
                   select error,
                          count(*) as count,
                          min(settled_at) as first_at,
                          max(settled_at) as last_at,
                          (array_agg(id order by settled_at desc, id desc))[1] as example_id
                   from failed
                   group by error
                   order by count desc, last_at desc
                   limit $2
               )
               select since as "since!",
                      (select count(*) from failed) as "total!",
                      error,
                      count,
                      first_at,
                      last_at,
                      example_id as "example_id: TaskId",
                      (select left(result, 1000) from tasks where id = example_id) as example_error
               from period left join grouped on true
               order by count desc, last_at desc"#,
            Self::MAX_READ + 1,
            Self::MAX_GROUPS,
        )
        .fetch_all(connection)
        .await?;
        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let (since, is_complete) = (first.since, first.total <= Self::MAX_READ);
        let groups = rows.into_iter().filter_map(|row| {
            Some(FailureGroup {
                error: row.error?,
                count: row.count?,
                first_at: row.first_at?,
                last_at: row.last_at?,
                example_id: row.example_id?,
                example_error: row.example_error,
            })
        });
        Ok(Failures {
            since,
            is_complete,
            groups: groups.collect(),
        })
    }
}
