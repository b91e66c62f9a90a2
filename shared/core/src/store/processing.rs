//! The statements of the task-processor: claim a batch, look whether its leases are still valid,
//! settle a batch. One statement each, whatever the size of the batch.

use std::{collections::HashMap, time::Duration};

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{
    Statement,
    columns::{query_tasks_and_more, task_of},
};
use crate::domain::{Description, Status, StoredStatus, Task, TaskId, Title};

/// The outcome of a claim, for one task of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// This worker has the lease.
    Claimed(ClaimedTask),
    /// Another worker has the lease. If that worker dies, a later claim succeeds.
    Busy,
    /// Another session has locked the row: a worker that claims the task, or a client that changes
    /// it.
    Locked,
    /// The task was completed, failed, cancelled or deleted after the message was sent: the message
    /// is a duplicate or late, and requires no work.
    Settled,
    /// The task is scheduled, and its time comes in this many seconds, at least one.
    Early { seconds: i32 },
    /// The task has a status that this version does not know, and is left alone: a later version
    /// has stored it, and processes the message or acknowledges it.
    Unknown(String),
}

/// A claimed task and its fencing token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedTask {
    /// The task as it was claimed.
    pub task: Task,
    /// Grows with every claim. An outcome is stored only if its token is still the task's current
    /// one, so a worker that lost its lease cannot overwrite its successor's result.
    pub fencing_token: i64,
}

/// A request to process a task, from a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimRequest {
    /// The id of the task.
    pub id: TaskId,
    /// When the message was sent, if known.
    pub sent_at: Option<OffsetDateTime>,
}

/// Claims tasks that are pending, tasks with an expired lease, scheduled tasks whose time has come,
/// and tasks that failed before their message was sent, which requests another run.
///
/// Returns an outcome for every requested task. Two claims of a task never both succeed: the second
/// finds a row lock or a valid lease. It does not wait for the lock, because a single locked row
/// would delay and then fail the whole batch.
pub struct Claim<'a> {
    /// The tasks of the batch, without duplicates.
    pub requests: &'a [ClaimRequest],
    /// The duration of the lease: until this worker has certainly stopped.
    pub lease: Duration,
}

impl Statement for Claim<'_> {
    type Output = HashMap<TaskId, ClaimOutcome>;

    fn is_repeatable(&self) -> bool {
        // If the response to a claim is lost, repeating it returns `Busy`: the messages are
        // redelivered, nothing runs twice.
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let ids: Vec<i64> = self.requests.iter().map(|request| request.id.get()).collect();
        let sent_at: Vec<Option<OffsetDateTime>> = self.requests.iter().map(|request| request.sent_at).collect();
        // Lateral forces one index lookup per task, whatever the statistics say: they are those of a
        // moment without or with many waiting tasks. The update finds the rows that were just
        // locked where they are (`ctid`), without another lookup. It leaves the stored status as it
        // is (the lease makes a task `processing`) and so every indexed column: a HOT update. (Of a task
        // that was scheduled it is not.)
        //
        // `found` shows the other tasks as of the start of the statement. A task that is claimable
        // there but was not claimed was locked, or has changed since.
        let rows = query_tasks_and_more!(
            "with requested as (
                   select *
                   from unnest($1::bigint[], $2::timestamptz[]) as requested (id, sent_at)
                   order by id
               ), claimable as (
                   select task.ctid
                   from requested cross join lateral (
                       select tasks.ctid
                       from tasks
                       where tasks.id = requested.id
                         and (status in ('pending', 'processing')
                                 and (lease_expires_at is null or lease_expires_at <= now())
                              or status = 'scheduled' and run_at <= now()
                              or status = 'failed' and settled_at < sent_at)
                       for update skip locked
                   ) as task
               ), claimed as (
                   update tasks
                   set status = 'pending',
                       result = null,
                       attempts = case when status = 'failed' then 1 else attempts + 1 end,
                       fencing_token = fencing_token + 1,
                       lease_expires_at = now() + make_interval(secs => $3),
                       requested_at = case status
                           when 'failed' then now()
                           when 'scheduled' then run_at
                           else requested_at
                       end,
                       started_at = now(),
                       settled_at = null,
                       earlier_attempts = case
                           when started_at is not null then ended_attempts(tasks, null)
                           else earlier_attempts
                       end,
                       version = version + 1,
                       updated_at = now()
                   from claimable
                   where tasks.ctid = claimable.ctid
                   returning tasks.*
               )
               select",
            r#", fencing_token as "fencing_token!", is_claimed as "is_claimed!", is_claimable as "is_claimable!",
               case when status = 'scheduled' then ceil(extract(epoch from run_at - now()))::integer end as early_seconds
               from (
                   select claimed.*, true as is_claimed, false as is_claimable from claimed
                   union all
                   select found.*
                   from (
                       select * from requested where id not in (select id from claimed)
                   ) as rest cross join lateral (
                       select tasks.*, false, coalesce(
                           status in ('pending', 'processing')
                               and (lease_expires_at is null or lease_expires_at <= now())
                           or status = 'scheduled' and run_at <= now()
                           or status = 'failed' and settled_at < sent_at,
                           false
                       )
                       from tasks
                       where tasks.id = rest.id
                       -- Keeps the lookups lateral.
                       offset 0
                   ) as found
               ) as found"#,
            &ids,
            &sent_at as &[Option<OffsetDateTime>],
            self.lease.as_secs_f64(),
        )
        .fetch_all(connection)
        .await?;

        // Tasks without a row were deleted.
        let settled = |request: &ClaimRequest| (request.id, ClaimOutcome::Settled);
        let mut claims: HashMap<_, _> = self.requests.iter().map(settled).collect();
        for row in rows {
            let id = row.id;
            let claim = match row.status {
                _ if row.is_claimed => ClaimOutcome::Claimed(ClaimedTask {
                    fencing_token: row.fencing_token,
                    task: task_of!(row),
                }),
                _ if row.is_claimable => ClaimOutcome::Locked,
                StoredStatus::Known(Status::Completed | Status::Failed | Status::Cancelled) => ClaimOutcome::Settled,
                StoredStatus::Known(Status::Pending | Status::Processing) => ClaimOutcome::Busy,
                StoredStatus::Known(Status::Scheduled) => ClaimOutcome::Early {
                    seconds: row.early_seconds.unwrap_or_default(),
                },
                StoredStatus::Unknown(status) => ClaimOutcome::Unknown(status),
            };
            claims.insert(id, claim);
        }
        Ok(claims)
    }
}

