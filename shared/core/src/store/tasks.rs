//! The statements of the API functions.
//!
//! Statements on behalf of a caller take its [`Access`]. A task that the caller cannot access is
//! treated like one that does not exist, whatever the other conditions of the statement.

use sqlx::PgConnection;

use super::{Statement, columns::query_tasks};
use crate::domain::{
    Access, Cursor, Description, Filter, NewTask, Page, Sort, Start, Status, StoredStatus, Task, TaskId, TaskPatch,
    Title,
};

/// Stores a new task, pending and not yet enqueued.
pub struct Insert<'a> {
    pub new: &'a NewTask,
    /// The owner.
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

/// Marks the task as enqueued: SQS has accepted its message.
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

/// Finds a task.
pub struct Find<'a> {
    pub id: TaskId,
    /// The tasks that the caller can access.
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

/// Lists one page of tasks. Takes a second round trip if the tasks are counted and do not all fit on
/// the page.
pub struct List<'a> {
    pub page: &'a Page,
    /// The tasks that the caller can access.
    pub access: Access<'a>,
}

/// A page of tasks.
#[derive(Debug)]
pub struct Listed {
    pub tasks: Vec<Task>,
    /// The cursor of the next page, if there is one.
    pub next: Option<Cursor>,
    /// The cursor of the previous page, if there is one.
    pub previous: Option<Cursor>,
    /// The number of accessible tasks that match the filter, if counting was requested.
    pub total: Option<Total>,
}

/// A number of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    pub count: i64,
    /// False if there are more, or may be.
    pub is_exact: bool,
}

impl Total {
    /// The maximum number of tasks that are read to count them.
    pub const MAX_COUNTED: i64 = 10_000;
}

/// A page of tasks along an index: one statement for each combination of filters, because a single
/// statement ("status is null or ...") would need one plan that suits every combination. Macros
/// generate them instead of `QueryBuilder`, so that sqlx checks each against the schema, and .sqlx
/// contains the text for the tests of their plans.
///
/// A filter consists of its value and the text with and without one; `*` is the next free argument.
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
            // One more than the page contains, to detect whether another page follows.
            $page.limit + 1
            $(, $argument)*
        )
        .fetch_all($connection)
        .await
    };
}

