//! The one connection of an execution environment.
//!
//! Lambda runs one request at a time in an execution environment, so a pool would only add round trips: it
//! pings on release. Instead one connection is begun during the init phase, kept, and replaced when it is
//! found dead. A connection frozen together with its environment may be dead on thaw, so it is pinged first
//! when it has been idle for long.

use std::time::{Duration, SystemTime};

use sqlx::{Connection, PgConnection};
use tokio::{sync::Mutex, task::JoinHandle, time::timeout};

use super::{Login, StoreError, error::sqlstate};
use crate::{config::ConfigError, telemetry::chain};

/// How long one call may take, connecting included. Below the 3 s after which Lambda ends an API function,
/// so that the client gets a 503 it can act on.
const DEADLINE: Duration = Duration::from_secs(2);

/// How long a connection may be idle before it is pinged ahead of its next use.
const PING_AFTER: Duration = Duration::from_secs(60);

/// How long the answer to that ping may take. A dead peer may never answer: time must be left to reconnect.
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// One round trip to Postgres.
pub trait Statement: Sync {
    /// What Postgres responds with.
    type Output: Send;

    /// True if running the statement twice has the same effect and output as running it once.
    fn is_repeatable(&self) -> bool {
        false
    }

    /// Sends the statement and reads its output.
    fn run(&self, connection: &mut PgConnection) -> impl Future<Output = Result<Self::Output, sqlx::Error>> + Send;
}

/// Asks whether Postgres is there.
struct Ping;

impl Statement for Ping {
    type Output = ();

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        connection.ping().await
    }
}

/// Postgres, through one connection that is opened when needed.
pub struct Database {
    login: Login,
    ping_after: Duration,
    cached: Mutex<Option<CachedConnection>>,
}

/// The connection for the next call.
struct CachedConnection {
    state: State,
    /// Wall-clock time: a monotonic clock may stand still while the environment is frozen.
    since: SystemTime,
}

enum State {
    /// Begun during init, and perhaps not finished.
    Pending(JoinHandle<Result<PgConnection, sqlx::Error>>),
    /// Used before.
    Ready(PgConnection),
}

impl CachedConnection {
    fn new(state: State) -> Self {
        let since = SystemTime::now();
        Self { state, since }
    }

    /// For how long; nothing if the clock was set back.
    fn age(&self) -> Option<Duration> {
        self.since.elapsed().ok()
    }
}

/// Server-side timeouts, shorter than [`DEADLINE`], so that Postgres cancels a statement before the client stops waiting
/// for it.
pub const LIMITS: [(&str, &str); 3] = [
    ("statement_timeout", "1800ms"),
    ("lock_timeout", "1s"),
    ("idle_in_transaction_session_timeout", "5s"),
];

impl Database {
    /// Prepares access; connects on first use.
    pub fn new(login: impl Into<Login>) -> Self {
        let login = login.into();
        // A role that logs in by itself has them from roles.sql: RDS Proxy refuses a connection with options.
        let login = if login.is_by_token() {
            login
        } else {
            login.with_settings(LIMITS)
        };
        Self {
            login,
            ping_after: PING_AFTER,
            cached: Mutex::new(None),
        }
    }

    /// Changes how long the connection may be idle before it is pinged; a test cannot wait for a minute.
    pub fn ping_after(self, ping_after: Duration) -> Self {
        Self { ping_after, ..self }
    }

    /// Prepares access as the environment says, and begins to connect.
    pub fn from_env() -> Result<Self, ConfigError> {
        Ok(Self::new(Login::from_env()?).connect_ahead())
    }

    /// Begins to connect, ahead of the first call, within a runtime.
    ///
    /// Nobody waits for it here: the function asks for its first event meanwhile. A database that is down does not stop
    /// the function from starting: the request that needs it answers 503, and one after recovery succeeds.
    pub fn connect_ahead(mut self) -> Self {
        let login = self.login.clone();
        let begun = tokio::spawn(async move { login.connect().await });
        *self.cached.get_mut() = Some(CachedConnection::new(State::Pending(begun)));
        self
    }

    /// Asks the database whether it is there.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.run(&Ping).await
    }

    /// Runs a statement and returns its output, connecting first if need be.
    ///
    /// If the cached connection turns out to be dead, the statement is repeated once on a new one; unless it
    /// might then run twice and must not, in which case it fails as [`StoreError::Unavailable`].
    pub async fn run<S: Statement>(&self, statement: &S) -> Result<S::Output, StoreError> {
        timeout(DEADLINE, async {
            let mut cached = self.cached.lock().await;
            // Taken out, and put back only in a known state: a call that is cancelled half-way (deadline,
            // panic) drops the connection instead of leaving an unread response on it.
            if let Some(mut connection) = self.alive(cached.take()).await {
                match statement.run(&mut connection).await {
                    Err(error) if may_repeat(statement, &error) => {
                        tracing::info!(error = chain(&error), "reconnecting to the database");
                    }
                    outcome => {
                        keep(&mut cached, connection, &outcome);
                        return outcome.map_err(StoreError::from);
                    }
                }
            }
            let mut connection = self.login.connect().await?;
            let outcome = statement.run(&mut connection).await;
            keep(&mut cached, connection, &outcome);
            outcome.map_err(StoreError::from)
        })
        .await
        .unwrap_or(Err(StoreError::TimedOut))
    }

    /// The cached connection, unless it could not be opened, or has been idle for long and does not answer.
    async fn alive(&self, cached: Option<CachedConnection>) -> Option<PgConnection> {
        let cached = cached?;
        let age = cached.age();
        let mut connection = match cached.state {
            State::Ready(connection) => connection,
            State::Pending(task) => {
                // Frozen half-way: whoever was to answer has given up by now.
                if !task.is_finished() && age.is_none_or(|age| age > DEADLINE) {
                    task.abort();
                    return None;
                }
                match task.await {
                    Ok(Ok(connection)) => connection,
                    Ok(Err(error)) => {
                        tracing::warn!(error = chain(&error), "no database connection during init");
                        return None;
                    }
                    Err(_) => return None,
                }
            }
        };
        let fresh = age.is_some_and(|age| age < self.ping_after);
        let alive = fresh || matches!(timeout(PING_TIMEOUT, connection.ping()).await, Ok(Ok(())));
        alive.then_some(connection)
    }
}

/// Keeps the connection for the next call unless the outcome says that it is of no more use.
fn keep<T>(cached: &mut Option<CachedConnection>, connection: PgConnection, outcome: &Result<T, sqlx::Error>) {
    if !outcome
        .as_ref()
        .is_err_and(|error| is_lost(error) || is_read_only(error))
    {
        *cached = Some(CachedConnection::new(State::Ready(connection)));
    }
}

fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => true,
        // 57P01 to 57P05: Postgres ends the session.
        _ => sqlstate(error).is_some_and(|code| code.starts_with("57P")),
    }
}

/// After a failover the old writer may still answer, as a reader: only a new connection finds the new writer.
fn is_read_only(error: &sqlx::Error) -> bool {
    sqlstate(error).as_deref() == Some("25006")
}

/// True if the statement may be sent again on a new connection, and that may help.
fn may_repeat(statement: &impl Statement, error: &sqlx::Error) -> bool {
    // admin_shutdown and idle_session_timeout undo what they interrupt: the statement has had no effect.
    let no_effect = matches!(sqlstate(error).as_deref(), Some("57P01" | "57P05")) || is_read_only(error);
    no_effect || (statement.is_repeatable() && is_lost(error))
}
