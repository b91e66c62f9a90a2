//! Migrations, roles, and the creation of the database.

use std::{borrow::Cow, time::Duration};

use shared::{
    config::ConfigError,
    store::Login,
    telemetry::{self, chain},
};
use sqlx::{
    Connection, Executor, PgConnection,
    migrate::{Migrate, MigrateError, Migrator},
};
use tokio::time::{sleep, timeout};

/// The schema. In this crate, because a new migration would otherwise relink every function.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// The functions' database roles and their privileges. Runs after the migrations, every time.
pub const ROLES: &str = include_str!("../../../migrations/roles.sql");

/// How long to retry connecting: a paused database resumes within half a minute, and a new IAM
/// policy takes time to propagate.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(90);

/// The time between two attempts to connect.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The time between two attempts to take the lock of the migrators.
const LOCK_INTERVAL: Duration = Duration::from_millis(300);

/// How long a migration waits for a lock. While it waits for a table, all later statements on that
/// table queue behind it: failing the deployment is better.
const WAIT_FOR_TABLES: &str = "set lock_timeout = '10s'";

/// How long each attempt to take the lock of the migrators waits. `create index concurrently` of
/// another migrator waits for all transactions that are older than its own steps, and a waiting
/// statement is one: Postgres would see a deadlock after a second (`deadlock_timeout`).
const WAIT_FOR_MIGRATOR: &str = "set lock_timeout = '100ms'";

/// The database to connect to in order to create another.
const MAINTENANCE_DATABASE: &str = "postgres";

