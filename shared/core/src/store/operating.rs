//! The statements for operators: statistics, and the history of a task.

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
    /// Seconds since the oldest pending task was queued; null without pending tasks.
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
pub struct ReadOverview;

impl Statement for ReadOverview {
    type Output = Overview;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let overview = sqlx::query_scalar!(
            r#"with minutes as (
                   select generate_series(
                       date_trunc('minute', now()) - interval '29 minutes', date_trunc('minute', now()), '1 minute'
                   ) as minute
               ), created as (
                   select date_trunc('minute', created_at) as minute, count(*) as tasks
                   from tasks
                   where created_at >= date_trunc('minute', now()) - interval '29 minutes'
                   group by 1
               ), settled as (
                   select date_trunc('minute', settled_at) as minute,
                          count(*) filter (where status = 'completed') as completed,
                          count(*) filter (where status = 'failed') as failed,
                          -- Without tasks that a client has settled.
                          percentile_cont(array[0.5, 0.99]) within group (
                              order by extract(epoch from settled_at - requested_at)
                          ) filter (where started_at is not null) as seconds
                   from tasks
                   where settled_at >= date_trunc('minute', now()) - interval '29 minutes'
                   group by 1
               ), leased as (
                   select count(*) as tasks
                   from tasks
                   where status in ('pending', 'processing') and lease_expires_at is not null
               ), by_status as (
                   select coalesce(sum(tasks), 0) as total,
                          coalesce(sum(tasks) filter (where status in ('pending', 'processing')), 0)
                              - (select tasks from leased) as pending,
                          (select tasks from leased) as processing,
                          coalesce(sum(tasks) filter (where status = 'completed'), 0) as completed,
                          coalesce(sum(tasks) filter (where status = 'failed'), 0) as failed
                   from (select status, count(*) as tasks from tasks group by status) as counted
               )
               select jsonb_build_object(
                   'tasks', (
                       select to_jsonb(by_status) || jsonb_build_object(
                           'oldest_pending_seconds', (
                               select extract(epoch from now() - min(requested_at))
                               from tasks
                               where status = 'pending' and lease_expires_at is null
                           )
                       )
                       from by_status
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
                       from minutes left join created using (minute) left join settled using (minute)
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
    /// When the last attempt started.
    pub started_at: Option<OffsetDateTime>,
    /// When it was completed or failed.
    pub settled_at: Option<OffsetDateTime>,
}

impl Statement for FindHistory {
    type Output = Option<History>;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let found = query_tasks_and_more!(
            "select",
            ", created_by, requested_at, enqueued_at, started_at, settled_at
             from tasks
             where id = $1",
            self.0.get(),
        )
        .fetch_optional(connection)
        .await?;
        Ok(found.map(|row| History {
            task: task_of!(row),
            created_by: row.created_by,
            requested_at: row.requested_at,
            enqueued_at: row.enqueued_at,
            started_at: row.started_at,
            settled_at: row.settled_at,
        }))
    }
}
