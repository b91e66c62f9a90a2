//! The statements of the API functions.

use sqlx::PgConnection;

use super::Statement;
use crate::domain::{Cursor, Description, NewTask, Page, Status, Task, TaskId, TaskPatch, Title};

/// A statement that answers with whole tasks: the text before and after the list of columns, then the
/// arguments. One list for all of them, still checked at compile time.
macro_rules! query_tasks {
    ($before:literal, $after:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Task,
            $before
                + r#" id as "id: TaskId", title as "title: Title", description as "description: Description",
                      status as "status: Status", result, attempts, created_at, updated_at, version "#
                + $after,
            $($argument),*
        )
    };
}

/// Stores a new task, pending and not yet enqueued.
pub struct Insert<'a>(pub &'a NewTask);

impl Statement for Insert<'_> {
    type Answer = Task;

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

    fn is_repeatable(&self) -> bool {
        true
    }

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

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
        query_tasks!("select", "from tasks where id = $1", self.0.get())
            .fetch_optional(connection)
            .await
    }
}

/// One page of tasks, by ascending id.
pub struct List(pub Page);

/// What [`List`] found.
pub struct Listed {
    /// The tasks of the page.
    pub tasks: Vec<Task>,
    /// Where the next page begins, if there is one.
    pub next: Option<Cursor>,
}

impl Statement for List {
    type Answer = Listed;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
        let Page { after, skip, limit } = self.0;
        // One more than the page holds, to know whether there is another.
        let mut tasks = query_tasks!(
            "select",
            "from tasks where id > $1 order by id offset $2 limit $3",
            after.map_or(0, |cursor| cursor.task().get()),
            skip,
            limit + 1,
        )
        .fetch_all(connection)
        .await?;
        let limit = usize::try_from(limit).expect("a page's limit is small and positive");
        let has_next = tasks.len() > limit;
        tasks.truncate(limit);
        let next = tasks.last().filter(|_| has_next).map(|last| Cursor::after(last.id));
        Ok(Listed { tasks, next })
    }
}

/// What became of a change that may depend on the task's version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// It was made.
    Done(T),
    /// The task has another version than those the change is for.
    Stale,
    /// There is no such task.
    NotFound,
}

impl<T> Change<T> {
    /// Tells why nothing was changed. Takes a round trip only if the change depended on a version.
    async fn not_made(
        id: TaskId,
        versions: Option<&[i64]>,
        connection: &mut PgConnection,
    ) -> Result<Self, sqlx::Error> {
        match versions {
            Some(_) if Find(id).run(connection).await?.is_some() => Ok(Self::Stale),
            _ => Ok(Self::NotFound),
        }
    }
}

/// Changes what the patch names and nothing else.
///
/// Naming another status than `processing` ends a worker's lease: its outcome no longer counts. Naming
/// `processing` keeps a lease, and without one makes the task claimable: nobody is working on it.
pub struct Update<'a> {
    /// Which task.
    pub id: TaskId,
    /// What changes.
    pub patch: &'a TaskPatch,
    /// The versions that the change is for; `None` for any.
    pub versions: Option<&'a [i64]>,
}

impl Statement for Update<'_> {
    type Answer = Change<Task>;

    fn is_repeatable(&self) -> bool {
        // A change for one version, repeated after it was made, would find another and be refused.
        self.versions.is_none()
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
        if self.patch.is_empty() {
            // Nothing named, nothing changed: the version stays, too.
            let is_meant = |task: &Task| self.versions.is_none_or(|versions| versions.contains(&task.version));
            return Ok(match Find(self.id).run(connection).await? {
                Some(task) if is_meant(&task) => Change::Done(task),
                Some(_) => Change::Stale,
                None => Change::NotFound,
            });
        }
        let updated = query_tasks!(
            "update tasks set
                title = coalesce($2, title),
                description = case when $3 then $4 else description end,
                status = coalesce($5::text::task_status, status),
                lease_expires_at = case
                    when $5::text is null then lease_expires_at
                    when $5::text = 'processing' then coalesce(lease_expires_at, now())
                end,
                settled_at = case
                    when $5::text is null then settled_at
                    when $5::text in ('completed', 'failed') then coalesce(settled_at, now())
                end,
                version = version + 1,
                updated_at = now()
             where id = $1 and ($6::bigint[] is null or version = any ($6))
             returning",
            "",
            self.id.get(),
            self.patch.title.as_ref().map(Title::as_str),
            self.patch.description.is_some(),
            self.patch.description.iter().flatten().next().map(Description::as_str),
            self.patch.status.map(Status::as_str),
            self.versions as Option<&[i64]>,
        )
        .fetch_optional(&mut *connection)
        .await?;
        match updated {
            Some(task) => Ok(Change::Done(task)),
            None => Change::not_made(self.id, self.versions, connection).await,
        }
    }
}

/// Deletes the task. A worker that holds it finds it gone and drops its result.
pub struct Delete<'a> {
    /// Which task.
    pub id: TaskId,
    /// The versions that may be deleted; `None` for any.
    pub versions: Option<&'a [i64]>,
}

impl Statement for Delete<'_> {
    type Answer = Change<()>;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
        let deleted = sqlx::query!(
            "delete from tasks where id = $1 and ($2::bigint[] is null or version = any ($2))",
            self.id.get(),
            self.versions as Option<&[i64]>,
        )
        .execute(&mut *connection)
        .await?;
        match deleted.rows_affected() {
            1 => Ok(Change::Done(())),
            _ => Change::not_made(self.id, self.versions, connection).await,
        }
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

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
        let found = sqlx::query!(
            r#"with reset as (
                   update tasks
                   set status = 'pending',
                       result = null,
                       attempts = 0,
                       enqueued_at = null,
                       lease_expires_at = null,
                       settled_at = null,
                       version = version + 1,
                       updated_at = now()
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
