//! What really happened, by a log that Postgres itself keeps: it outlives every process that is killed.

use std::{
    collections::BTreeSet,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;

use crate::{clients::Answers, faults::Stack};

/// The title of a task of this run.
pub fn title(seed: u64, number: usize) -> String {
    format!("chaos {seed} {number}")
}

/// The log of a run.
pub struct Audit {
    stack: Arc<Stack>,
    /// What the titles of this run's tasks are like.
    titles: String,
}

/// What came of all tasks.
pub struct Report {
    created: usize,
    completed: i64,
    failed: i64,
    lost: usize,
    applied_twice: i64,
    created_twice: usize,
    attempts: i64,
    /// Why tasks failed, and how many.
    reasons: Vec<(String, i64)>,
}

impl Audit {
    /// Has Postgres write down every change of a task's status in an append-only log.
    ///
    /// A task is applied once if the log has one completion of it. Claims are slowed down a little, so that a batch
    /// has a middle in which to kill its worker.
    pub async fn install(stack: &Arc<Stack>, seed: u64) -> Result<Self> {
        let install = "
            create table if not exists chaos_log (
                at timestamptz not null default clock_timestamp(),
                task_id bigint not null,
                status task_status not null,
                fencing_token bigint not null,
                -- One claim is made once, and has one outcome.
                unique (task_id, status, fencing_token)
            );
            -- As its owner: the functions' roles know nothing of this table.
            create or replace function chaos_log() returns trigger language plpgsql security definer as $$
            begin
                insert into chaos_log (task_id, status, fencing_token) values (new.id, new.status, new.fencing_token);
                if new.status = 'processing' then
                    perform pg_sleep(0.01);
                end if;
                return null;
            end $$;
            create or replace trigger chaos_log
                after update on tasks for each row
                when (new.title like 'chaos %'
                      and (old.status <> new.status or old.fencing_token <> new.fencing_token)
                      and new.status <> 'pending')
                execute function chaos_log()";
        sqlx::raw_sql(install).execute(&mut stack.connect().await?).await?;
        Ok(Self {
            stack: Arc::clone(stack),
            titles: format!("chaos {seed} %"),
        })
    }

    /// How many tasks of this run are like that.
    pub async fn count(&self, condition: &str) -> Result<i64> {
        let count = format!("select count(*) from tasks where title like $1 and {condition}");
        let query = sqlx::query_scalar(&count).bind(&self.titles);
        Ok(query.fetch_one(&mut self.stack.connect().await?).await?)
    }

    /// The time by Postgres's clock.
    pub async fn now(&self) -> Result<OffsetDateTime> {
        let now = sqlx::query_scalar("select clock_timestamp()");
        Ok(now.fetch_one(&mut self.stack.connect().await?).await?)
    }

    /// How many claims that were being made at that time have no outcome: their workers have not lived to tell.
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
        Ok(sqlx::query_scalar(claims)
            .bind(at)
            .fetch_one(&mut self.stack.connect().await?)
            .await?)
    }

    /// Waits until every task is settled and the queue is empty.
    pub async fn wait_for_quiet(&self, at_most: Duration) -> Result<()> {
        let begun = Instant::now();
        let mut told = Instant::now();
        loop {
            let open = self.count("status in ('pending', 'processing')").await?;
            let messages = self.stack.messages_in_queue().await?;
            if open == 0 && messages == 0 {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < at_most,
                "no quiet: {open} tasks are open, {messages} messages in the queue"
            );
            if told.elapsed() > Duration::from_secs(15) {
                println!("  {open} tasks open, {messages} messages in the queue");
                told = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// How many tasks have more than one completion in the log.
    async fn applied_twice(&self, connection: &mut PgConnection) -> Result<i64> {
        let twice = "select count(*) from (
                         select from chaos_log join tasks on id = task_id
                         where chaos_log.status = 'completed' and title like $1
                         group by task_id having count(*) > 1
                     ) as twice";
        Ok(sqlx::query_scalar(twice)
            .bind(&self.titles)
            .fetch_one(connection)
            .await?)
    }

    /// Shows that a task that is applied twice would be seen: makes one, counts, and undoes it.
    async fn check_itself(&self, connection: &mut PgConnection) -> Result<()> {
        let before = self.applied_twice(connection).await?;
        let mut transaction = connection.begin().await?;
        let again = "insert into chaos_log (task_id, status, fencing_token)
                     select task_id, chaos_log.status, max(chaos_log.fencing_token) + 1
                     from chaos_log join tasks on id = task_id
                     where chaos_log.status = 'completed' and title like $1
                     group by task_id, chaos_log.status having count(*) = 1
                     limit 1";
        sqlx::query(again).bind(&self.titles).execute(&mut *transaction).await?;
        let seen = self.applied_twice(&mut transaction).await?;
        ensure!(seen == before + 1, "the log does not show what is applied twice");
        transaction.rollback().await?;
        Ok(())
    }

    pub async fn report(&self, answers: &Answers) -> Result<Report> {
        let mut connection = self.stack.connect().await?;
        self.check_itself(&mut connection).await?;
        let settled = "select id from tasks where title like $1 and status in ('completed', 'failed')";
        let settled: Vec<i64> = sqlx::query_scalar(settled)
            .bind(&self.titles)
            .fetch_all(&mut connection)
            .await?;
        let settled: BTreeSet<i64> = settled.into_iter().collect();
        let created: BTreeSet<i64> = answers.created.iter().copied().collect();
        let reasons = "select coalesce(result, ''), count(*) from tasks
                       where status = 'failed' and title like $1 group by 1 order by 2 desc";
        let attempts = "select coalesce(sum(attempts), 0) from tasks where title like $1";
        let all = self.count("true").await?;
        Ok(Report {
            created: created.len(),
            completed: self.count("status = 'completed'").await?,
            failed: self.count("status = 'failed'").await?,
            lost: created.difference(&settled).count(),
            applied_twice: self.applied_twice(&mut connection).await?,
            created_twice: usize::try_from(all)?.saturating_sub(created.len()),
            attempts: sqlx::query_scalar(attempts)
                .bind(&self.titles)
                .fetch_one(&mut connection)
                .await?,
            reasons: sqlx::query_as(reasons)
                .bind(&self.titles)
                .fetch_all(&mut connection)
                .await?,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("created (201)", self.created.to_string()),
            ("completed", self.completed.to_string()),
            ("failed", self.failed.to_string()),
            ("lost", self.lost.to_string()),
            ("applied twice", self.applied_twice.to_string()),
            ("created twice", self.created_twice.to_string()),
            ("attempts", self.attempts.to_string()),
        ];
        for (name, value) in rows {
            writeln!(f, "  {name:<16} {value:>6}")?;
        }
        for (reason, count) in &self.reasons {
            writeln!(f, "  {:<16} {count:>6}  {reason}", "failed because")?;
        }
        Ok(())
    }
}

impl Report {
    /// Fails unless every task was created once, and ended, and none was applied twice.
    pub fn check(&self, tasks: usize) -> Result<()> {
        ensure!(self.created == tasks, "{} of {tasks} tasks were created", self.created);
        ensure!(self.lost == 0, "{} tasks were lost", self.lost);
        ensure!(
            self.applied_twice == 0,
            "{} tasks were applied twice",
            self.applied_twice
        );
        ensure!(
            self.created_twice == 0,
            "{} tasks were created twice",
            self.created_twice
        );
        let ended = usize::try_from(self.completed + self.failed).context("counts are not negative")?;
        ensure!(ended == tasks, "{ended} of {tasks} tasks have ended");
        // Each has at least one attempt behind it, or the log was not written.
        ensure!(
            self.attempts >= i64::try_from(ended)?,
            "{} attempts for {ended} tasks",
            self.attempts
        );
        Ok(())
    }
}
