//! The audit: every status change, logged by a trigger in Postgres, which no killed process can
//! lose.

use std::{
    collections::BTreeSet,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sqlx::{Connection, Encode, PgConnection, Postgres, Type};
use time::OffsetDateTime;

use crate::{clients::Responses, faults::Stack, plan};

pub struct Audit {
    stack: Arc<Stack>,
    /// A `like` pattern for the titles of this run's tasks.
    titles: String,
    /// The text of the filter of all actions in bulk.
    bulk: String,
}

/// The final counts of a run.
pub struct AuditReport {
    created: usize,
    completed: i64,
    failed: i64,
    cancelled: i64,
    /// Tasks whose cancellation had a 200, and that are not cancelled, or changed afterwards.
    cancelled_in_vain: usize,
    /// Tasks whose cancellation had a 200, and is not recorded exactly once as an operator's action.
    unrecorded: i64,
    cancelled_in_bulk: i64,
    /// How many tasks the recorded actions in bulk have cancelled, each by its own count.
    recorded_in_bulk: i64,
    lost: usize,
    completed_twice: i64,
    created_twice: usize,
    /// Tasks that were to run later, of those that have ended.
    scheduled: i64,
    /// Claims of tasks before their time.
    early: i64,
    attempts: i64,
    /// Tasks that do not show the attempts that were made.
    other_attempts: i64,
    /// The results of failed tasks, with counts.
    reasons: Vec<(String, i64)>,
}

impl Audit {
    /// Installs a trigger that appends every status change of a task to a log.
    ///
    /// The log must have at most one completion of each task. The trigger delays each claim by 10
    /// ms: time in which a worker can be killed in the middle of a batch.
    pub async fn install(stack: &Arc<Stack>, seed: u64) -> Result<Self> {
        let install = "
            create table if not exists chaos_log (
                at timestamptz not null default clock_timestamp(),
                task_id bigint not null,
                status task_status not null,
                fencing_token bigint not null,
                -- One claim for each token, and one outcome for each claim.
                unique (task_id, status, fencing_token)
            );
            -- As its owner: the functions' roles have no privileges on this table.
            create or replace function chaos_log() returns trigger language plpgsql security definer as $$
            begin
                insert into chaos_log (task_id, status, fencing_token)
                values (new.id, shown_status(new.status, new.lease_expires_at)::task_status, new.fencing_token);
                if new.lease_expires_at is not null then
                    perform pg_sleep(0.01);
                end if;
                return null;
            end $$;
            create or replace trigger chaos_log
                after update on tasks for each row
                when (new.title like 'chaos %'
                      and (old.status <> new.status or old.fencing_token <> new.fencing_token)
                      and shown_status(new.status, new.lease_expires_at) <> 'pending')
                execute function chaos_log()";
        sqlx::raw_sql(install).execute(&mut stack.connect().await?).await?;
        Ok(Self {
            stack: Arc::clone(stack),
            titles: format!("{}%", plan::titles(seed)),
            bulk: plan::titles_in_bulk(seed),
        })
    }

    /// How many tasks of this run satisfy the SQL condition.
    pub async fn count(&self, condition: &str) -> Result<i64> {
        let count = format!("select count(*) from tasks where title like $1 and {condition}");
        number(&count, &self.titles, &mut self.stack.connect().await?).await
    }

    /// The time on Postgres's clock.
    pub async fn now(&self) -> Result<OffsetDateTime> {
        let now = sqlx::query_scalar("select clock_timestamp()");
        Ok(now.fetch_one(&mut self.stack.connect().await?).await?)
    }

    /// How many claims were made since then.
    pub async fn claims_since(&self, at: OffsetDateTime) -> Result<i64> {
        let claims = "select count(*) from chaos_log where status = 'processing' and at > $1";
        number(claims, at, &mut self.stack.connect().await?).await
    }

    /// How many claims made within a second of `at` have no outcome: their workers were killed.
    pub async fn claims_without_outcome(&self, at: OffsetDateTime) -> Result<i64> {
        let claims = "select count(*) from chaos_log as claim
                      where claim.status = 'processing'
                        and claim.at between $1 - interval '1 s' and $1 + interval '1 s'
                        and not exists (
                            select from chaos_log as outcome
                            where outcome.task_id = claim.task_id
                              and outcome.fencing_token = claim.fencing_token
                              and outcome.status <> 'processing'
                        )";
        number(claims, at, &mut self.stack.connect().await?).await
    }

    /// Waits until every task is settled and the queue is empty.
    pub async fn wait_until_settled(&self, at_most: Duration) -> Result<()> {
        let begun = Instant::now();
        let mut told = Instant::now();
        loop {
            let open = self.count("status in ('scheduled', 'pending', 'processing')").await?;
            let messages = self.stack.messages_in_queue().await?;
            if open == 0 && messages == 0 {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < at_most,
                "not settled in time: {open} tasks open, {messages} messages in the queue"
            );
            if told.elapsed() > Duration::from_secs(15) {
                println!("  {open} tasks open, {messages} messages in the queue");
                told = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// How many tasks have more than one completion in the log.
    async fn completed_twice(&self, connection: &mut PgConnection) -> Result<i64> {
        let twice = "select count(*) from (
                         select from chaos_log join tasks on id = task_id
                         where chaos_log.status = 'completed' and title like $1
                         group by task_id having count(*) > 1
                     ) as twice";
        number(twice, &self.titles, connection).await
    }

    /// How many claims in the log were made before the time of their task.
    async fn early(&self, connection: &mut PgConnection) -> Result<i64> {
        let early = "select count(*) from chaos_log join tasks on id = task_id
                     where chaos_log.status = 'processing' and chaos_log.at < run_at and title like $1";
        number(early, &self.titles, connection).await
    }

    /// Verifies that a task that was completed twice, or claimed early, would be detected: logs such an
    /// event, counts, rolls back.
    async fn check_itself(&self, connection: &mut PgConnection) -> Result<()> {
        let before = self.completed_twice(connection).await?;
        let mut transaction = connection.begin().await?;
        let again = "insert into chaos_log (task_id, status, fencing_token)
                     select task_id, chaos_log.status, max(chaos_log.fencing_token) + 1
                     from chaos_log join tasks on id = task_id
                     where chaos_log.status = 'completed' and title like $1
                     group by task_id, chaos_log.status having count(*) = 1
                     limit 1";
        sqlx::query(again).bind(&self.titles).execute(&mut *transaction).await?;
        let seen = self.completed_twice(&mut transaction).await?;
        ensure!(
            seen == before + 1,
            "the audit does not detect a task that was completed twice"
        );
        let before = self.early(&mut transaction).await?;
        let earlier = "insert into chaos_log (at, task_id, status, fencing_token)
                       select run_at - interval '1 s', id, 'processing', fencing_token + 100
                       from tasks where run_at is not null and title like $1 limit 1";
        sqlx::query(earlier)
            .bind(&self.titles)
            .execute(&mut *transaction)
            .await?;
        ensure!(
            self.early(&mut transaction).await? == before + 1,
            "the audit does not detect a task that was claimed early"
        );
        transaction.rollback().await?;
        Ok(())
    }

    pub async fn report(&self, responses: &Responses) -> Result<AuditReport> {
        let mut connection = self.stack.connect().await?;
        self.check_itself(&mut connection).await?;
        let settled = "select id from tasks where title like $1 and status in ('completed', 'failed', 'cancelled')";
        let settled: Vec<i64> = sqlx::query_scalar(settled)
            .bind(&self.titles)
            .fetch_all(&mut connection)
            .await?;
        let settled: BTreeSet<i64> = settled.into_iter().collect();
        let created: BTreeSet<i64> = responses.created.iter().copied().collect();
        let reasons = "select coalesce(result, ''), count(*) from tasks
                       where status = 'failed' and title like $1 group by 1 order by 2 desc";
        let attempts = "select coalesce(sum(attempts), 0) from tasks where title like $1";
        let all = self.count("true").await?;
        let in_vain = "select count(*) from unnest($1::bigint[]) as cancelled (id)
                       where not exists (
                           select from tasks where tasks.id = cancelled.id and status = 'cancelled'
                       ) or exists (
                           select from chaos_log as change join chaos_log as later using (task_id)
                           where task_id = cancelled.id and change.status = 'cancelled' and later.at > change.at
                       )";
        let in_vain = number(in_vain, &responses.cancelled, &mut connection).await?;
        let unrecorded = "with recorded as (
                              select task_id as id, count(*) as times
                              from operator_actions
                              where action = 'cancel'
                              group by 1
                          )
                          select count(*)
                          from unnest($1::bigint[]) as cancelled (id) left join recorded using (id)
                          where times is distinct from 1";
        let in_bulk = "select count(*) from tasks where title like $1 || '%' and status = 'cancelled'";
        let recorded_in_bulk = "select coalesce(sum(count), 0)::bigint from operator_actions
                                where action = 'cancel' and filter ->> 'q' = $1";
        Ok(AuditReport {
            created: created.len(),
            completed: self.count("status = 'completed'").await?,
            failed: self.count("status = 'failed'").await?,
            cancelled: self.count("status = 'cancelled'").await?,
            cancelled_in_vain: usize::try_from(in_vain)?,
            unrecorded: number(unrecorded, &responses.cancelled, &mut connection).await?,
            cancelled_in_bulk: number(in_bulk, &self.bulk, &mut connection).await?,
            recorded_in_bulk: number(recorded_in_bulk, &self.bulk, &mut connection).await?,
            lost: created.difference(&settled).count(),
            completed_twice: self.completed_twice(&mut connection).await?,
            created_twice: usize::try_from(all)?.saturating_sub(created.len()),
            scheduled: self.count("run_at is not null and status <> 'cancelled'").await?,
            early: self.early(&mut connection).await?,
            other_attempts: self.count(OTHER_ATTEMPTS).await?,
            attempts: number(attempts, &self.titles, &mut connection).await?,
            reasons: sqlx::query_as(reasons)
                .bind(&self.titles)
                .fetch_all(&mut connection)
                .await?,
        })
    }
}

/// The number that a query with one argument returns.
async fn number<'a>(
    query: &'a str,
    argument: impl Encode<'a, Postgres> + Type<Postgres> + Send + 'a,
    connection: &mut PgConnection,
) -> Result<i64> {
    Ok(sqlx::query_scalar(query).bind(argument).fetch_one(connection).await?)
}

/// The tasks that do not show one attempt for each claim, the last with the outcome of the task,
/// unless that was cancelled.
const OTHER_ATTEMPTS: &str = "(case
    when status = 'cancelled' then
        latest_attempt(tasks) is not null
        or coalesce(jsonb_array_length(earlier_attempts), 0) <> least(fencing_token, 10)
    else
        latest_attempt(tasks) ->> 'outcome' is distinct from status::text
        or 1 + coalesce(jsonb_array_length(earlier_attempts), 0) <> least(fencing_token, 11)
end)";

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("created (201)", self.created.to_string()),
            ("completed", self.completed.to_string()),
            ("failed", self.failed.to_string()),
            ("cancelled", self.cancelled.to_string()),
            ("cancelled in vain", self.cancelled_in_vain.to_string()),
            ("unrecorded", self.unrecorded.to_string()),
            ("in bulk", self.cancelled_in_bulk.to_string()),
            ("recorded", self.recorded_in_bulk.to_string()),
            ("lost", self.lost.to_string()),
            ("completed twice", self.completed_twice.to_string()),
            ("created twice", self.created_twice.to_string()),
            ("scheduled", self.scheduled.to_string()),
            ("early", self.early.to_string()),
            ("attempts", self.attempts.to_string()),
            ("other attempts", self.other_attempts.to_string()),
        ];
        for (name, value) in rows {
            writeln!(f, "  {name:<16} {value:>6}")?;
        }
        for (reason, count) in &self.reasons {
            writeln!(f, "  {:<16} {count:>6}  {reason}", "failed with")?;
        }
        Ok(())
    }
}

