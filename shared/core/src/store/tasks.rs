//! The statements of the API functions.
//!
//! Statements on behalf of a caller take its [`Access`]. A task that the caller cannot access is
//! treated like one that does not exist, whatever the other conditions of the statement.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{
    Statement,
    columns::{query_tasks, query_tasks_and_more, task_of},
};
use crate::domain::{
    Access, Cursor, Description, Filter, NewTask, Page, RunAt, Sort, Start, Status, StoredStatus, Task, TaskId,
    TaskPatch, Title,
};

/// Stores a new task, not yet enqueued: pending, or scheduled if it is to run later.
pub struct Insert<'a> {
    pub new: &'a NewTask,
    /// The owner.
    pub created_by: &'a str,
}

impl Statement for Insert<'_> {
    type Output = Task;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        query_tasks!(
            "insert into tasks (title, description, created_by, status, run_at)
             values (
                 $1, $2, $3,
                 case when $4::timestamptz > now() then 'scheduled'::task_status else 'pending' end,
                 case when $4 > now() then $4 end
             )
             returning",
            "",
            self.new.title.as_str(),
            self.new.description.as_ref().map(Description::as_str),
            self.created_by,
            self.new.run_at.map(RunAt::get),
        )
        .fetch_one(connection)
        .await
    }
}

/// Marks the task as enqueued: SQS has accepted its message. Not one that was scheduled for another time
/// since: that message comes too early or too late.
pub struct MarkEnqueued {
    pub id: TaskId,
    /// When the task is to run, according to its message.
    pub run_at: Option<OffsetDateTime>,
}

