//! The statements behind the `Idempotency-Key` header: create once, forget expired keys.

use std::time::Duration;

use sqlx::PgConnection;

use super::{Statement, error::sqlstate};
use crate::domain::{Description, IdempotencyKey, NewTask, Status, Task, TaskId};

/// What became of a request to create a task once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateOnceOutcome {
    /// The task is stored, pending and not yet enqueued, and so is the key.
    Created(Task),
    /// The key was used before with the same body: the task as it was answered then.
    Replayed(Task),
    /// The key was used before with another body.
    OtherBody,
    /// Another request with this key is at work, and has not ended within the time a lock may take.
    InProgress,
}

/// Stores a new task and the key of its request in one transaction, unless the key is known.
///
/// A key is its caller's own: the same from somebody else is another request, or one would be answered the other's
/// task. It is stored together with the caller, in one text, because the primary key must stay as it is: during a
/// deployment the previous version still uses it. Keys that the previous version has stored do not say whose they are,
/// and are not found any more: a request that is repeated across the deployment creates another task. (The first one is
/// nobody's, and so out of reach of all but admins.) The anonymous caller of an open API is a caller like any other.
pub struct CreateOnce<'a> {
    /// The key.
    pub key: &'a IdempotencyKey,
    /// Whose key it is, and who creates the task.
    pub created_by: &'a str,
    /// How long the key is remembered.
    pub keep: Duration,
    /// The task.
    pub new: &'a NewTask,
}

/// The constraint that two requests with one key violate when both have found it unknown.
const KEY_IS_UNIQUE: &str = "idempotency_keys_pkey";

/// lock_not_available (PostgreSQL documentation, appendix A): `lock_timeout` has passed.
const LOCK_NOT_AVAILABLE: &str = "55P03";

impl Statement for CreateOnce<'_> {
    type Output = CreateOnceOutcome;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        match self.attempt(connection).await {
            // The other request was first, and is done: now its key is known.
            Err(error) if constraint(&error) == Some(KEY_IS_UNIQUE) => self.attempt(connection).await,
            Err(error) if sqlstate(&error).as_deref() == Some(LOCK_NOT_AVAILABLE) => Ok(CreateOnceOutcome::InProgress),
            outcome => outcome,
        }
    }
}

impl CreateOnce<'_> {
    /// What is stored: the key, a quote, and the subject. No key contains a quote, so it is clear where the subject
    /// begins, and none of these is a key that the previous version could store.
    fn scoped_key(&self) -> String {
        format!("{}\"{}", self.key.as_str(), self.created_by)
    }

    async fn attempt(&self, connection: &mut PgConnection) -> Result<CreateOnceOutcome, sqlx::Error> {
        let NewTask { title, description } = self.new;
        // The insert into idempotency_keys waits for a transaction that has inserted the same key, and fails if
        // that one commits: the task is then undone, too.
        let row = sqlx::query!(
            r#"with request as (
                   select sha256(convert_to(jsonb_build_array($3::text, $4::text)::text, 'UTF8')) as fingerprint
               ), known as (
                   select task_id, created_at, fingerprint
                   from idempotency_keys
                   where key = $1 and expires_at > now()
               ), expired as (
                   delete from idempotency_keys
                   where key = $1 and expires_at <= now()
                   returning key
               ), task as (
                   insert into tasks (title, description, created_by)
                   select $3, $4, $5
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
        )
        .fetch_one(connection)
        .await?;
        // What a task is when it has just been created, and so what was answered the first time.
        let task = Task {
            id: row.task_id,
            title: title.clone(),
            description: description.clone(),
            status: Status::Pending,
            result: None,
            attempts: 0,
            created_at: row.created_at,
            updated_at: row.created_at,
            version: 1,
        };
        Ok(match (row.is_new, row.same_body) {
            (true, _) => CreateOnceOutcome::Created(task),
            (false, true) => CreateOnceOutcome::Replayed(task),
            (false, false) => CreateOnceOutcome::OtherBody,
        })
    }
}

fn constraint(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error()?.constraint()
}

/// Deletes keys that have expired and answers how many.
pub struct DeleteExpired {
    /// How many at the most.
    pub limit: i64,
}

impl Statement for DeleteExpired {
    type Output = u64;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        sqlx::query!(
            "delete from idempotency_keys
             where key in (
                 select key from idempotency_keys
                 where expires_at <= now()
                 order by expires_at
                 limit $1
                 for update skip locked
             )",
            self.limit
        )
        .execute(connection)
        .await
        .map(|done| done.rows_affected())
    }
}