impl AuditReport {
    /// Fails unless every task was created once and settled, and none was completed twice or early.
    pub fn check(&self, tasks: usize) -> Result<()> {
        ensure!(self.created == tasks, "{} of {tasks} tasks were created", self.created);
        ensure!(self.lost == 0, "{} tasks were lost", self.lost);
        ensure!(self.cancelled > 0, "no task was cancelled before it ended");
        ensure!(
            self.cancelled_in_vain == 0,
            "{} tasks were cancelled in vain",
            self.cancelled_in_vain
        );
        ensure!(
            self.unrecorded == 0,
            "{} cancellations are not recorded once",
            self.unrecorded
        );
        ensure!(self.cancelled_in_bulk > 0, "no task was cancelled in bulk");
        ensure!(
            self.cancelled_in_bulk == self.recorded_in_bulk,
            "{} tasks were cancelled in bulk, and {} are recorded",
            self.cancelled_in_bulk,
            self.recorded_in_bulk
        );
        ensure!(
            self.completed_twice == 0,
            "{} tasks were completed twice",
            self.completed_twice
        );
        ensure!(
            self.created_twice == 0,
            "{} tasks were created twice",
            self.created_twice
        );
        ensure!(self.scheduled > 0, "no scheduled task has run");
        ensure!(self.early == 0, "{} claims came before the task's time", self.early);
        ensure!(
            self.other_attempts == 0,
            "{} tasks show other attempts than were made",
            self.other_attempts
        );
        let ended = usize::try_from(self.completed + self.failed).context("counts are not negative")?;
        let cancelled = usize::try_from(self.cancelled).context("counts are not negative")?;
        ensure!(
            ended + cancelled == tasks,
            "{ended} of {tasks} tasks have ended, {cancelled} are cancelled"
        );
        // Each completed or failed task has had at least one attempt.
        ensure!(
            self.attempts >= i64::try_from(ended)?,
            "{} attempts for {ended} tasks",
            self.attempts
        );
        Ok(())
    }
}
