//! The statements of the task-reconciler: take tasks whose message is missing, return those whose
//! message could not be sent, and delete old tasks.
//!
//! Each examines a limited number of rows, however large table and backlog are, and returns where
//! the next one continues.

use std::{iter, time::Duration};

use sqlx::PgConnection;
use time::{OffsetDateTime, PrimitiveDateTime};

use super::Statement;
use crate::domain::TaskId;

/// The condition for a task to be due, because its message is missing.
///
/// No worker has a lease on it, and its message was either never sent (and the task is older than
/// `unsent_after`, so that the reconciler does not overtake create-task), or sent more than
/// `lost_after` ago, longer than the queue's retry window. That of a scheduled task is received when
/// its time comes, so it is lost that long after its time.
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

/// A place among the tasks in the order of a key and the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position<Key> {
    key: Key,
    id: i64,
}

/// The tasks between two places, which are not included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range<Key> {
    pub after: Position<Key>,
    pub before: Position<Key>,
}

/// The key of open tasks: the status. The enum's values are in the order in which they were added, so
/// the open ones come first (pending, processing), and the scheduled ones behind the settled ones.
pub type Open = String;

/// The key of scheduled tasks: when they are to run.
pub type Scheduled = OffsetDateTime;

impl Range<Open> {
    /// All open tasks.
    pub fn open() -> Self {
        let end = |status: &str, id| Position {
            key: status.to_owned(),
            id,
        };
        Self {
            after: end("pending", 0),
            before: end("processing", i64::MAX),
        }
    }
}

/// How long before its time the message of a scheduled task is sent, delayed for the rest: two sweeps,
/// so that one may fail.
const SENT_BEFORE: Duration = Duration::from_secs(120);

impl Range<Scheduled> {
    /// All scheduled tasks whose messages are to be sent by now.
    pub fn scheduled() -> Self {
        // Postgres has the clock that counts: the statements add the condition.
        let end = |key| Position { key, id: 0 };
        Self {
            after: end(OffsetDateTime::UNIX_EPOCH),
            before: end(PrimitiveDateTime::MAX.assume_utc()),
        }
    }
}

/// A statement with the next tasks of a range, and which of them are due, as `examined`: `up` from the
/// beginning of the range, or `down` from its end. Passed to the macro: the range's key and its type,
/// the columns and conditions of the tasks, what follows, and the arguments: [`Due`], another one as
/// `$4`, and [`Range`].
///
/// Only one index provides this order, so the plan does not depend on statistics. Of the end of the
/// walk, its condition has the key only; the tasks behind are left out afterwards. Postgres ends a walk
/// at a row comparison only where the first columns differ, so with `(status, id) < (..)` it would
/// continue to the end of the status.
macro_rules! query_examined {
    (up, [$key:literal, $type:literal], $($rest:tt)+) => {
        query_examined!(
            ["(" $key ", id) > ($5" $type ", $6) and " $key " <= $7" $type " order by tasks." $key ", id"],
            ["(" $key ", id) < ($7" $type ", $8)"],
            $($rest)+
        )
    };
    (down, [$key:literal, $type:literal], $($rest:tt)+) => {
        query_examined!(
            ["(" $key ", id) < ($7" $type ", $8) and " $key " >= $5" $type " order by tasks." $key " desc, id desc"],
            ["(" $key ", id) > ($5" $type ", $6)"],
            $($rest)+
        )
    };
    (
        [$($walk:literal)+], [$($until:literal)+], $columns:literal, $where:literal, [$($then:literal)+],
        $due:expr, $fourth:expr, $range:expr, $limit:expr
    ) => {
        sqlx::query!(
            "with examined as materialized (
                   select *
                   from (select id, version, enqueued_at, " + $columns + " from tasks where " + $where $(+ $walk)+ + " limit $9) as next
                   where " $(+ $until)+ + ")" $(+ $then)+,
            $due.unsent_after.as_secs_f64(),
            $due.lost_after.as_secs_f64(),
            $due.include_lost,
            $fourth,
            $range.after.key,
            $range.after.id,
            $range.before.key,
            $range.before.id,
            $limit,
        )
    };
}

/// The statement about open tasks, by the index `tasks_by_status`.
macro_rules! query_open {
    ($direction:ident, $($then:literal)+, $due:expr, $range:expr, $limit:expr) => {
        query_examined!(
            $direction,
            ["status", "::text::task_status"],
            "status,
             lease_expires_at is not null and attempts >= $4 as is_discarded,
             (lease_expires_at is null or lease_expires_at <= now())
             and (enqueued_at is null and updated_at < now() - make_interval(secs => $1)
                  or enqueued_at is not null
                     and greatest(enqueued_at, run_at) < now() - make_interval(secs => $2)
                     and ($3 or lease_expires_at is not null and attempts >= $4)) as is_due",
            "",
            [$($then)+],
            $due,
            $due.max_attempts,
            $range,
            $limit
        )
    };
}

