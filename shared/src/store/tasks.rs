//! The statements of the API functions.

use sqlx::PgConnection;

use super::Statement;
use crate::domain::{Description, NewTask, Page, Status, Task, TaskId, TaskPatch, Title};

/// A statement that answers with whole tasks: the text before and after the list of columns, then the
/// arguments. One list for all of them, still checked at compile time.
macro_rules! query_tasks {
    ($before:literal, $after:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Task,
            $before
                + r#" id as "id: TaskId", title as "title: Title", description as "description: Description",
                      status as "status: Status", result, created_at, updated_at "#
                + $after,
            $($argument),*
        )
    };
}

/// Stores a new task, pending and not yet enqueued.
pub struct Insert<'a>(pub &'a NewTask);

impl Statement for Insert<'_> {
    type Answer = Task;
    const REPEATABLE: bool = false;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
        query_tasks!(
            "insert into tasks (title, description) values ($1, $2) returning",
            "",
            self.0.title.as_str(),
            self.0.description.as_ref().map(Description::as_str),
        )
        .fetch_one(connection)
        .await
    }
}

/// Notes that SQS has accepted a message about the task.
pub struct MarkEnqueued(pub TaskId);

impl Statement for MarkEnqueued {
    type Answer = ();
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
        sqlx::query!("update tasks set enqueued_at = now() where id = $1", self.0.get())
            .execute(connection)
            .await
            .map(|_| ())
    }
}

/// The task, if there is one.
pub struct Find(pub TaskId);

impl Statement for Find {
    type Answer = Option<Task>;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
        query_tasks!("select", "from tasks where id = $1", self.0.get())
            .fetch_optional(connection)
            .await
    }
}

/// One page of tasks, by ascending id.
pub struct List(pub Page);

impl Statement for List {
    type Answer = Vec<Task>;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
        query_tasks!(
            "select",
            "from tasks order by id offset $1 limit $2",
            self.0.skip,
            self.0.limit
        )
        .fetch_all(connection)
        .await
    }
}

/// Changes what the patch names and nothing else; `None` if there is no such task.
///
/// Naming another status than `processing` ends a worker's lease: its outcome no longer counts. Naming
/// `processing` keeps a lease, and without one makes the task claimable: nobody is working on it.
pub struct Update<'a> {
    /// Which task.
    pub id: TaskId,
    /// What changes.
    pub patch: &'a TaskPatch,
}

impl Statement for Update<'_> {
    type Answer = Option<Task>;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
        query_tasks!(
            "update tasks set
                title = coalesce($2, title),
                description = case when $3 then $4 else description end,
                status = coalesce($5::text::task_status, status),
                lease_expires_at = case
                    when $5::text is null then lease_expires_at
                    when $5::text = 'processing' then coalesce(lease_expires_at, now())
                end,
                updated_at = now()
             where id = $1
             returning",
            "",
            self.id.get(),
            self.patch.title.as_ref().map(Title::as_str),
            self.patch.description.is_some(),
            self.patch.description.iter().flatten().next().map(Description::as_str),
            self.patch.status.map(Status::as_str),
        )
        .fetch_optional(connection)
        .await
    }
}

/// Deletes the task; false if there is none. A worker that holds it finds it gone and drops its result.
pub struct Delete(pub TaskId);

impl Statement for Delete {
    type Answer = bool;
    const REPEATABLE: bool = false;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
        sqlx::query!("delete from tasks where id = $1", self.0.get())
            .execute(connection)
            .await
            .map(|done| done.rows_affected() == 1)
    }
}

/// What became of a request to process a task again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetOutcome {
    /// The task is pending, without a result, and not yet enqueued.
    Done,
    /// A worker holds a lease on the task.
    Processing,
    /// There is no such task.
    NotFound,
}

/// Makes the task pending again, unless a worker holds a lease on it.
pub struct Reset(pub TaskId);

impl Statement for Reset {
    type Answer = ResetOutcome;
    const REPEATABLE: bool = true;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
        let found = sqlx::query!(
            r#"with reset as (
                   update tasks
                   set status = 'pending', result = null, enqueued_at = null, lease_expires_at = null, updated_at = now()
                   where id = $1 and (lease_expires_at is null or lease_expires_at <= now())
                   returning id
               )
               select exists (select from reset) as "done!" from tasks where id = $1"#,
            self.0.get()
        )
        .fetch_optional(connection)
        .await?;
        Ok(match found {
            Some(row) if row.done => ResetOutcome::Done,
            Some(_) => ResetOutcome::Processing,
            None => ResetOutcome::NotFound,
        })
    }
}