/// Why the database is not ready. The stack's events show the message, so it is complete on one
/// line, without the details of rows that violate a constraint: those are user data.
#[derive(Debug, thiserror::Error)]
pub enum MigratorError {
    /// The location of the database or the login is missing or invalid.
    #[error("{}", chain(.0))]
    Config(#[from] ConfigError),
    /// The database is unreachable or refuses the login.
    #[error("no connection to the database: {0}")]
    Connect(sqlx::Error),
    /// No response, not even a refusal: a security group or a route is missing.
    #[error("no connection to the database: no response")]
    NoResponse,
    /// A migration failed and was rolled back, or one was modified after it had been applied.
    #[error("migration failed: {0}")]
    Schema(#[from] MigrateError),
    /// Leftovers of an earlier migration could not be removed.
    #[error("removing an invalid index failed: {0}")]
    InvalidIndex(sqlx::Error),
    /// The roles could not be created, or their privileges not granted.
    #[error("role setup failed: {0}")]
    Roles(sqlx::Error),
    /// The invocation ran out of time. Unfinished work is rolled back.
    #[error("the migration exceeded the migrator's time limit")]
    TimedOut,
    /// A bug.
    #[error("the migrator panicked: see its log")]
    Panicked,
}

/// Creates the database if it does not exist, runs the pending migrations and sets up the roles.
/// Returns the name of the database.
///
/// Idempotent, and safe to run concurrently: the second run waits for the first, and finds nothing
/// to do.
pub async fn migrate(login: Login, connect_timeout: Duration) -> Result<String, MigratorError> {
    migrate_with(&MIGRATIONS, login, connect_timeout).await
}

/// Like [`migrate`], with other migrations; for tests.
pub async fn migrate_with(
    migrations: &Migrator,
    login: Login,
    connect_timeout: Duration,
) -> Result<String, MigratorError> {
    // Postgres cancels a running statement when the migrator is terminated.
    let login = login.with_settings([("client_connection_check_interval", "1s")]);
    let mut connection = connect(&login, connect_timeout).await?;
    lock(&mut connection).await?;
    let mut migrations = Migrator {
        migrations: migrations.migrations.clone(),
        // It is taken already, and released with the connection.
        locking: false,
        ..Migrator::DEFAULT
    };
    // When a deployment is rolled back after its migration, CloudFormation invokes the previous
    // version of the migrator again. That version is compatible with the newer schema
    // (migrations/README.md, "Expand, then contract"); an error here would block the rollback.
    migrations.set_ignore_missing(true);
    drop_invalid_indexes(&mut connection).await?;
    if let Err(error) = migrations.run(&mut connection).await {
        if let Err(left) = drop_invalid_indexes(&mut connection).await {
            telemetry::log_error(&left, "the next attempt will remove the invalid index");
        }
        return Err(error.into());
    }
    let roles = sqlx::raw_sql(ROLES).execute(&mut connection).await;
    roles.map_err(MigratorError::Roles)?;
    // The work is committed: an error on closing does not matter.
    let _ = connection.close().await;
    Ok(login.database().to_owned())
}

/// Takes the lock that sqlx's migrators share, without a statement that waits for long. It belongs
/// to the session.
async fn lock(connection: &mut PgConnection) -> Result<(), MigrateError> {
    connection.execute(WAIT_FOR_MIGRATOR).await?;
    loop {
        match Migrate::lock(connection).await {
            // lock_not_available
            Err(MigrateError::Execute(error)) if sqlstate(&error).as_deref() == Some("55P03") => {
                tracing::info!("waiting for another migrator");
                sleep(LOCK_INTERVAL).await;
            }
            outcome => {
                outcome?;
                break;
            }
        }
    }
    connection.execute(WAIT_FOR_TABLES).await?;
    Ok(())
}

/// Drops the indexes that a `create index concurrently` has left behind when it failed or was
/// terminated. They slow down writes, a unique one also rejects rows, and queries do not use them;
/// the next attempt would fail because of the name, or, with `if not exists`, accept the invalid
/// index.
async fn drop_invalid_indexes(connection: &mut PgConnection) -> Result<(), MigratorError> {
    let find = "select indexrelid::regclass::text
                from pg_index join pg_class on pg_class.oid = indexrelid
                where not indisvalid
                  and relkind = 'i'
                  and relnamespace = 'public'::regnamespace
                  -- Another session is building it.
                  and not exists (select from pg_stat_progress_create_index where index_relid = indexrelid)";
    let names = sqlx::query_scalar::<_, String>(find).fetch_all(&mut *connection).await;
    for name in names.map_err(MigratorError::InvalidIndex)? {
        tracing::warn!(index = name, "dropping an invalid index");
        let drop = format!("drop index concurrently if exists {name}");
        let dropped = sqlx::raw_sql(&drop).execute(&mut *connection).await;
        dropped.map_err(MigratorError::InvalidIndex)?;
    }
    Ok(())
}

fn sqlstate(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(|error| error.code())
}

/// Retries until it succeeds or times out.
async fn connect(login: &Login, connect_timeout: Duration) -> Result<PgConnection, MigratorError> {
    let mut last = MigratorError::NoResponse;
    let connected = timeout(connect_timeout, async {
        loop {
            match open(login).await {
                Ok(connection) => return connection,
                Err(error) => {
                    tracing::info!(error = chain(&error), "no connection to the database yet");
                    last = MigratorError::Connect(error);
                }
            }
            sleep(RETRY_INTERVAL).await;
        }
    });
    connected.await.map_err(|_| last)
}

/// Connects to the database; creates it if it does not exist.
async fn open(login: &Login) -> Result<PgConnection, sqlx::Error> {
    // invalid_catalog_name
    let is_missing = |error: &sqlx::Error| sqlstate(error).as_deref() == Some("3D000");
    match login.connect().await {
        Err(error) if is_missing(&error) => {
            let mut connection = login.clone().to_database(MAINTENANCE_DATABASE).connect().await?;
            let name = login.database().replace('"', "\"\"");
            let create = format!("create database \"{name}\"");
            sqlx::raw_sql(&create).execute(&mut connection).await?;
            login.connect().await
        }
        outcome => outcome,
    }
}