/// The statement about scheduled tasks, by the index `tasks_scheduled`.
macro_rules! query_scheduled {
    ($direction:ident, $($then:literal)+, $due:expr, $range:expr, $limit:expr) => {
        query_examined!(
            $direction,
            ["run_at", ""],
            "run_at,
             case
                 when enqueued_at is null then updated_at < now() - make_interval(secs => $1)
                 else greatest(enqueued_at, run_at) < now() - make_interval(secs => $2) and $3
             end as is_due",
            "status = 'scheduled' and run_at <= now() + make_interval(secs => $4) and ",
            [$($then)+],
            $due,
            SENT_BEFORE.as_secs_f64(),
            $range,
            $limit
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
pub struct TakeDue<'a, Key> {
    pub due: Due,
    pub range: &'a Range<Key>,
    /// From the end of the range, instead of from its beginning.
    pub newest_first: bool,
    /// The maximum number of tasks to examine, and so to take.
    pub limit: i64,
}

/// The tasks taken by [`TakeDue`].
#[derive(Debug, PartialEq, Eq)]
pub struct Taken<Key> {
    /// Tasks marked as enqueued, whose messages are now to be sent, with this delay in seconds.
    pub to_send: Vec<(TaskId, i32)>,
    /// How many of them had a message before, which counts as lost.
    pub lost: i64,
    /// Tasks that are now failed, after too many attempts without a reported outcome.
    pub discarded: Vec<TaskId>,
    /// How many tasks were examined.
    pub examined: i64,
    /// The last one, if any.
    pub last: Option<Position<Key>>,
}

impl Statement for TakeDue<'_, Open> {
    type Output = Taken<Open>;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        macro_rules! take {
            ($direction:ident, $reverse:literal) => {
                query_open!(
                    $direction,
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
                      (select status from last) as last_key,
                      (select id from last) as last_id"#,
                    self.due,
                    self.range,
                    self.limit
                )
                .fetch_one(connection)
                .await
                .map(|row| Taken {
                    to_send: row.to_send.into_iter().map(|id| (id, 0)).collect(),
                    lost: row.lost,
                    discarded: row.discarded,
                    examined: row.examined,
                    last: row.last_key.zip(row.last_id).map(|(key, id)| Position { key, id }),
                })
            };
        }
        if self.newest_first {
            take!(down, "examined.status, id")
        } else {
            take!(up, "examined.status desc, id desc")
        }
    }
}

impl Statement for TakeDue<'_, Scheduled> {
    type Output = Taken<Scheduled>;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        macro_rules! take {
            ($direction:ident, $reverse:literal) => {
                query_scheduled!(
                    $direction,
                    r#", due as (
                   select examined.id, examined.enqueued_at
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
                   where id = any (array(select id from due))
                   returning id, greatest(ceil(extract(epoch from run_at - now())), 0)::integer as delay
               ), last as (
                   select run_at, id from examined order by "# $reverse r#" limit 1
               )
               select array(select id from sent order by id) as "to_send!: Vec<TaskId>",
                      array(select delay from sent order by id) as "delays!",
                      (select count(*) from due where enqueued_at is not null) as "lost!",
                      (select count(*) from examined) as "examined!",
                      (select run_at from last) as last_key,
                      (select id from last) as last_id"#,
                    self.due,
                    self.range,
                    self.limit
                )
                .fetch_one(connection)
                .await
                .map(|row| Taken {
                    to_send: iter::zip(row.to_send, row.delays).collect(),
                    lost: row.lost,
                    discarded: Vec::new(),
                    examined: row.examined,
                    last: row.last_key.zip(row.last_id).map(|(key, id)| Position { key, id }),
                })
            };
        }
        if self.newest_first {
            take!(down, "run_at, id")
        } else {
            take!(up, "run_at desc, id desc")
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
pub struct CountDue<'a, Key> {
    pub due: Due,
    pub range: &'a Range<Key>,
    /// From the end of the range, instead of from its beginning.
    pub newest_first: bool,
    /// The maximum number of tasks to examine.
    pub limit: i64,
}

/// The statement of [`CountDue`] in one order.
macro_rules! count {
    ($query:ident, $direction:ident, $count:expr, $connection:expr) => {
        $query!(
            $direction,
            r#" select count(*) filter (where is_due) as "count!" from examined"#,
            $count.due,
            $count.range,
            $count.limit
        )
        .fetch_one($connection)
        .await
        .map(|row| row.count)
    };
}

impl Statement for CountDue<'_, Open> {
    type Output = i64;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        if self.newest_first {
            count!(query_open, down, self, connection)
        } else {
            count!(query_open, up, self, connection)
        }
    }
}

impl Statement for CountDue<'_, Scheduled> {
    type Output = i64;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        if self.newest_first {
            count!(query_scheduled, down, self, connection)
        } else {
            count!(query_scheduled, up, self, connection)
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
