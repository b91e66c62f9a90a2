//! The statements of the API functions.
//!
//! Those that clients ask for take their [`Access`]. A task out of their reach is found as little as one that does not
//! exist, whatever else the statement asks about it.

use sqlx::PgConnection;

use super::{Statement, columns::query_tasks};
use crate::domain::{
    Access, Cursor, Description, Filter, NewTask, Page, Sort, Start, Status, Task, TaskId, TaskPatch, Title,
};

/// Stores a new task, pending and not yet enqueued.
pub struct Insert<'a> {
    /// What it is.
    pub new: &'a NewTask,
    /// Who creates it.
    pub created_by: &'a str,
}

impl Statement for Insert<'_> {
    type Output = Task;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        query_tasks!(
            "insert into tasks (title, description, created_by) values ($1, $2, $3) returning",
            "",
            self.new.title.as_str(),
            self.new.description.as_ref().map(Description::as_str),
            self.created_by,
        )
        .fetch_one(connection)
        .await
    }
}

/// Notes that SQS has accepted a message about the task.
pub struct MarkEnqueued(pub TaskId);

impl Statement for MarkEnqueued {
    type Output = ();

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        sqlx::query!("update tasks set enqueued_at = now() where id = $1", self.0.get())
            .execute(connection)
            .await
            .map(|_| ())
    }
}

/// The task, if there is one.
pub struct Find<'a> {
    /// Which task.
    pub id: TaskId,
    /// Who asks.
    pub access: Access<'a>,
}

impl Statement for Find<'_> {
    type Output = Option<Task>;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        query_tasks!(
            "select",
            "from tasks where id = $1 and ($2::text is null or created_by = $2)",
            self.id.get(),
            self.access.owner(),
        )
        .fetch_optional(connection)
        .await
    }
}

/// One page of tasks. Two round trips if the tasks are to be counted, too.
pub struct List<'a> {
    /// Which page.
    pub page: &'a Page,
    /// Who asks.
    pub access: Access<'a>,
}

/// What [`List`] found.
#[derive(Debug)]
pub struct Listed {
    /// The tasks of the page.
    pub tasks: Vec<Task>,
    /// Where the next page begins, if there is one.
    pub next: Option<Cursor>,
    /// Where the previous page ends, if there is one.
    pub previous: Option<Cursor>,
    /// How many tasks in reach the filter lets through, if that was asked for.
    pub total: Option<i64>,
}

/// A page of tasks along an index: one statement for each combination of filters, because one for all ("status is null
/// or ...") would have to fit every combination with one plan. Macros write them, not `QueryBuilder`: sqlx checks each
/// against the schema, and .sqlx has the text for the tests of their plans.
///
/// A filter is its value and the text with and without one; `*` stands for the next free argument.
macro_rules! query_page {
    (
        $page:tt [$number:literal $($numbers:literal)*] [$($text:literal)+] [$($argument:expr),*]
        [$value:ident = $filter:expr, $with:literal $(* $more:literal)+, $as:expr, else $without:literal]
        $($filters:tt)*
    ) => {
        match $filter {
            Some($value) => query_page!(
                $page [$($numbers)*] [$($text)+ $with $($number $more)+] [$($argument,)* $as] $($filters)*
            ),
            None => query_page!(
                $page [$number $($numbers)*] [$($text)+ $without] [$($argument),*] $($filters)*
            ),
        }
    };
    (($page:expr, $from:expr, $connection:expr) [$($free:literal)*] [$($text:literal)+] [$($argument:expr),*]) => {
        query_tasks!(
            "select",
            "from tasks where id " $($text)+ " offset $2 limit $3",
            $from,
            $page.skip,
            // One more than the page holds, to know whether there is another.
            $page.limit + 1
            $(, $argument)*
        )
        .fetch_all($connection)
        .await
    };
}

impl List<'_> {
    /// The tasks from an id on, downwards or upwards.
    async fn walk(&self, down: bool, from: i64, connection: &mut PgConnection) -> Result<Vec<Task>, sqlx::Error> {
        let page = self.page;
        let Filter { status, title } = &page.filter;
        // One's own tasks are not found by `created_by = ..`: that would make the order by id alone, which the primary key
        // has, too, and the planner walks it past everybody's tasks if it thinks that one's own are among the first. If
        // they are the last of a million, it is wrong.
        macro_rules! walk {
            ($from:literal, $order:literal, $order_of_own:literal) => {
                query_page!(
                    (page, from, connection) ["$4" "$5" "$6"] [$from] []
                    [title = title, " and bigrams(title) @> bigrams(" * ") and position(lower(" * ") in lower(title)) > 0",
                        title, else ""]
                    [status = status, " and status = " * "", *status as Status, else ""]
                    [owner = self.access.owner(), " and created_by = any (array[" * $order_of_own, owner, else $order]
                )
            };
        }
        if down {
            walk!("< $1", " order by id desc", "]) order by created_by desc, id desc")
        } else {
            walk!("> $1", " order by id asc", "]) order by created_by asc, id asc")
        }
    }

    async fn total(&self, connection: &mut PgConnection) -> Result<Option<i64>, sqlx::Error> {
        let Page { filter, count, .. } = self.page;
        if !count {
            return Ok(None);
        }
        // Two queries for the reason that there are many above.
        let total = match self.access {
            Access::All => {
                let total = sqlx::query_scalar!(
                    r#"select count(*) as "count!"
                       from tasks
                       where ($1::task_status is null or status = $1)
                         and ($2::text is null
                              or bigrams(title) @> bigrams($2) and position(lower($2) in lower(title)) > 0)"#,
                    filter.status as Option<Status>,
                    filter.title,
                );
                total.fetch_one(connection).await
            }
            Access::Own(owner) => {
                let total = sqlx::query_scalar!(
                    r#"select count(*) as "count!"
                       from tasks
                       where created_by = $3
                         and ($1::task_status is null or status = $1)
                         and ($2::text is null
                              or bigrams(title) @> bigrams($2) and position(lower($2) in lower(title)) > 0)"#,
                    filter.status as Option<Status>,
                    filter.title,
                    owner,
                );
                total.fetch_one(connection).await
            }
        };
        total.map(Some)
    }
}