impl Statement for MarkEnqueued {
    type Output = ();

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        sqlx::query!(
            "update tasks set enqueued_at = now() where id = $1 and run_at is not distinct from $2",
            self.id.get(),
            self.run_at,
        )
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
/// the page, and up to two more for a text that few of the next titles contain.
///
/// A page costs no more in a larger table. Without a sparse filter it is a walk along an index. With
/// one (a text; a status of the caller's own tasks; `processing`: an index of leases would cost every
/// claim), the walk examines at most [`WALK`] tasks. That fills the page with a frequent text; a rare
/// one is looked up in the index of the titles. For a rare text of frequent parts that would read
/// most of the index: such a page ends early, and the next one continues where it ended.
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

/// How many tasks a page with a sparse filter examines at most (a millisecond per thousand).
pub const WALK: i64 = 5000;

/// How many titles may have all parts of a text that is looked up in the index, estimated (a
/// millisecond or two per thousand).
const MAX_CANDIDATES: i64 = 10_000;

/// The status as it is stored: a leased task is pending.
fn stored_status(status: Status) -> Status {
    match status {
        Status::Processing => Status::Pending,
        status => status,
    }
}

/// The result of a walk.
struct Walked {
    /// The matches in the order of the walk, one more than the page contains if another follows.
    tasks: Vec<Task>,
    /// The last examined task, if the walk ended because it had examined [`WALK`] tasks.
    reached: Option<Cursor>,
}

/// The walk along the index for a filter: one statement for each, because a single one ("status is
/// null or ...") would need one plan that suits every filter. A macro generates them instead of
/// `QueryBuilder`, so that sqlx checks each against the schema, and .sqlx contains the text for the
/// tests of their plans. The index of the caller's own tasks does not contain their status.
///
/// Passes the condition, the order, and the argument with that number to `$query`.
macro_rules! walk {
    ($query:ident, $number:literal, $owner:expr, $status:expr, $and_of_status:literal, $down:expr) => {
        // Not `created_by = ..` or `status = ..`: the order would then be by id alone, which the primary
        // key also provides, and the planner walks the primary key past all tasks if it expects enough
        // matches among the first. It is wrong if they are the last of a million, or if there are fewer.
        match ($owner, $status, $down) {
            (Some(owner), _, true) => $query!(
                ["< $1 and created_by = any (array[" $number "])"]
                " order by created_by desc, id desc", owner
            ),
            (Some(owner), _, false) => $query!(
                ["> $1 and created_by = any (array[" $number "])"]
                " order by created_by asc, id asc", owner
            ),
            (None, Some(status), true) => $query!(
                ["< $1 and status = any (array[" $number "::text::task_status])" $and_of_status]
                " order by tasks.status desc, id desc", status.as_str()
            ),
            (None, Some(status), false) => $query!(
                ["> $1 and status = any (array[" $number "::text::task_status])" $and_of_status]
                " order by tasks.status asc, id asc", status.as_str()
            ),
            (None, None, true) => $query!(["< $1"] " order by id desc"),
            (None, None, false) => $query!(["> $1"] " order by id asc"),
        }
    };
}

impl List<'_> {
    /// The tasks from an id on, in descending or ascending order.
    async fn walk(&self, down: bool, from: i64, connection: &mut PgConnection) -> Result<Walked, sqlx::Error> {
        let page = self.page;
        let Filter { status, title } = &page.filter;
        // One more than the page contains, to detect whether another page follows.
        let limit = page.limit + 1;
        let (owner, stored) = (self.access.owner(), status.map(stored_status));
        let is_sparse = title.is_some() || *status == Some(Status::Processing) || status.is_some() && owner.is_some();
        if !is_sparse {
            macro_rules! query_page {
                ([$($where:literal)+] $order:literal $(, $argument:expr)*) => {
                    query_tasks!(
                        "select",
                        "from tasks where id " $($where)+ $order " offset $2 limit $3",
                        from,
                        page.skip,
                        limit
                        $(, $argument)*
                    )
                    .fetch_all(connection)
                    .await
                };
            }
            return Ok(Walked {
                tasks: walk!(query_page, "$4", owner, stored, " and lease_expires_at is null", down)?,
                reached: None,
            });
        }

        // The task that the walk ends with is always returned, whether it matches or not.
        macro_rules! query_page {
            ([$($where:literal)+] $order:literal $(, $argument:expr)*) => {
                query_tasks_and_more!(
                    "select",
                    r#", is_match as "is_match!", is_last as "is_last!"
                       from (
                           select *,
                                  ($4::text is null or position(folded($4) in folded(title)) > 0)
                                  and ($5::text is null or shown_status(status, lease_expires_at) = $5) as is_match,
                                  row_number() over () = $3 as is_last
                           from (select * from tasks where id "# $($where)+ $order " limit $3) as tasks
                       ) as tasks
                       where is_match or is_last" $order " limit $2",
                    from,
                    page.skip + limit,
                    WALK,
                    title.as_deref(),
                    status.map(Status::as_str)
                    $(, $argument)*
                )
                .fetch_all(connection)
                .await
                .map(|rows| {
                    let reached = rows.last().filter(|row| row.is_last).map(|row| Cursor(row.id));
                    let skip = usize::try_from(page.skip).unwrap_or(usize::MAX);
                    let matches = rows.into_iter().filter(|row| row.is_match).skip(skip);
                    (matches.map(|row| task_of!(row)).collect(), reached)
                })
            };
        }
        let (tasks, reached) = walk!(query_page, "$6", owner, stored, "", down)?;
        Ok(Walked { tasks, reached })
    }

