//! The statements behind the `Idempotency-Key` header: create a task once, delete expired keys.

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{
    Statement,
    error::{LOCK_NOT_AVAILABLE, sqlstate},
    reconciling::Deleted,
};
use crate::domain::{Description, IdempotencyKey, NewTask, RunAt, Status, StoredStatus, Task, TaskId};

/// The outcome of creating a task once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateOnceOutcome {
    /// The task is stored, not yet enqueued, and so is the key.
    Created(Task),
    /// The key was used before with the same body: the task as returned then.
    Replayed(Task),
    /// The key was used before with another body.
    KeyReused,
    /// Another request with this key is in progress and did not end within `lock_timeout`.
    InProgress,
}

/// Stores a new task and the key of its request in one transaction, unless the key exists already.
///
/// Keys are scoped to their caller: the same key from another caller is another request, so that no
/// caller receives another's task. Key and caller are stored in one text, because the primary key
/// cannot change: during a deployment the previous version still uses it. Keys stored by the
/// previous version have no caller and no longer match: a request that is retried across the
/// deployment creates another task. (The first task has no owner, so only admins can reach it.) The
/// anonymous caller of an open API is a caller like any other.
pub struct CreateOnce<'a> {
    pub key: &'a IdempotencyKey,
    /// The caller: owner of the key and of the task.
    pub created_by: &'a str,
    /// How long to store the key.
    pub keep: Duration,
    pub new: &'a NewTask,
}

/// The constraint violated by the second of two concurrent requests with a new key.
const KEY_IS_UNIQUE: &str = "idempotency_keys_pkey";

impl Statement for CreateOnce<'_> {
    type Output = CreateOnceOutcome;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        match self.attempt(connection).await {
            // The other request has committed, so its key now exists.
            Err(error) if constraint(&error) == Some(KEY_IS_UNIQUE) => self.attempt(connection).await,
            Err(error) if sqlstate(&error).as_deref() == Some(LOCK_NOT_AVAILABLE) => Ok(CreateOnceOutcome::InProgress),
            outcome => outcome,
        }
    }
}

impl CreateOnce<'_> {
    /// The stored text: key, quote, subject. Keys contain no quote, so the subject begins
    /// unambiguously, and the text differs from every key that the previous version can store.
    fn scoped_key(&self) -> String {
        format!("{}\"{}", self.key.as_str(), self.created_by)
    }

    async fn attempt(&self, connection: &mut PgConnection) -> Result<CreateOnceOutcome, sqlx::Error> {
        let NewTask {
            title,
            description,
            run_at,
        } = self.new;
        let run_at = run_at.map(RunAt::get);
        // The insert into idempotency_keys waits for any transaction that inserted the same key,
        // and fails if that one commits; the new task is then rolled back as well.
        let row = sqlx::query!(
            r#"with request as (
                   -- Without a time as it was before there were any: the first request may be older.
                   select sha256(convert_to(
                       (jsonb_build_array($3::text, $4::text) || case
                           when $6::timestamptz is null then '[]'
                           else jsonb_build_array(extract(epoch from $6))
                       end)::text,
                       'UTF8'
                   )) as fingerprint
               ), known as (
                   select task_id, created_at, fingerprint
                   from idempotency_keys
                   where key = $1 and expires_at > now()
               ), expired as (
                   delete from idempotency_keys
                   where key = $1 and expires_at <= now()
                   returning key
               ), task as (
                   insert into tasks (title, description, created_by, status, run_at)
                   select $3, $4, $5,
                          case when $6 > now() then 'scheduled'::task_status else 'pending' end,
                          case when $6 > now() then $6 end
                   where not exists (select from known)
                     -- Always true; reading `expired` forces its delete to run before the insert.
                     and (select count(*) from expired) <= 1
                   returning id, created_at
               ), remembered as (
                   insert into idempotency_keys (key, fingerprint, task_id, created_at, expires_at)
                   select $1, fingerprint, id, created_at, now() + make_interval(secs => $2)
                   from task, request
                   returning task_id, created_at
               )
               select task_id as "task_id!: TaskId", created_at as "created_at!", true as "is_new!", true as "same_body!"
               from remembered
               union all
               select task_id, created_at, false, known.fingerprint = request.fingerprint
               from known, request"#,
            self.scoped_key(),
            self.keep.as_secs_f64(),
            title.as_str(),
            description.as_ref().map(Description::as_str),
            self.created_by,
            run_at,
        )
        .fetch_one(connection)
        .await?;
        // The task as it was created, and so as the first response returned it.
        let run_at = run_at.filter(|run_at| *run_at > row.created_at);
        let task = Task {
            id: row.task_id,
            title: title.clone(),
            description: description.clone(),
            status: StoredStatus::Known(match run_at {
                Some(_) => Status::Scheduled,
                None => Status::Pending,
            }),
            result: None,
            attempts: 0,
            run_at,
            created_at: row.created_at,
            updated_at: row.created_at,
            version: 1,
        };
        Ok(match (row.is_new, row.same_body) {
            (true, _) => CreateOnceOutcome::Created(task),
            (false, true) => CreateOnceOutcome::Replayed(task),
            (false, false) => CreateOnceOutcome::KeyReused,
        })
    }
}

fn constraint(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error()?.constraint()
}

/// Deletes expired keys, those first that expired first.
pub struct DeleteExpired {
    /// Only keys that expired at that time or later: where an earlier statement stopped. Before it
    /// are the index entries of the keys that were just deleted.
    pub from: Option<OffsetDateTime>,
    /// The maximum number of keys to delete.
    pub limit: i64,
}

impl Statement for DeleteExpired {
    type Output = Deleted;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        // An array, not `in`: Postgres would join, and scan the table if its statistics are stale.
        sqlx::query_as!(
            Deleted,
            r#"with deleted as (
                   delete from idempotency_keys
                   where key = any (array(
                       select key
                       from idempotency_keys
                       where expires_at <= now() and expires_at >= coalesce($2::timestamptz, '-infinity')
                       order by expires_at
                       limit $1
                       for update skip locked
                   ))
                   returning expires_at
               )
               select count(*) as "count!", max(expires_at) as last from deleted"#,
            self.limit,
            self.from,
        )
        .fetch_one(connection)
        .await
    }
}

/// Counts expired keys.
pub struct CountExpired {
    /// Only keys that expired at that time or later, like [`DeleteExpired::from`].
    pub from: Option<OffsetDateTime>,
    /// The maximum number of keys to count.
    pub limit: i64,
}

impl Statement for CountExpired {
    type Output = i64;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        sqlx::query_scalar!(
            r#"select count(*) as "count!"
               from (
                   select
                   from idempotency_keys
                   where expires_at <= now() and expires_at >= coalesce($2::timestamptz, '-infinity')
                   order by expires_at
                   limit $1
               ) as expired"#,
            self.limit,
            self.from,
        )
        .fetch_one(connection)
        .await
    }
}
