//! The statements of the task-reconciler: take the tasks whose message is missing, give back those that could
//! not be sent.

use std::time::Duration;

use sqlx::PgConnection;

use super::Statement;
use crate::domain::{Status, TaskId};

/// Which tasks are due: those whose message is missing.
///
/// That is: never sent (and older than `unsent_after`, so that create-task is not overtaken), or sent longer ago
/// than `lost_after`, which the queue cannot explain, while no worker holds a lease.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// How old a task must be that was never enqueued.
    pub unsent_after: Duration,
    /// How long ago the message must have been sent to count as lost.
    pub lost_after: Duration,
}

/// A query with the condition that a task is due between its two parts; [`Due`] has the first two arguments.
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

/// What [`TakeDue`] took.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// These are marked as enqueued, and now to be sent.
    pub to_send: Vec<TaskId>,
    /// These were tried too often, each time without an outcome. They are failed now, and say so.
    pub given_up: Vec<TaskId>,
}

/// Takes tasks that are due, those first that wait the longest.
///
/// Two sweeps at once never take the same task: each skips what the other has locked, and what it has taken is
/// no longer due.
pub struct TakeDue {
    /// Which are due.
    pub due: Due,
    /// After how many attempts a task is given up.
    pub max_attempts: i32,
    /// How many to take at the most.
    pub limit: i64,
}

impl Statement for TakeDue {
    type Output = Taken;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let rows = query_due!(
            r#"with due as (
                   select id, attempts >= $4 as given_up
                   from tasks
                   where "#,
            r#"    order by enqueued_at nulls first, id
                   limit $3
                   for update skip locked
               ), sent as (
                   update tasks
                   set enqueued_at = now()
                   from due
                   where tasks.id = due.id and not given_up
                   returning tasks.id, status
               ), given_up as (
                   update tasks
                   set status = 'failed',
                       result = format('given up after %s attempts, none of which reported an outcome', attempts),
                       lease_expires_at = null,
                       settled_at = now(),
                       version = version + 1,
                       updated_at = now()
                   from due
                   where tasks.id = due.id and given_up
                   returning tasks.id, status
               )
               select id as "id!: TaskId", status as "status!: Status" from sent
               union all
               select id, status from given_up"#,
            self.due,
            self.limit,
            self.max_attempts,
        )
        .fetch_all(connection)
        .await?;
        let mut taken = Taken::default();
        for row in rows {
            match row.status {
                Status::Failed => taken.given_up.push(row.id),
                _ => taken.to_send.push(row.id),
            }
        }
        Ok(taken)
    }
}

/// Notes that no message about these tasks was accepted after all.
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
