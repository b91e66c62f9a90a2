//! The statements of the task-processor: claim a batch, settle a batch. One statement each, however many
//! records the batch holds.

use std::{collections::HashMap, time::Duration};

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{
    Statement,
    columns::{query_tasks_and_more, task_of},
};
use crate::domain::{Description, Status, Task, TaskId, Title};

/// What a claim found out about one task of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The task is ours until its lease expires.
    Claimed(ClaimedTask),
    /// Another worker holds a lease on the task. If that worker dies, a later claim succeeds.
    Busy,
    /// The task was completed, failed or deleted after the message was sent: a duplicate or late message, nothing
    /// to do.
    Settled,
}

/// What a worker holds while it works on a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedTask {
    /// The task as it was claimed.
    pub task: Task,
    /// Grows with every claim, and the outcome of a claim counts only while its token is the task's newest:
    /// a worker that lost its lease cannot overwrite its successor's result.
    pub fencing_token: i64,
}

/// A task that a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The task.
    pub id: TaskId,
    /// When the message was sent, if it says so.
    pub sent_at: Option<OffsetDateTime>,
}

/// Claims the tasks that wait, those whose worker let its lease expire, and those that failed before their
/// message was sent: somebody wants them to run again.
///
/// Answers for every requested task. Two claims of one task never both succeed: the second waits for the
/// first's row lock and then finds a live lease.
pub struct Claim<'a> {
    /// The tasks of the batch, each once.
    pub requests: &'a [Request],
    /// For how long: until this worker is certainly dead.
    pub lease: Duration,
}

impl Statement for Claim<'_> {
    type Output = HashMap<TaskId, ClaimOutcome>;

    fn is_repeatable(&self) -> bool {
        // A claim whose answer was lost shows as busy when repeated: the messages come back, nothing runs twice.
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let ids: Vec<i64> = self.requests.iter().map(|request| request.id.get()).collect();
        let sent_at: Vec<Option<OffsetDateTime>> = self.requests.iter().map(|request| request.sent_at).collect();
        // `tasks` shows the tasks as they were when the statement began. A task that is claimable there but was not
        // claimed was taken by another worker while this statement waited for it: busy.
        let rows = query_tasks_and_more!(
            "with requested as (
                   select * from unnest($1::bigint[], $2::timestamptz[]) as requested (id, sent_at)
               ), claimable as (
                   select tasks.id
                   from tasks join requested using (id)
                   where status = 'pending'
                      or lease_expires_at <= now()
                      or status = 'failed' and settled_at < sent_at
                   -- Everyone locks in the order of id, so that overlapping batches cannot deadlock.
                   order by tasks.id
                   for update of tasks
               ), claimed as (
                   update tasks
                   set status = 'processing',
                       result = null,
                       attempts = case when status = 'failed' then 1 else attempts + 1 end,
                       fencing_token = fencing_token + 1,
                       lease_expires_at = now() + make_interval(secs => $3),
                       requested_at = case when status = 'failed' then now() else requested_at end,
                       started_at = now(),
                       settled_at = null,
                       version = version + 1,
                       updated_at = now()
                   from claimable
                   where tasks.id = claimable.id
                   returning tasks.*
               )
               select",
            r#", fencing_token as "fencing_token!", is_claimed as "is_claimed!"
               from (
                   select claimed.*, true as is_claimed from claimed
                   union all
                   select tasks.*, false from tasks where id = any ($1) and id not in (select id from claimed)
               ) as found"#,
            &ids,
            &sent_at as &[Option<OffsetDateTime>],
            self.lease.as_secs_f64(),
        )
        .fetch_all(connection)
        .await?;

        // What has no row was deleted.
        let settled = |request: &Request| (request.id, ClaimOutcome::Settled);
        let mut claims: HashMap<_, _> = self.requests.iter().map(settled).collect();
        for row in rows {
            let id = row.id;
            let claim = match row.status {
                _ if row.is_claimed => ClaimOutcome::Claimed(ClaimedTask {
                    fencing_token: row.fencing_token,
                    task: task_of!(row),
                }),
                Status::Completed | Status::Failed => ClaimOutcome::Settled,
                Status::Pending | Status::Processing => ClaimOutcome::Busy,
            };
            claims.insert(id, claim);
        }
        Ok(claims)
    }
}

/// How the work on a claimed task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The task.
    pub id: TaskId,
    /// The token of the claim under which the work was done.
    pub fencing_token: i64,
    /// Completed or failed, or pending to give the task back.
    pub status: Status,
    /// What came out, or why it failed.
    pub result: Option<String>,
}

/// Stores the outcomes of a batch and answers which of them counted.
///
/// An outcome does not count if the task was deleted, given another status or claimed by another worker in
/// the meantime.
pub struct Settle<'a>(pub &'a [Outcome]);

impl Statement for Settle<'_> {
    type Output = Vec<TaskId>;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let ids: Vec<i64> = self.0.iter().map(|outcome| outcome.id.get()).collect();
        let tokens: Vec<i64> = self.0.iter().map(|outcome| outcome.fencing_token).collect();
        let statuses: Vec<&str> = self.0.iter().map(|outcome| outcome.status.as_str()).collect();
        let results: Vec<Option<&str>> = self.0.iter().map(|outcome| outcome.result.as_deref()).collect();
        sqlx::query_scalar!(
            r#"with outcome as (
                   select *
                   from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[])
                        as outcome (id, fencing_token, status, result)
                   -- The order in which claims lock, too.
                   order by id
               ), current as (
                   select task.id, outcome.status, outcome.result
                   -- Lateral forces one index lookup per outcome. Statistics show almost no `processing` rows, so the
                   -- planner would otherwise scan and join them all.
                   from outcome cross join lateral (
                       select tasks.id
                       from tasks
                       where tasks.id = outcome.id
                         and tasks.fencing_token = outcome.fencing_token
                         and tasks.status = 'processing'
                       for update
                   ) as task
               )
               update tasks
               set status = current.status::task_status,
                   result = current.result,
                   lease_expires_at = null,
                   settled_at = case when current.status in ('completed', 'failed') then now() end,
                   version = version + 1,
                   updated_at = now()
               from current
               where tasks.id = current.id
               returning tasks.id as "id: TaskId""#,
            &ids,
            &tokens,
            &statuses as &[&str],
            &results as &[Option<&str>],
        )
        .fetch_all(connection)
        .await
    }
}
