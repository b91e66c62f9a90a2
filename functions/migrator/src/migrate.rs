//! Migrations, roles, and the creation of the database.

use std::time::Duration;

use shared::{config::ConfigError, store::Login, telemetry::chain};
use sqlx::{
    Connection, PgConnection,
    migrate::{MigrateError, Migrator},
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
    let login = login.with_settings([
        // While a migration waits for a lock on a table, all later statements on that table queue
        // behind it. Failing the deployment is better.
        ("lock_timeout", "10s"),
        // Postgres cancels a running statement when the migrator is terminated.
        ("client_connection_check_interval", "1s"),
    ]);
    let mut connection = connect(&login, connect_timeout).await?;
    let mut migrations = Migrator {
        migrations: MIGRATIONS.migrations.clone(),
        ..Migrator::DEFAULT
    };
    // When a deployment is rolled back after its migration, CloudFormation invokes the previous
    // version of the migrator again. That version is compatible with the newer schema
    // (migrations/README.md, "Expand, then contract"); an error here would block the rollback.
    migrations.set_ignore_missing(true);
    migrations.run(&mut connection).await?;
    let roles = sqlx::raw_sql(ROLES).execute(&mut connection).await;
    roles.map_err(MigratorError::Roles)?;
    // The work is committed: an error on closing does not matter.
    let _ = connection.close().await;
    Ok(login.database().to_owned())
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
    let is_missing = |error: &sqlx::Error| {
        let code = error.as_database_error().and_then(|error| error.code());
        code.as_deref() == Some("3D000") // invalid_catalog_name
    };
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
