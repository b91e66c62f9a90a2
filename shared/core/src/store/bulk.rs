//! Actions about all tasks that match a filter: count them, and carry out an action in steps.
//!
//! However large the table, a step examines at most [`EXAMINED`] tasks along one index, newest first,
//! and changes at most [`CHANGED`]. The row in `operator_actions` has the place where the next step
//! continues, and is changed in the same statement as the tasks: an action that was interrupted can be
//! continued by anyone, and no task is counted twice. Tasks that are created meanwhile are newer, so
//! they are not among those that remain.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Statement, actions::Action, tasks::Total};
use crate::domain::{BulkAction, BulkFilter, FilterTime, Status, TaskId};

/// The most tasks that a step examines (some 10 ms, 100 ms if it compares errors).
pub const EXAMINED: i64 = 10_000;

/// The most tasks that a step changes.
pub const CHANGED: i64 = 1000;

/// A filter as the arguments of the statements.
struct Arguments<'a> {
    statuses: Option<Vec<&'static str>>,
    created_by: Option<&'a str>,
    created_after: Option<OffsetDateTime>,
    created_before: Option<OffsetDateTime>,
    ended_after: Option<OffsetDateTime>,
    ended_before: Option<OffsetDateTime>,
    q: Option<&'a str>,
    error: Option<&'a str>,
    walk: Walk<'a>,
}

/// The index along which tasks are examined.
enum Walk<'a> {
    /// Those with this stored status.
    Status(&'static str),
    /// Those of this creator.
    Creator(&'a str),
    All,
}

impl<'a> Arguments<'a> {
    fn new(action: BulkAction, filter: &'a BulkFilter) -> Self {
        let time = |time: Option<FilterTime>| time.map(|FilterTime(time)| time);
        let created_by = filter.created_by.as_ref().map(|text| text.as_str());
        let statuses = match (filter.status, action) {
            (Some(status), _) => Some(vec![status.as_str()]),
            (None, BulkAction::Cancel) => Some(vec![Status::Pending.as_str(), Status::Processing.as_str()]),
            (None, BulkAction::Retry) => Some(vec![Status::Failed.as_str()]),
            (None, BulkAction::Delete) => None,
        };
        let walk = match (statuses.as_deref().and_then(<[_]>::first), created_by) {
            // Nearly all tasks are completed.
            (None | Some(&"completed"), Some(subject)) => Walk::Creator(subject),
            // A leased task is stored as pending.
            (Some(&"processing"), _) => Walk::Status(Status::Pending.as_str()),
            (Some(status), _) => Walk::Status(status),
            (None, None) => Walk::All,
        };
        Self {
            statuses,
            created_by,
            created_after: time(filter.created_after),
            created_before: time(filter.created_before),
            ended_after: time(filter.ended_after),
            ended_before: time(filter.ended_before),
            q: filter.q.as_ref().map(|text| text.as_str()),
            error: filter.error.as_ref().map(|text| text.as_str()),
            walk,
        }
    }
}

/// A statement about the tasks of a walk, whose condition on a task is its first eight arguments. The
/// condition of the walk is the last one. Passed to the macro: whether the task matches, the walk's
/// condition, and its order, descending and ascending.
macro_rules! query_walk {
    ($query:ident, $arguments:expr, $number:literal) => {
        match $arguments.walk {
            Walk::Status(status) => query_walk!(
                $query,
                $arguments,
                [" and status = any (array[" $number "::text::task_status])"],
                ["status desc, id desc"],
                ["status, id"],
                status
            ),
            Walk::Creator(subject) => query_walk!(
                $query,
                $arguments,
                [" and created_by = any (array[" $number "])"],
                ["created_by desc, id desc"],
                ["created_by, id"],
                subject
            ),
            Walk::All => query_walk!($query, $arguments, [""], ["id desc"], ["id"]),
        }
    };
    ($query:ident, $arguments:expr, $where:tt, $down:tt, $up:tt $(, $argument:expr)?) => {
        $query!(
            "coalesce(
                 ($1::text[] is null or shown_status(status, lease_expires_at) = any ($1))
                 and ($2::text is null or created_by = $2)
                 and ($3::timestamptz is null or created_at >= $3)
                 and ($4::timestamptz is null or created_at < $4)
                 and ($5::timestamptz is null or settled_at >= $5)
                 and ($6::timestamptz is null or settled_at < $6)
                 and ($7::text is null or position(folded($7) in folded(title)) > 0)
                 and ($8::text is null or error_group(result) = (select error_group($8))),
                 false
             )",
            $where,
            $down,
            $up
            $(, $argument)?
        )
    };
}

