//! The statements of the task-reconciler: take tasks whose message is missing, return those whose
//! message could not be sent, and delete old tasks.
//!
//! Each examines a limited number of rows, however large table and backlog are, and returns where
//! the next one continues.

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::Statement;
use crate::domain::TaskId;

/// The condition for a task to be due, because its message is missing.
///
/// No worker has a lease on it, and its message was either never sent (and the task is older than
/// `unsent_after`, so that the reconciler does not overtake create-task), or sent more than
/// `lost_after` ago, longer than the queue's retry window.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// The minimum age of a task that was never enqueued.
    pub unsent_after: Duration,
    /// The age at which a message counts as lost.
    pub lost_after: Duration,
    /// False if messages of that age may still be waiting in the queue. Tasks to be discarded are
    /// due nevertheless.
    pub include_lost: bool,
    /// The number of attempts after which a task is discarded.
    pub max_attempts: i32,
}

/// A place among the tasks in the order of status and id. The enum's values are in the order in
/// which they were added, so the open tasks come first: pending, processing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    status: String,
    id: i64,
}

impl Position {
    fn new(status: impl Into<String>, id: i64) -> Self {
        let status = status.into();
        Self { status, id }
    }
}

/// The open tasks between two places, which are not included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub after: Position,
    pub before: Position,
}

impl Range {
    /// All open tasks.
    pub fn all() -> Self {
        Self {
            after: Position::new("pending", 0),
            before: Position::new("completed", 0),
        }
    }
}

/// A statement with the next open tasks of a range, and which of them are due, as `examined`. Its
/// first nine arguments come from [`Due`] and [`Range`].
///
/// Only the index on status and id provides this order, so the plan does not depend on statistics.
macro_rules! query_examined {
    ($order:literal, $($then:literal)+, $due:expr, $range:expr, $limit:expr) => {
        sqlx::query!(
            "with examined as materialized (
                   select id,
                          status,
                          version,
                          enqueued_at,
                          lease_expires_at is not null and attempts >= $4 as is_discarded,
                          (lease_expires_at is null or lease_expires_at <= now())
                          and (enqueued_at is null and updated_at < now() - make_interval(secs => $1)
                               or enqueued_at < now() - make_interval(secs => $2)
                                  and ($3 or lease_expires_at is not null and attempts >= $4)) as is_due
                   from tasks
                   where (status, id) > ($5::text::task_status, $6) and (status, id) < ($7::text::task_status, $8)
                   order by "
                + $order
                + " limit $9
               )"
                $(+ $then)+,
            $due.unsent_after.as_secs_f64(),
            $due.lost_after.as_secs_f64(),
            $due.include_lost,
            $due.max_attempts,
            $range.after.status,
            $range.after.id,
            $range.before.status,
            $range.before.id,
            $limit,
        )
    };
}

/// Takes the tasks that are due among the next ones of a range.
///
/// Only a task whose last attempt reported no outcome (its lease has expired) is discarded. A
/// pending one is sent once more, however many attempts it had: its last one reported a transient
/// failure, or an operator has made it pending.
///
/// Concurrent sweeps never take the same task: each skips rows that the other has locked, and a
/// task that was taken is no longer due.
pub struct TakeDue<'a> {
    pub due: Due,
    pub range: &'a Range,
    /// From the end of the range, instead of from its beginning.
    pub newest_first: bool,
    /// The maximum number of tasks to examine, and so to take.
    pub limit: i64,
}

/// The tasks taken by [`TakeDue`].
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    /// Tasks marked as enqueued, whose messages are now to be sent.
    pub to_send: Vec<TaskId>,
    /// How many of them had a message before, which counts as lost.
    pub lost: i64,
    /// Tasks that are now failed, after too many attempts without a reported outcome.
    pub discarded: Vec<TaskId>,
    /// How many tasks were examined.
    pub examined: i64,
    /// The last one, if any.
    pub last: Option<Position>,
}