impl List<'_> {
    /// The tasks from an id on, in descending or ascending order.
    async fn walk(&self, down: bool, from: i64, connection: &mut PgConnection) -> Result<Vec<Task>, sqlx::Error> {
        let page = self.page;
        let Filter { status, title } = &page.filter;
        // Not `created_by = ..` for the caller's own tasks: the order would then be by id alone,
        // which the primary key also provides, and the planner walks the primary key past the tasks
        // of all users if it expects the caller's own among the first. It is wrong if they are the
        // last of a million.
        macro_rules! walk {
            ($from:literal, $order:literal, $order_of_own:literal) => {
                query_page!(
                    (page, from, connection) ["$4" "$5" "$6"] [$from] []
                    [title = title, " and bigrams(title) @> bigrams(" * ") and position(folded(" * ") in folded(title)) > 0",
                        title, else ""]
                    [status = status, " and status = " * "::text::task_status", status.as_str(), else ""]
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

    /// Counts among the newest [`MAX_COUNTED`](Total::MAX_COUNTED) tasks that have the status.
    async fn count(&self, connection: &mut PgConnection) -> Result<Total, sqlx::Error> {
        let Filter { status, title } = &self.page.filter;
        // Each walks along one index, whatever the statistics say, for the same reason as above.
        macro_rules! count {
            ($which:literal $(, $argument:expr)*) => {
                sqlx::query!(
                    r#"select count(*) as "examined!",
                              count(*) filter (
                                  where $2::text is null or position(folded($2) in folded(title)) > 0
                              ) as "matching!"
                       from (select title from tasks "# + $which + r#" limit $1) as newest"#,
                    Total::MAX_COUNTED + 1,
                    title.as_deref()
                    $(, $argument)*
                )
                .fetch_one(connection)
                .await
                .map(|row| Total {
                    count: row.matching.min(Total::MAX_COUNTED),
                    is_exact: row.examined <= Total::MAX_COUNTED,
                })
            };
        }
        match (self.access.owner(), status) {
            (None, None) => count!("order by id desc"),
            (None, Some(status)) => count!(
                "where status = any (array[$3::text::task_status]) order by status desc, id desc",
                status.as_str()
            ),
            (Some(owner), None) => count!(
                "where created_by = any (array[$3]) order by created_by desc, id desc",
                owner
            ),
            (Some(owner), Some(status)) => count!(
                "where created_by = any (array[$3]) and status = $4::text::task_status
                 order by created_by desc, id desc",
                owner,
                status.as_str()
            ),
        }
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
        // A page before a cursor is read backwards from there and then reversed.
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
        // A page reached through a cursor always has a neighbor on that side.
        let (is_previous, is_next) = match start {
            Start::First => (false, is_more),
            Start::After(_) => (true, is_more),
            Start::Before(_) => (is_more, true),
        };
        // The tasks known from the page alone.
        let known = self.page.skip + tasks.len() as i64;
        let is_all = *start == Start::First && !is_more && (known == 0 || !tasks.is_empty());
        let total = match self.page.count {
            false => None,
            true if is_all => Some(Total {
                count: known,
                is_exact: true,
            }),
            true => {
                let total = self.count(connection).await?;
                let count = match total.is_exact {
                    true => total.count,
                    // Matches of a rare text may all be older than those that were counted.
                    false => total.count.max(tasks.len() as i64 + i64::from(is_more)),
                };
                Some(Total { count, ..total })
            }
        };
        Ok(Listed {
            previous: tasks.first().filter(|_| is_previous).map(|first| Cursor(first.id)),
            next: tasks.last().filter(|_| is_next).map(|last| Cursor(last.id)),
            tasks,
            total,
        })
    }
}

/// The outcome of a change that may require a version of the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// The task was changed.
    Done(T),
    /// The task does not have a required version.
    Stale,
    /// The task does not exist, or the caller cannot access it.
    NotFound,
}

impl<T> Change<T> {
    /// The reason why nothing was changed. Takes a round trip only if the change required a
    /// version.
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

/// Changes only the members that are in the patch.
///
/// Setting a status other than `processing` revokes a worker's lease, so its outcome is discarded.
/// Setting `processing` preserves an existing lease; a task without a lease becomes claimable,
/// since no worker is working on it. A task that is opened in this way has all its attempts ahead,
/// so that the reconciler does not discard it untried.
pub struct Update<'a> {
    pub id: TaskId,
    pub patch: &'a TaskPatch,
    /// The required versions; `None` for any.
    pub versions: Option<&'a [i64]>,
    /// The tasks that the caller can access.
    pub access: Access<'a>,
}

impl Statement for Update<'_> {
    type Output = Change<Task>;

    fn is_repeatable(&self) -> bool {
        // A change that requires a version changes it, so a repetition would be rejected as stale.
        self.versions.is_none()
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let &Self { id, access, .. } = self;
        if self.patch.is_empty() {
            // An empty patch changes nothing, including the version.
            let is_required = |task: &Task| self.versions.is_none_or(|versions| versions.contains(&task.version));
            return Ok(match (Find { id, access }).run(connection).await? {
                Some(task) if is_required(&task) => Change::Done(task),
                Some(_) => Change::Stale,
                None => Change::NotFound,
            });
        }
        let updated = query_tasks!(
            "update tasks set
                title = coalesce($2, title),
                description = case when $3 then $4 else description end,
                status = coalesce($5::text::task_status, status),
                attempts = case
                    when $5::text = 'pending' then 0
                    when $5::text = 'processing' and lease_expires_at is null then 0
                    else attempts
                end,
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

/// Deletes the task. If a worker has a lease on it, its outcome is discarded.
pub struct Delete<'a> {
    pub id: TaskId,
    /// The required versions; `None` for any.
    pub versions: Option<&'a [i64]>,
    /// The tasks that the caller can access.
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

/// The outcome of a request to process a task again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetOutcome {
    /// The task is pending, without a result, and not yet enqueued.
    Done,
    /// A worker has a lease on the task.
    Processing,
    /// The task does not exist, or the caller cannot access it.
    NotFound,
}

/// Makes the task pending again, unless a worker has a lease on it.
pub struct Reset<'a> {
    pub id: TaskId,
    /// The tasks that the caller can access.
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