/// The tasks that a step examines.
struct Examined {
    /// Those that match, at most [`CHANGED`], in ascending order.
    ids: Vec<TaskId>,
    /// All that match.
    matching: i64,
    /// All.
    examined: i64,
    /// The last one.
    last: Option<i64>,
}

impl Arguments<'_> {
    /// Examines the tasks with an id below this one.
    async fn examine(&self, below: i64, limit: i64, connection: &mut PgConnection) -> Result<Examined, sqlx::Error> {
        macro_rules! examine {
            ($is_match:literal, [$($where:literal)+], [$down:literal], [$up:literal] $(, $argument:expr)?) => {
                sqlx::query_as!(
                    Examined,
                    r#"with examined as materialized (
                           select id, "# + $is_match + r#" as is_match
                           from (
                               select * from tasks where id < $9"# $(+ $where)+ + " order by " + $down + r#" limit $10
                           ) as tasks
                       ), matching as (
                           select id from examined where is_match order by id desc limit $11
                       )
                       select array(select id from matching order by id) as "ids!: Vec<TaskId>",
                              count(*) filter (where is_match) as "matching!",
                              count(*) as "examined!",
                              min(id) as last
                       from examined"#,
                    self.statuses.as_deref() as Option<&[&str]>,
                    self.created_by,
                    self.created_after,
                    self.created_before,
                    self.ended_after,
                    self.ended_before,
                    self.q,
                    self.error,
                    below,
                    limit,
                    CHANGED
                    $(, $argument)?
                )
                .fetch_one(connection)
                .await
            };
        }
        query_walk!(examine, self, "$12")
    }

    /// Estimates how many tasks match, from eight of each 256th of the ids: those up to the last of
    /// the eight stand for the whole part.
    async fn estimate(&self, connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
        macro_rules! estimate {
            ($is_match:literal, [$($where:literal)+], [$down:literal], [$up:literal] $(, $argument:expr)?) => {
                sqlx::query_scalar!(
                    r#"with ends as materialized (
                           select (select id from tasks where id > 0"# $(+ $where)+ + " order by " + $up + r#" limit 1) as low,
                                  (select id from tasks where id > 0"# $(+ $where)+ + " order by " + $down + r#" limit 1) as high
                       ), parts as (
                           select low + (high - low + 1) * n / 256 as low, low + (high - low + 1) * (n + 1) / 256 as high
                           from ends cross join generate_series(0, 255) as n
                       )
                       select coalesce(sum(
                           matching * case when examined = 8 then (high - low)::float8 / (last - low + 1) else 1 end
                       ), 0)::bigint as "estimate!"
                       from parts cross join lateral (
                           select count(*) filter (where is_match) as matching, count(*) as examined, max(id) as last
                           from (
                               select id, "# + $is_match + r#" as is_match
                               from (
                                   select * from tasks
                                   where id >= low and id < high"# $(+ $where)+ + " order by " + $up + r#"
                                   limit 8
                               ) as tasks
                           ) as examined
                       ) as counted"#,
                    self.statuses.as_deref() as Option<&[&str]>,
                    self.created_by,
                    self.created_after,
                    self.created_before,
                    self.ended_after,
                    self.ended_before,
                    self.q,
                    self.error
                    $(, $argument)?
                )
                .fetch_one(connection)
                .await
            };
        }
        query_walk!(estimate, self, "$9")
    }
}

/// Counts the tasks that an action would change: exactly if there are at most [`EXAMINED`] to examine,
/// otherwise by an estimate, which takes another round trip.
pub struct CountMatching<'a> {
    pub action: BulkAction,
    pub filter: &'a BulkFilter,
}

impl Statement for CountMatching<'_> {
    type Output = Total;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let arguments = Arguments::new(self.action, self.filter);
        let examined = arguments.examine(i64::MAX, EXAMINED + 1, connection).await?;
        let is_exact = examined.examined <= EXAMINED;
        let count = match is_exact {
            true => examined.matching,
            false => examined.matching.max(arguments.estimate(connection).await?),
        };
        Ok(Total { count, is_exact })
    }
}

/// Records an action about all tasks that match, of which none is changed yet. Returns its id.
pub struct StartAction<'a> {
    /// The subject of the admin.
    pub operator: &'a str,
    pub action: BulkAction,
    pub filter: &'a BulkFilter,
}

