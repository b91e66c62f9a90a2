//! The statements of the task-reconciler: take the tasks whose message is missing, give back those that could
//! not be sent.

use std::time::Duration;

use sqlx::PgConnection;

use super::Statement;
use crate::domain::TaskId;

/// Takes tasks whose message is missing and marks them as enqueued, those first that wait the longest.
///
/// Missing means: never sent (and older than `unsent_after`, so that create-task is not overtaken), or sent
/// longer ago than `lost_after`, which the queue cannot explain, while no worker holds a lease. Two sweeps at
/// once never take the same task: each skips what the other has locked, and what it has marked is not due.
pub struct TakeDue {
    /// How many at the most.
    pub limit: i64,
    /// How old a task must be that was never enqueued.
    pub unsent_after: Duration,
    /// How long ago the message must have been sent to count as lost.
    pub lost_after: Duration,
}

impl Statement for TakeDue {
    type Answer = Vec<TaskId>;
    // Taken twice, the first lot would wait for `lost_after` again.
    const REPEATABLE: bool = false;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
        sqlx::query_scalar!(
            r#"with due as (
                   select id
                   from tasks
                   where status in ('pending', 'processing')
                     and (lease_expires_at is null or lease_expires_at <= now())
                     and (enqueued_at < now() - make_interval(secs => $2)
                          or enqueued_at is null and updated_at < now() - make_interval(secs => $1))
                   order by enqueued_at nulls first, id
                   limit $3
                   for update skip locked
               )
               update tasks
               set enqueued_at = now()
               from due
               where tasks.id = due.id
               returning tasks.id as "id: TaskId""#,
            self.unsent_after.as_secs_f64(),
            self.lost_after.as_secs_f64(),
            self.limit,
        )
        .fetch_all(connection)
        .await
    }
}

/// Notes that no message about these tasks was accepted after all.
pub struct GiveBack<'a>(pub &'a [TaskId]);

impl Statement for GiveBack<'_> {
    type Answer = ();
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
        let ids: Vec<i64> = self.0.iter().map(|id| id.get()).collect();
        sqlx::query!("update tasks set enqueued_at = null where id = any ($1)", &ids)
            .execute(connection)
            .await
            .map(|_| ())
    }
}

/// Counts the tasks that [`TakeDue`] would take.
pub struct CountDue {
    /// As in [`TakeDue`].
    pub unsent_after: Duration,
    /// As in [`TakeDue`].
    pub lost_after: Duration,
}

impl Statement for CountDue {
    type Answer = i64;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
        sqlx::query_scalar!(
            r#"select count(*) as "count!"
               from tasks
               where status in ('pending', 'processing')
                 and (lease_expires_at is null or lease_expires_at <= now())
                 and (enqueued_at < now() - make_interval(secs => $2)
                      or enqueued_at is null and updated_at < now() - make_interval(secs => $1))"#,
            self.unsent_after.as_secs_f64(),
            self.lost_after.as_secs_f64(),
        )
        .fetch_one(connection)
        .await
    }
}