impl Statement for List<'_> {
    type Output = Listed;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let Page { start, sort, limit, .. } = self.page;
        let newest_first = *sort == Sort::NewestFirst;
        // A page before a place is walked backwards from there, and then turned round.
        let backwards = matches!(start, Start::Before(_));
        let down = newest_first != backwards;
        let from = match start {
            Start::First if down => i64::MAX,
            Start::First => 0,
            Start::After(Cursor(id)) | Start::Before(Cursor(id)) => id.get(),
        };
        let mut tasks = self.walk(down, from, connection).await?;
        let limit = usize::try_from(*limit).expect("a page's limit is small and positive");
        let is_more = tasks.len() > limit;
        tasks.truncate(limit);
        if backwards {
            tasks.reverse();
        }
        // A page reached through a cursor always has a neighbour on that side.
        let (is_previous, is_next) = match start {
            Start::First => (false, is_more),
            Start::After(_) => (true, is_more),
            Start::Before(_) => (is_more, true),
        };
        Ok(Listed {
            previous: tasks.first().filter(|_| is_previous).map(|first| Cursor(first.id)),
            next: tasks.last().filter(|_| is_next).map(|last| Cursor(last.id)),
            tasks,
            total: self.total(connection).await?,
        })
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
        find: Find<'_>,
        versions: Option<&[i64]>,
        connection: &mut PgConnection,
    ) -> Result<Self, sqlx::Error> {
        match versions {
            Some(_) if find.run(connection).await?.is_some() => Ok(Self::Stale),
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
    /// Who asks.
    pub access: Access<'a>,
}

impl Statement for Update<'_> {
    type Output = Change<Task>;

    fn is_repeatable(&self) -> bool {
        // A change for one version, repeated after it was made, would find another and be refused.
        self.versions.is_none()
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let &Self { id, access, .. } = self;
        if self.patch.is_empty() {
            // Nothing named, nothing changed: the version stays, too.
            let is_meant = |task: &Task| self.versions.is_none_or(|versions| versions.contains(&task.version));
            return Ok(match (Find { id, access }).run(connection).await? {
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
                requested_at = case when $5::text = 'pending' then now() else requested_at end,
                settled_at = case
                    when $5::text is null then settled_at
                    when $5::text in ('completed', 'failed') then coalesce(settled_at, now())
                end,
                version = version + 1,
                updated_at = now()
             where id = $1
               and ($6::bigint[] is null or version = any ($6))
               and ($7::text is null or created_by = $7)
             returning",
            "",
            id.get(),
            self.patch.title.as_ref().map(Title::as_str),
            self.patch.description.is_some(),
            self.patch.description.iter().flatten().next().map(Description::as_str),
            self.patch.status.map(Status::as_str),
            self.versions as Option<&[i64]>,
            access.owner(),
        )
        .fetch_optional(&mut *connection)
        .await?;
        match updated {
            Some(task) => Ok(Change::Done(task)),
            None => Change::not_made(Find { id, access }, self.versions, connection).await,
        }
    }
}

/// Deletes the task. A worker that holds it finds it gone and drops its result.
pub struct Delete<'a> {
    /// Which task.
    pub id: TaskId,
    /// The versions that may be deleted; `None` for any.
    pub versions: Option<&'a [i64]>,
    /// Who asks.
    pub access: Access<'a>,
}

impl Statement for Delete<'_> {
    type Output = Change<()>;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let &Self { id, access, .. } = self;
        let deleted = sqlx::query!(
            "delete from tasks
             where id = $1
               and ($2::bigint[] is null or version = any ($2))
               and ($3::text is null or created_by = $3)",
            id.get(),
            self.versions as Option<&[i64]>,
            access.owner(),
        )
        .execute(&mut *connection)
        .await?;
        match deleted.rows_affected() {
            1 => Ok(Change::Done(())),
            _ => Change::not_made(Find { id, access }, self.versions, connection).await,
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
pub struct Reset<'a> {
    /// Which task.
    pub id: TaskId,
    /// Who asks.
    pub access: Access<'a>,
}

impl Statement for Reset<'_> {
    type Output = ResetOutcome;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let found = sqlx::query!(
            r#"with reset as (
                   update tasks
                   set status = 'pending',
                       result = null,
                       attempts = 0,
                       enqueued_at = null,
                       lease_expires_at = null,
                       settled_at = null,
                       requested_at = now(),
                       started_at = null,
                       version = version + 1,
                       updated_at = now()
                   where id = $1
                     and (lease_expires_at is null or lease_expires_at <= now())
                     and ($2::text is null or created_by = $2)
                   returning id
               )
               select exists (select from reset) as "done!"
               from tasks
               where id = $1 and ($2::text is null or created_by = $2)"#,
            self.id.get(),
            self.access.owner(),
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