impl Statement for StartAction<'_> {
    type Output = i64;

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let filter = serde_json::to_string(self.filter).map_err(|error| sqlx::Error::Encode(error.into()))?;
        sqlx::query_scalar!(
            "insert into operator_actions (operator, action, filter, count, below)
             values ($1, $2, $3::text::jsonb, 0, $4)
             returning id",
            self.operator,
            self.action.as_str(),
            filter,
            i64::MAX,
        )
        .fetch_one(connection)
        .await
    }
}

/// Carries out the next step of an action, in three round trips: finds the place where it continues,
/// examines tasks, and changes those that match. A complete action remains as it is.
pub struct ContinueAction(pub i64);

impl Statement for ContinueAction {
    /// `None` if there is no such action about tasks that match a filter.
    type Output = Option<Action>;

    fn is_repeatable(&self) -> bool {
        // Another repetition is another step.
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        loop {
            let row = sqlx::query!(
                r#"select id, at, operator, action, task_id, filter::text, count, below, ended_at
                   from operator_actions
                   where id = $1 and below is not null"#,
                self.0,
            )
            .fetch_optional(&mut *connection)
            .await?;
            let Some(row) = row else { return Ok(None) };
            let filter = row.filter.unwrap_or_default();
            let decoded = |error: serde_json::Error| sqlx::Error::Decode(error.into());
            let mut action = Action {
                id: row.id,
                at: row.at,
                operator: row.operator,
                action: row.action,
                task_id: row.task_id,
                filter: Some(serde_json::from_str(&filter).map_err(decoded)?),
                count: row.count,
                is_complete: row.ended_at.is_some(),
            };
            let (Some(below), false) = (row.below, action.is_complete) else {
                return Ok(Some(action));
            };
            let kind: BulkAction = serde_json::from_value(action.action.as_str().into()).map_err(decoded)?;
            let filter: BulkFilter = serde_json::from_str(&filter).map_err(decoded)?;
            let arguments = Arguments::new(kind, &filter);
            let examined = arguments.examine(below, EXAMINED, connection).await?;
            let next = match examined.ids.first() {
                // As many as a step changes: the next one continues at the last of them.
                Some(lowest) if examined.matching >= CHANGED => Some(lowest.get()),
                _ if examined.examined == EXAMINED => examined.last,
                _ => None,
            };
            let ids: Vec<i64> = examined.ids.iter().map(|id| id.get()).collect();
            // The action is locked first: of two concurrent steps from the same place, the second finds
            // another place. The tasks are locked in ascending order, like everywhere. Lateral forces one
            // index lookup per task.
            macro_rules! change {
                ($eligible:literal, $change:literal) => {
                    sqlx::query_scalar!(
                        r#"with action as materialized (
                               select id from operator_actions where id = $1 and below = $2 and ended_at is null for update
                           ), eligible as materialized (
                               select task.id
                               from (
                                   select id from unnest($3::bigint[]) as wanted (id) where exists (select from action)
                               ) as wanted cross join lateral (
                                   select tasks.id
                                   from tasks
                                   where tasks.id = wanted.id and "# + $eligible + r#"
                                   for update
                               ) as task
                           ), changed as (
                               "# + $change + r#"
                               where id = any (array(select id from eligible))
                               returning id
                           )
                           update operator_actions
                           set count = count + (select count(*) from changed),
                               below = coalesce($5, below),
                               ended_at = case when $5::bigint is null then now() end
                           where id in (select id from action)
                           returning count as "count!""#,
                        self.0,
                        below,
                        &ids,
                        arguments.statuses.as_deref() as Option<&[&str]>,
                        next,
                    )
                    .fetch_optional(&mut *connection)
                    .await?
                };
            }
            let count = match kind {
                // As `Reset` does. The task-reconciler sends the messages.
                BulkAction::Retry => change!(
                    "shown_status(status, lease_expires_at) = any ($4)",
                    "update tasks
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
                         updated_at = now()"
                ),
                // As `Cancel` does.
                BulkAction::Cancel => change!(
                    "shown_status(status, lease_expires_at) = any ($4)",
                    "update tasks
                     set status = 'cancelled',
                         result = null,
                         lease_expires_at = null,
                         earlier_attempts = ended_attempts(tasks, null),
                         started_at = null,
                         settled_at = now(),
                         version = version + 1,
                         updated_at = now()"
                ),
                BulkAction::Delete => change!(
                    "($4::text[] is null or shown_status(status, lease_expires_at) = any ($4))",
                    "delete from tasks"
                ),
            };
            let Some(count) = count else { continue };
            action.count = Some(count);
            action.is_complete = next.is_none();
            return Ok(Some(action));
        }
    }
}
