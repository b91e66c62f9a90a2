//! The statements of the task-processor: claim a batch, settle a batch. One statement each, however many
//! records the batch holds.

use std::{collections::HashMap, time::Duration};

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::Statement;
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
    type Answer = HashMap<TaskId, ClaimOutcome>;

    fn is_repeatable(&self) -> bool {
        // A claim whose answer was lost shows as busy when repeated: the messages come back, nothing runs twice.
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
        let ids: Vec<i64> = self.requests.iter().map(|request| request.id.get()).collect();
        let sent_at: Vec<Option<OffsetDateTime>> = self.requests.iter().map(|request| request.sent_at).collect();
        // `before` shows the tasks as they were when the statement began. A task that shows as claimable there
        // but was not claimed was taken by another worker while this statement waited for it: busy.
        let rows = sqlx::query!(
            r#"with requested as (
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
               select before.id as "id: TaskId",
                      coalesce(claimed.title, before.title) as "title!: Title",
                      coalesce(claimed.description, before.description) as "description: Description",
                      before.status as "status: Status",
                      coalesce(claimed.attempts, before.attempts) as "attempts!",
                      before.created_at,
                      coalesce(claimed.updated_at, before.updated_at) as "updated_at!",
                      coalesce(claimed.version, before.version) as "version!",
                      claimed.fencing_token as "fencing_token?"
               from tasks as before left join claimed using (id)
               where before.id = any ($1)"#,
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
            let claim = match (row.fencing_token, row.status) {
                (Some(fencing_token), _) => ClaimOutcome::Claimed(ClaimedTask {
                    task: Task {
                        id: row.id,
                        title: row.title,
                        description: row.description,
                        status: Status::Processing,
                        result: None,
                        attempts: row.attempts,
                        created_at: row.created_at,
                        updated_at: row.updated_at,
                        version: row.version,
                    },
                    fencing_token,
                }),
                (None, Status::Completed | Status::Failed) => ClaimOutcome::Settled,
                (None, Status::Pending | Status::Processing) => ClaimOutcome::Busy,
            };
            claims.insert(row.id, claim);
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
    type Answer = Vec<TaskId>;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
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
                   -- Lateral, that is one by one: Postgres, who has hardly ever seen a task that is processing, would
                   -- begin with all of those, and compare each with all outcomes.
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