/// The lease of a claimed task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub id: TaskId,
    /// The token of the claim.
    pub fencing_token: i64,
}

/// Finds the leases that were lost: the task was cancelled, deleted, received another status or was
/// claimed by another worker.
pub struct FindLost<'a>(pub &'a [Lease]);

impl Statement for FindLost<'_> {
    type Output = Vec<TaskId>;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let ids: Vec<i64> = self.0.iter().map(|lease| lease.id.get()).collect();
        let tokens: Vec<i64> = self.0.iter().map(|lease| lease.fencing_token).collect();
        sqlx::query_scalar!(
            r#"select lease.id as "id!: TaskId"
               from unnest($1::bigint[], $2::bigint[]) as lease (id, fencing_token)
                    -- Lateral forces one index lookup per lease, whatever the statistics say.
                    left join lateral (
                        select true as is_held
                        from tasks
                        where tasks.id = lease.id
                          and tasks.fencing_token = lease.fencing_token
                          and tasks.lease_expires_at is not null
                        offset 0
                    ) as task on true
               where is_held is null"#,
            &ids,
            &tokens,
        )
        .fetch_all(connection)
        .await
    }
}

/// The outcome of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The id of the task.
    pub id: TaskId,
    /// The token of the claim.
    pub fencing_token: i64,
    /// Completed or failed; pending to release the task.
    pub status: Status,
    /// The output, or the reason for the failure. That of a released task becomes the error of this
    /// attempt.
    pub result: Option<String>,
}

/// Stores the outcomes of a batch and returns the ids of the tasks that they settled.
///
/// An outcome is discarded if, in the meantime, the task was deleted, received another status or
/// was claimed by another worker.
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
                   -- All statements that wait for rows lock them in this order, so that overlapping batches
                   -- cannot deadlock.
                   order by id
               ), current as (
                   select task.id, outcome.status, outcome.result
                   -- Lateral forces one index lookup per outcome, whatever the statistics say.
                   from outcome cross join lateral (
                       select tasks.id
                       from tasks
                       where tasks.id = outcome.id
                         and tasks.fencing_token = outcome.fencing_token
                         and tasks.lease_expires_at is not null
                       for update
                   ) as task
               )
               update tasks
               set status = current.status::task_status,
                   result = case when current.status <> 'pending' then current.result end,
                   earlier_attempts = case
                       when current.status = 'pending' then ended_attempts(tasks, coalesce(current.result, ''))
                       else earlier_attempts
                   end,
                   started_at = case when current.status <> 'pending' then started_at end,
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
