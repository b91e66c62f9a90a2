//! The statements of the task-reconciler: take tasks whose message is missing, and return those
//! whose message could not be sent.

use std::time::Duration;

use sqlx::PgConnection;

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
}

/// A query with the condition of [`Due`] between its two parts. Its first two arguments come from
/// [`Due`].
macro_rules! query_due {
    ($before:literal, $after:literal, $due:expr $(, $argument:expr)* $(,)?) => {
        sqlx::query!(
            $before
                + "status in ('pending', 'processing')
                   and (lease_expires_at is null or lease_expires_at <= now())
                   and (enqueued_at < now() - make_interval(secs => $2)
                        or enqueued_at is null and updated_at < now() - make_interval(secs => $1))"
                + $after,
            $due.unsent_after.as_secs_f64(),
            $due.lost_after.as_secs_f64(),
            $($argument),*
        )
    };
}

/// The tasks taken by [`TakeDue`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Tasks marked as enqueued, whose messages are now to be sent.
    pub to_send: Vec<TaskId>,
    /// Tasks that are now failed, after too many attempts without a reported outcome.
    pub discarded: Vec<TaskId>,
}

/// Takes tasks that are due, starting with those that have waited longest.
///
/// Only a task whose last attempt reported no outcome (its lease has expired) is discarded. A
/// pending one is sent once more, however many attempts it had: its last one reported a transient
/// failure, or an operator has made it pending.
///
/// Concurrent sweeps never take the same task: each skips rows that the other has locked, and a
/// task that was taken is no longer due.
pub struct TakeDue {
    pub due: Due,
    /// The number of attempts after which a task is discarded.
    pub max_attempts: i32,
    /// The maximum number of tasks to take.
    pub limit: i64,
}

impl Statement for TakeDue {
    type Output = Taken;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let rows = query_due!(
            r#"with due as (
                   select id, lease_expires_at is not null and attempts >= $4 as discarded
                   from tasks
                   where "#,
            r#"    order by enqueued_at nulls first, id
                   limit $3
                   for update skip locked
               ), sent as (
                   update tasks
                   set enqueued_at = now()
                   from due
                   where tasks.id = due.id and not discarded
                   returning tasks.id
               ), discarded as (
                   update tasks
                   set status = 'failed',
                       result = format('discarded after %s attempts without a reported outcome', attempts),
                       lease_expires_at = null,
                       settled_at = now(),
                       version = version + 1,
                       updated_at = now()
                   from due
                   where tasks.id = due.id and discarded
                   returning tasks.id
               )
               select id as "id!: TaskId", false as "is_discarded!" from sent
               union all
               select id, true from discarded"#,
            self.due,
            self.limit,
            self.max_attempts,
        )
        .fetch_all(connection)
        .await?;
        let mut taken = Taken::default();
        for row in rows {
            match row.is_discarded {
                true => taken.discarded.push(row.id),
                false => taken.to_send.push(row.id),
            }
        }
        Ok(taken)
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

/// Counts the tasks that [`TakeDue`] would take.
pub struct CountDue(pub Due);

impl Statement for CountDue {
    type Output = i64;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        query_due!(r#"select count(*) as "count!" from tasks where "#, "", self.0)
            .fetch_one(connection)
            .await
            .map(|row| row.count)
    }
}
