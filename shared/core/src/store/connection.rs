//! The one connection of an execution environment.
//!
//! Lambda runs one request at a time in an execution environment, so a pool would only add round
//! trips: it pings on release. Instead, one connection is started during init, reused, and replaced
//! once it is dead. A connection may die while its environment is frozen, so it is pinged before
//! use if it has been idle for long.

use std::time::{Duration, SystemTime};

use sqlx::{Connection, PgConnection};
use tokio::{
    sync::Mutex,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{Login, StoreError, error::sqlstate};
use crate::{config::ConfigError, telemetry::chain};

/// The deadline of one call, including connecting. Shorter than the 3 s timeout of the API
/// functions, so that clients get a 503 that they can retry.
const DEADLINE: Duration = Duration::from_secs(2);

/// How long a connection may be idle before it is pinged first.
const PING_AFTER: Duration = Duration::from_secs(60);

/// The timeout of that ping. A dead peer may never respond, and time must remain to reconnect.
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// The times between attempts to log in, in total less than [`DEADLINE`].
const LOGIN_RETRY_DELAYS: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];

/// One round trip to Postgres. If it takes several, only the last may have an effect: an error of
/// Postgres means that there was none.
pub trait Statement: Sync {
    /// What the statement returns.
    type Output: Send;

    /// True if running the statement twice has the same effect and output as running it once.
    fn is_repeatable(&self) -> bool {
        false
    }

    /// Sends the statement and reads its output.
    fn run(&self, connection: &mut PgConnection) -> impl Future<Output = Result<Self::Output, sqlx::Error>> + Send;
}

/// Checks that Postgres responds.
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

/// Access to Postgres through one connection, opened when needed.
pub struct Database {
    login: Login,
    ping_after: Duration,
    cached: Mutex<Option<CachedConnection>>,
}

/// The connection for the next call.
struct CachedConnection {
    state: State,
    /// Wall-clock time: a monotonic clock may stop while the environment is frozen.
    since: SystemTime,
}

enum State {
    /// Started during init and possibly unfinished.
    Pending(JoinHandle<Result<PgConnection, sqlx::Error>>),
    /// Open.
    Ready(PgConnection),
}

impl CachedConnection {
    fn new(state: State) -> Self {
        let since = SystemTime::now();
        Self { state, since }
    }

    /// The time since then; `None` if the clock was set back.
    fn age(&self) -> Option<Duration> {
        self.since.elapsed().ok()
    }
}

/// Settings of every session. Timeouts shorter than [`DEADLINE`], so that Postgres cancels a
/// statement before the client stops waiting for it. No JIT compilation: every statement reads a
/// limited number of rows, but a generic plan does not know the limit, and for a large table Postgres
/// would spend more time on compiling it than on running it. No scan of a table: it is the cheapest
/// plan while the table is small, and a connection keeps its plan until the next ANALYZE, however
/// much the table grows. No sort where an index has the order: it is cheaper only while as few rows
/// match as the statistics say, because it reads all of them, whatever the limit.
pub const SESSION: [(&str, &str); 6] = [
    ("jit", "off"),
    ("enable_seqscan", "off"),
    ("enable_sort", "off"),
    ("statement_timeout", "1800ms"),
    ("lock_timeout", "1s"),
    ("idle_in_transaction_session_timeout", "5s"),
];

impl Database {
    /// Prepares access; connects on first use.
    pub fn new(login: impl Into<Login>) -> Self {
        let login = login.into();
        // Roles that log in with a token have these settings from roles.sql: RDS Proxy rejects
        // connections with options.
        let login = if login.is_by_token() {
            login
        } else {
            login.with_settings(SESSION)
        };
        Self {
            login,
            ping_after: PING_AFTER,
            cached: Mutex::new(None),
        }
    }

    /// Changes the idle time before a ping; tests cannot wait a minute.
    pub fn ping_after(self, ping_after: Duration) -> Self {
        Self { ping_after, ..self }
    }

    /// Prepares access with the settings of the environment, and starts connecting.
    pub fn from_env() -> Result<Self, ConfigError> {
        Ok(Self::new(Login::from_env()?).connect_ahead())
    }

    /// Starts connecting ahead of the first call. Requires a Tokio runtime.
    ///
    /// Connecting does not block init: the function fetches its first event in the meantime. It
    /// also starts while the database is down: requests that need the database return 503 until it
    /// recovers.
    pub fn connect_ahead(mut self) -> Self {
        let login = self.login.clone();
        let pending = tokio::spawn(async move { login.connect().await });
        *self.cached.get_mut() = Some(CachedConnection::new(State::Pending(pending)));
        self
    }