    /// True if the index of the titles finds few of them for a text. Estimated from titles that are
    /// evenly distributed over all ids, because the statistics of the table may be old.
    async fn is_selective(&self, title: &str, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar!(
            r#"with sample as materialized (
                   select folded(near.title) as title
                   from (select coalesce(max(task_id), 0) as last from task_titles) as titles
                        cross join generate_series(0, 127) as n
                        cross join lateral (
                            select title from task_titles where task_id > last * n / 128 order by task_id limit 16
                        ) as near
               )
               -- The rarest part bounds what the index reads.
               select min(titles) * (select coalesce(max(task_id), 0) from task_titles)
                          <= $2 * (select count(*) from sample) as "is_selective!"
               from unnest(search_parts($1)) as part
                    cross join lateral (
                        select count(*) as titles from sample where position(part in sample.title) > 0
                    ) as counted"#,
            title,
            MAX_CANDIDATES,
        )
        .fetch_one(connection)
        .await
    }

    /// The tasks whose title contains a text, from an id on, by the index of the titles.
    async fn search(
        &self,
        title: &str,
        down: bool,
        from: i64,
        connection: &mut PgConnection,
    ) -> Result<Vec<Task>, sqlx::Error> {
        let page = self.page;
        let status = page.filter.status;
        // Materialized and unordered, so that the planner cannot walk the list instead. The tasks are
        // then looked up one by one, in order, until the page is full.
        macro_rules! query_page {
            ($from:literal, $order:literal) => {
                query_tasks!(
                    "with found as materialized (
                         select task_id
                         from task_titles
                         where title_parts(title) collate \"C\" @> search_parts($4)
                           and position(folded($4) in folded(title)) > 0
                     )
                     select",
                    "from found cross join lateral (select * from tasks where id = task_id offset 0) as tasks
                     where task_id " $from " and ($5::text is null or shown_status(status, lease_expires_at) = $5)
                       and ($6::text is null or created_by = $6)
                     order by task_id " $order " offset $2 limit $3",
                    from,
                    page.skip,
                    page.limit + 1,
                    title,
                    status.map(Status::as_str),
                    self.access.owner(),
                )
                .fetch_all(connection)
                .await
            };
        }
        if down {
            query_page!("< $1", "desc")
        } else {
            query_page!("> $1", "asc")
        }
    }

    /// Counts among the newest [`MAX_COUNTED`](Total::MAX_COUNTED) tasks: those with the status, or the
    /// caller's own.
    async fn count(&self, connection: &mut PgConnection) -> Result<Total, sqlx::Error> {
        let Filter { status, title } = &self.page.filter;
        // Each walks along one index, whatever the statistics say, for the same reason as above.
        macro_rules! count {
            ($which:literal $(, $argument:expr)*) => {
                sqlx::query!(
                    r#"select count(*) as "examined!",
                              count(*) filter (
                                  where ($2::text is null or position(folded($2) in folded(title)) > 0)
                                    and ($3::text is null or shown_status(status, lease_expires_at) = $3)
                              ) as "matching!"
                       from (select title, status, lease_expires_at from tasks "# + $which + r#" limit $1) as newest"#,
                    Total::MAX_COUNTED + 1,
                    title.as_deref(),
                    status.map(Status::as_str)
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
        match (self.access.owner(), status.map(stored_status)) {
            (None, None) => count!("order by id desc"),
            (None, Some(status)) => count!(
                "where status = any (array[$4::text::task_status]) order by status desc, id desc",
                status.as_str()
            ),
            (Some(owner), _) => count!(
                "where created_by = any (array[$4]) order by created_by desc, id desc",
                owner
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
        let Walked { mut tasks, mut reached } = self.walk(down, from, connection).await?;
        let limit = usize::try_from(*limit).expect("a page's limit is small and positive");
        if let (Some(title), Some(_)) = (&self.page.filter.title, reached)
            && tasks.len() <= limit
            && self.is_selective(title, connection).await?
        {
            tasks = self.search(title, down, from, connection).await?;
            reached = None;
        }
        // A walk that ended early has another page, which continues there.
        let is_full = tasks.len() > limit;
        let is_more = is_full || reached.is_some();
        let reached = reached.filter(|_| !is_full);
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
                    false => total.count.max(tasks.len() as i64 + i64::from(is_full)),
                };
                Some(Total { count, ..total })
            }
        };
        Ok(Listed {
            previous: match reached {
                Some(reached) if backwards => Some(reached),
                _ => tasks.first().filter(|_| is_previous).map(|first| Cursor(first.id)),
            },
            next: match reached {
                Some(reached) if !backwards => Some(reached),
                _ => tasks.last().filter(|_| is_next).map(|last| Cursor(last.id)),
            },
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
    /// A worker has a lease on the task, which the change would take away.
    Leased,
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
/// so that the reconciler does not discard it untried. A status ends the schedule of a task.
///
/// `run_at` starts the task anew, like [`Reset`], but at that time; the reconciler sends its message.
/// Without a time it ends the schedule of a scheduled task, and changes nothing else of another one.
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
        let is_required = |task: &Task| self.versions.is_none_or(|versions| versions.contains(&task.version));
        if self.patch.is_empty() {
            // An empty patch changes nothing, including the version.
            return Ok(match (Find { id, access }).run(connection).await? {
                Some(task) if is_required(&task) => Change::Done(task),
                Some(_) => Change::Stale,
                None => Change::NotFound,
            });
        }
        let updated = query_tasks!(
            "with updated as (
             update tasks set
                title = coalesce($2, title),
                description = case when $3 then $4 else description end,
                status = case
                    when $10::timestamptz > now() then 'scheduled'
                    when $10 is not null or $9 and status = 'scheduled' then 'pending'
                    when $5::text is null then status
                    when $5::text = 'processing' then 'pending'
                    else $5::text::task_status
                end,
                result = case when $10 is null then result end,
                attempts = case
                    when $5::text = 'pending' or $10 is not null then 0
                    when $5::text = 'processing' and lease_expires_at is null then 0
                    else attempts
                end,
                run_at = case
                    when $10 > now() then $10
                    when $5::text is null and not $9 then run_at
                end,
                -- A message that is still delayed comes at the wrong time.
                enqueued_at = case
                    when $10 is null and (status <> 'scheduled' or $5::text is null and not $9) then enqueued_at
                end,
                lease_expires_at = case
                    when $10 is not null then null
                    when $5::text is null then lease_expires_at
                    when $5::text = 'processing' then coalesce(lease_expires_at, now())
                end,
                requested_at = case
                    when $5::text = 'pending' or $10 is not null or $9 and status = 'scheduled' then now()
                    else requested_at
                end,
                earlier_attempts = case
                    when $10 is not null then ended_attempts(tasks, null)
                    when $5::text is null or $5::text = 'processing' and lease_expires_at is not null then earlier_attempts
                    else ended_attempts(tasks, null)
                end,
                started_at = case
                    when $10 is not null then null
                    when $5::text is null or $5::text = 'processing' and lease_expires_at is not null then started_at
                end,
                settled_at = case
                    when $10 is not null then null
                    when $5::text is null then settled_at
                    when $5::text in ('completed', 'failed') then coalesce(settled_at, now())
                end,
                version = version + 1,
                updated_at = now()
             where id = $1
               and ($6::bigint[] is null or version = any ($6))
               and ($7::text is null or created_by = $7)
               and (not $9::boolean or lease_expires_at is null or lease_expires_at <= now())
             returning *
             ), recorded as (
                 insert into operator_actions (operator, action, task_id, count)
                 select $8, 'update', id, 1 from updated where $8::text is not null
             )
             select",
            "from updated",
            id.get(),
            self.patch.title.as_ref().map(Title::as_str),
            self.patch.description.is_some(),
            self.patch.description.iter().flatten().next().map(Description::as_str),
            self.patch.status.map(Status::as_str),
            self.versions as Option<&[i64]>,
            access.owner(),
            access.admin(),
            self.patch.run_at.is_some(),
            self.patch.run_at.flatten().map(RunAt::get),
        )
        .fetch_optional(&mut *connection)
        .await?;
        match updated {
            Some(task) => Ok(Change::Done(task)),
            None if self.patch.run_at.is_some() => Ok(match (Find { id, access }).run(connection).await? {
                Some(task) if is_required(&task) => Change::Leased,
                Some(_) => Change::Stale,
                None => Change::NotFound,
            }),
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
        let is_deleted = sqlx::query_scalar!(
            r#"with deleted as (
                   delete from tasks
                   where id = $1
                     and ($2::bigint[] is null or version = any ($2))
                     and ($3::text is null or created_by = $3)
                   returning id
               ), recorded as (
                   insert into operator_actions (operator, action, task_id, count)
                   select $4, 'delete', id, 1 from deleted where $4::text is not null
               )
               select exists (select from deleted) as "is_deleted!""#,
            id.get(),
            self.versions as Option<&[i64]>,
            access.owner(),
            access.admin(),
        )
        .fetch_one(&mut *connection)
        .await?;
        match is_deleted {
            true => Ok(Change::Done(())),
            false => Change::not_made(Find { id, access }, self.versions, connection).await,
        }
    }
}

/// The outcome of a request to cancel a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The task is cancelled, now or since an earlier request.
    Cancelled(Task),
    /// The task has ended with this status.
    Settled(StoredStatus),
    /// The task does not have a required version.
    Stale,
    /// The task does not exist, or the caller cannot access it.
    NotFound,
}

/// Cancels a task that has not ended. If a worker has a lease on it, its outcome is discarded.
///
/// Takes another round trip only if the task changes at the same time.
pub struct Cancel<'a> {
    pub id: TaskId,
    /// The required versions; `None` for any.
    pub versions: Option<&'a [i64]>,
    /// The tasks that the caller can access.
    pub access: Access<'a>,
}

