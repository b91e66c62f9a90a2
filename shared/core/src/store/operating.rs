//! The statements for operators: how the whole is doing, and what a task has been through.

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{
    Statement,
    columns::{query_tasks_and_more, task_of},
};
use crate::domain::{Description, Status, Task, TaskId, Title};

/// How the tasks are doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Overview {
    /// How many there are.
    pub tasks: Counts,
    /// What happened in each of the last 30 minutes, the oldest first.
    pub throughput: Vec<Minute>,
    /// The last 10 that were created, the newest first.
    pub recent_tasks: Vec<Task>,
    /// The 10 that failed last, the latest first; `result` says why.
    pub recent_failures: Vec<Task>,
}

/// How many tasks there are, by status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    /// All of them.
    #[schema(minimum = 0)]
    pub total: i64,
    /// Those that wait.
    #[schema(minimum = 0)]
    pub pending: i64,
    /// Those that a worker holds.
    #[schema(minimum = 0)]
    pub processing: i64,
    /// Those that are done.
    #[schema(minimum = 0)]
    pub completed: i64,
    /// Those that were given up.
    #[schema(minimum = 0)]
    pub failed: i64,
    /// For how many seconds the pending one that was asked for first has waited; null if none is pending.
    #[schema(required, minimum = 0)]
    pub oldest_pending_seconds: Option<f64>,
}

/// What happened in a minute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Minute {
    /// When it began (RFC 3339, UTC).
    #[serde(with = "time::serde::rfc3339")]
    pub minute: OffsetDateTime,
    /// How many tasks were created.
    #[schema(minimum = 0)]
    pub created: i64,
    /// How many were completed.
    #[schema(minimum = 0)]
    pub completed: i64,
    /// How many were given up.
    #[schema(minimum = 0)]
    pub failed: i64,
    /// From request to outcome, of half of those; null without any.
    #[schema(required, minimum = 0)]
    pub p50_seconds: Option<f64>,
    /// From request to outcome, of all but the slowest hundredth; null without any.
    #[schema(required, minimum = 0)]
    pub p99_seconds: Option<f64>,
}

/// Reads the [`Overview`], which Postgres makes in one round trip.
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
                          -- Not of those that a client has settled by hand.
                          percentile_cont(array[0.5, 0.99]) within group (
                              order by extract(epoch from settled_at - requested_at)
                          ) filter (where started_at is not null) as seconds
                   from tasks
                   where settled_at >= date_trunc('minute', now()) - interval '29 minutes'
                   group by 1
               ), by_status as (
                   select coalesce(sum(tasks), 0) as total,
                          coalesce(sum(tasks) filter (where status = 'pending'), 0) as pending,
                          coalesce(sum(tasks) filter (where status = 'processing'), 0) as processing,
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
                               where status = 'pending'
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

/// The task and when what happened to it; `None` if there is no such task.
pub struct FindHistory(pub TaskId);

/// What [`FindHistory`] found. What has happened more than once has its last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The task.
    pub task: Task,
    /// Who created it; `None` if it is older than this column.
    pub created_by: Option<String>,
    /// When it was last asked for.
    pub requested_at: OffsetDateTime,
    /// When SQS accepted its message.
    pub enqueued_at: Option<OffsetDateTime>,
    /// When a worker started on it.
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