    /// Checks that the database responds.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.run(&Ping).await
    }

    /// Runs a statement and returns its output, connecting first if necessary.
    ///
    /// If the cached connection turns out to be dead or stale, the statement is retried once on a
    /// new one. A statement that may have run and is not repeatable fails with
    /// [`StoreError::Unavailable`] instead.
    pub async fn run<S: Statement>(&self, statement: &S) -> Result<S::Output, StoreError> {
        timeout(DEADLINE, async {
            let mut cached = self.cached.lock().await;
            // Taken out and put back only in a known state: a call that is canceled midway
            // (deadline, panic) drops the connection instead of leaving an unread response on it.
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
            let mut connection = self.connect().await?;
            let outcome = statement.run(&mut connection).await;
            keep(&mut cached, connection, &outcome);
            outcome.map_err(StoreError::from)
        })
        .await
        .unwrap_or(Err(StoreError::TimedOut))
    }

    /// Opens a connection. A refused login is retried: IAM refuses valid tokens now and then, above
    /// 200 logins a second for instance. Each attempt signs a new token.
    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        for delay in LOGIN_RETRY_DELAYS {
            match self.login.connect().await {
                Err(error) if is_refused_login(&error) => {
                    tracing::warn!(error = chain(&error), "login to the database refused, retrying");
                }
                outcome => return outcome,
            }
            sleep(delay).await;
        }
        self.login.connect().await
    }

    /// The cached connection, unless it failed to open, or has been idle for long and does not
    /// respond to a ping.
    async fn alive(&self, cached: Option<CachedConnection>) -> Option<PgConnection> {
        let cached = cached?;
        let age = cached.age();
        let mut connection = match cached.state {
            State::Ready(connection) => connection,
            State::Pending(task) => {
                // The environment was frozen while connecting: the server has timed out since.
                if !task.is_finished() && age.is_none_or(|age| age > DEADLINE) {
                    task.abort();
                    return None;
                }
                match task.await {
                    Ok(Ok(connection)) => connection,
                    Ok(Err(error)) => {
                        tracing::warn!(error = chain(&error), "connecting to the database during init failed");
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

/// Caches the connection for the next call, unless the outcome shows that it is unusable.
fn keep<T>(cached: &mut Option<CachedConnection>, connection: PgConnection, outcome: &Result<T, sqlx::Error>) {
    if !outcome
        .as_ref()
        .is_err_and(|error| is_lost(error) || is_read_only(error) || is_stale(error))
    {
        *cached = Some(CachedConnection::new(State::Ready(connection)));
    }
}

fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => true,
        // 57P01 to 57P05: Postgres terminates the session.
        _ => sqlstate(error).is_some_and(|code| code.starts_with("57P")),
    }
}

/// After a failover the old writer may still respond, as a reader: only a new connection reaches
/// the new writer.
fn is_read_only(error: &sqlx::Error) -> bool {
    sqlstate(error).as_deref() == Some("25006")
}

/// True if the session's prepared statements do not match the database: a migration has changed the
/// type of a column, or a proxy has put another session behind the connection. Postgres reports
/// this before it runs the statement.
fn is_stale(error: &sqlx::Error) -> bool {
    matches!(
        sqlstate(error).as_deref(),
        Some(
            // feature_not_supported: "cached plan must not change result type". The text depends on
            // the server's language, and no statement has another reason for this code.
            "0A000"
            // invalid_sql_statement_name: the session does not know the statement
            | "26000"
            // duplicate_prepared_statement
            | "42P05"
            // protocol_violation: the name belongs to a statement with other parameters
            | "08P01"
        )
    )
}

/// 28000: invalid_authorization_specification; 28P01: invalid_password.
fn is_refused_login(error: &sqlx::Error) -> bool {
    sqlstate(error).is_some_and(|code| code.starts_with("28"))
}

/// True if it is safe and useful to retry the statement on a new connection.
fn may_repeat(statement: &impl Statement, error: &sqlx::Error) -> bool {
    // admin_shutdown and idle_session_timeout roll back the statement, so it had no effect.
    let is_ended = matches!(sqlstate(error).as_deref(), Some("57P01" | "57P05"));
    let no_effect = is_ended || is_read_only(error) || is_stale(error);
    no_effect || (statement.is_repeatable() && is_lost(error))
}