impl Statement for Cancel<'_> {
    type Output = CancelOutcome;

    fn is_repeatable(&self) -> bool {
        self.versions.is_none()
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        loop {
            let found = query_tasks_and_more!(
                "with cancelled as (
                   update tasks
                   set status = 'cancelled',
                       result = null,
                       lease_expires_at = null,
                       earlier_attempts = ended_attempts(tasks, null),
                       started_at = null,
                       settled_at = now(),
                       version = version + 1,
                       updated_at = now()
                   where id = $1
                     and status in ('pending', 'processing', 'scheduled')
                     and ($2::bigint[] is null or version = any ($2))
                     and ($3::text is null or created_by = $3)
                   returning *
               ), recorded as (
                   insert into operator_actions (operator, action, task_id, count)
                   select $4, 'cancel', id, 1 from cancelled where $4::text is not null
               )
               select",
                r#", is_cancelled as "is_cancelled!"
               from (
                   select cancelled.*, true as is_cancelled from cancelled
                   union all
                   select tasks.*, false
                   from tasks
                   where id = $1 and ($3::text is null or created_by = $3) and not exists (select from cancelled)
               ) as found"#,
                self.id.get(),
                self.versions as Option<&[i64]>,
                self.access.owner(),
                self.access.admin(),
            )
            .fetch_optional(&mut *connection)
            .await?;
            let Some(row) = found else {
                return Ok(CancelOutcome::NotFound);
            };
            let (is_cancelled, task) = (row.is_cancelled, task_of!(row));
            let is_required = self.versions.is_none_or(|versions| versions.contains(&task.version));
            return Ok(match task.status {
                _ if is_cancelled => CancelOutcome::Cancelled(task),
                _ if !is_required => CancelOutcome::Stale,
                StoredStatus::Known(Status::Cancelled) => CancelOutcome::Cancelled(task),
                // As of the start of the statement: it has changed since.
                StoredStatus::Known(Status::Pending | Status::Processing | Status::Scheduled) => continue,
                status => CancelOutcome::Settled(status),
            });
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
                       earlier_attempts = ended_attempts(tasks, null),
                       run_at = null,
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
               ), recorded as (
                   insert into operator_actions (operator, action, task_id, count)
                   select $3, 'process', id, 1 from reset where $3::text is not null
               )
               select exists (select from reset) as "done!"
               from tasks
               where id = $1 and ($2::text is null or created_by = $2)"#,
            self.id.get(),
            self.access.owner(),
            self.access.admin(),
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