impl Statement for TakeDue<'_> {
    type Output = Taken;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        macro_rules! take {
            ($order:literal, $reverse:literal) => {
                query_examined!(
                    $order,
                    r#", due as (
                   select examined.*
                   -- Lateral: one index lookup per task. A task that has changed since is not locked.
                   from examined cross join lateral (
                       select
                       from tasks
                       where tasks.id = examined.id
                         and tasks.version = examined.version
                         and tasks.enqueued_at is not distinct from examined.enqueued_at
                       for update skip locked
                   ) as locked
                   where is_due
               ), sent as (
                   update tasks
                   set enqueued_at = now()
                   where id = any (array(select id from due where not is_discarded))
                   returning id
               ), discarded as (
                   update tasks
                   set status = 'failed',
                       result = format('discarded after %s attempts without a reported outcome', attempts),
                       lease_expires_at = null,
                       settled_at = now(),
                       version = version + 1,
                       updated_at = now()
                   where id = any (array(select id from due where is_discarded))
                   returning id
               ), last as (
                   select status::text, id from examined order by "# $reverse r#" limit 1
               )
               select array(select id from sent) as "to_send!: Vec<TaskId>",
                      (select count(*) from due where not is_discarded and enqueued_at is not null) as "lost!",
                      array(select id from discarded) as "discarded!: Vec<TaskId>",
                      (select count(*) from examined) as "examined!",
                      (select status from last) as last_status,
                      (select id from last) as last_id"#,
                    self.due,
                    self.range,
                    self.limit
                )
                .fetch_one(connection)
                .await
                .map(|row| Taken {
                    to_send: row.to_send,
                    lost: row.lost,
                    discarded: row.discarded,
                    examined: row.examined,
                    last: row
                        .last_status
                        .zip(row.last_id)
                        .map(|(status, id)| Position::new(status, id)),
                })
            };
        }
        if self.newest_first {
            take!("tasks.status desc, id desc", "examined.status, id")
        } else {
            take!("tasks.status, id", "examined.status desc, id desc")
        }
    }
}

/// Clears the mark that these tasks are enqueued, because SQS did not accept their messages.
pub struct ClearEnqueued<'a>(pub &'a [TaskId]);

impl Statement for ClearEnqueued<'_> {
    type Output = ();

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let ids: Vec<i64> = self.0.iter().map(|id| id.get()).collect();
        sqlx::query!("update tasks set enqueued_at = null where id = any ($1)", &ids)
            .execute(connection)
            .await
            .map(|_| ())
    }
}

/// Counts the tasks that are due among the next ones of a range.
pub struct CountDue<'a> {
    pub due: Due,
    pub range: &'a Range,
    /// From the end of the range, instead of from its beginning.
    pub newest_first: bool,
    /// The maximum number of tasks to examine.
    pub limit: i64,
}

impl Statement for CountDue<'_> {
    type Output = i64;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        macro_rules! count {
            ($order:literal) => {
                query_examined!(
                    $order,
                    r#" select count(*) filter (where is_due) as "count!" from examined"#,
                    self.due,
                    self.range,
                    self.limit
                )
                .fetch_one(connection)
                .await
                .map(|row| row.count)
            };
        }
        if self.newest_first {
            count!("tasks.status desc, id desc")
        } else {
            count!("tasks.status, id")
        }
    }
}

/// Deletes tasks that were completed or failed long ago, those first that were settled first.
pub struct DeleteSettled {
    /// The age from which they are deleted.
    pub older_than: Duration,
    /// Only tasks that were settled at that time or later: where an earlier statement stopped.
    pub from: Option<OffsetDateTime>,
    /// The maximum number of tasks to delete.
    pub limit: i64,
}

/// The rows that a step deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    pub count: i64,
    /// When the last of them was settled, or expired: where the next step continues.
    pub last: Option<OffsetDateTime>,
}

impl Statement for DeleteSettled {
    type Output = Deleted;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        sqlx::query_as!(
            Deleted,
            r#"with deleted as (
                   delete from tasks
                   where id = any (array(
                       select id
                       from tasks
                       where settled_at < now() - make_interval(secs => $1)
                         and settled_at >= coalesce($3::timestamptz, '-infinity')
                       order by settled_at
                       limit $2
                       for update skip locked
                   ))
                   returning settled_at
               )
               select count(*) as "count!", max(settled_at) as last from deleted"#,
            self.older_than.as_secs_f64(),
            self.limit,
            self.from,
        )
        .fetch_one(connection)
        .await
    }
}

/// Counts the tasks that [`DeleteSettled`] would delete.
pub struct CountSettled {
    pub older_than: Duration,
    pub from: Option<OffsetDateTime>,
    /// The maximum number of tasks to count.
    pub limit: i64,
}

impl Statement for CountSettled {
    type Output = i64;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        sqlx::query_scalar!(
            r#"select count(*) as "count!"
               from (
                   select
                   from tasks
                   where settled_at < now() - make_interval(secs => $1)
                     and settled_at >= coalesce($3::timestamptz, '-infinity')
                   order by settled_at
                   limit $2
               ) as settled"#,
            self.older_than.as_secs_f64(),
            self.limit,
            self.from,
        )
        .fetch_one(connection)
        .await
    }
}
