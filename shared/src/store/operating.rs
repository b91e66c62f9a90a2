//! The statements for operators: how the whole is doing, and what a task has been through.

use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::Statement;
use crate::domain::TaskId;

/// How the tasks are doing: `{tasks, throughput, recent_tasks, recent_failures}`, made by Postgres in one round trip.
///
/// `throughput` has an entry for each of the last 30 minutes, the oldest first.
pub struct Overview;

impl Statement for Overview {
    type Answer = Value;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
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
                          percentile_cont(array[0.5, 0.99]) within group (
                              order by extract(epoch from settled_at - requested_at)
                          ) as seconds
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
                       select jsonb_agg(task_document(recent) order by id desc)
                       from (select * from tasks where status = 'failed' order by id desc limit 10) as recent
                   ), '[]')
               )::text as "overview!""#
        )
        .fetch_one(connection)
        .await?;
        serde_json::from_str(&overview).map_err(|error| sqlx::Error::Decode(error.into()))
    }
}

/// When what happened to a task; `None` if there is no such task.
pub struct FindTimes(pub TaskId);

/// What [`FindTimes`] found. What has happened more than once has its last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// When it was last asked for.
    pub requested_at: OffsetDateTime,
    /// When SQS accepted its message.
    pub enqueued_at: Option<OffsetDateTime>,
    /// When a worker started on it.
    pub started_at: Option<OffsetDateTime>,
    /// When it was completed or failed.
    pub settled_at: Option<OffsetDateTime>,
}

impl Statement for FindTimes {
    type Answer = Option<Times>;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
        sqlx::query_as!(
            Times,
            "select created_at, requested_at, enqueued_at, started_at, settled_at from tasks where id = $1",
            self.0.get()
        )
        .fetch_optional(connection)
        .await
    }
}
