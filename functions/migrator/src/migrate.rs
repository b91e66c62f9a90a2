//! The work on the database.

use std::time::Duration;

use shared::{config::ConfigError, store::Login, telemetry::chain};
use sqlx::{
    Connection, PgConnection,
    migrate::{MigrateError, Migrator},
};
use tokio::time::{sleep, timeout};

/// The schema. Here, because a new migration would otherwise link every function anew.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// The roles of the functions and what each may do: run after the migrations, every time.
pub const ROLES: &str = include_str!("../../../migrations/roles.sql");

/// How long to try to connect: a sleeping database wakes within half a minute, and a new IAM policy is not known
/// everywhere at once.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// How long to wait between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// Where to create another database from.
const MAINTENANCE: &str = "postgres";

/// Why the database is not ready. Its text is what the events of the stack show, so it says all in one line; not the
/// details of a row that broke a rule, which are somebody's data.
#[derive(Debug, thiserror::Error)]
pub enum MigratorError {
    /// The function does not know where the database is, or who it is itself.
    #[error("{}", chain(.0))]
    Config(#[from] ConfigError),
    /// The database cannot be reached, or does not let the migrator in.
    #[error("no connection to the database: {0}")]
    Connect(sqlx::Error),
    /// The database does not even refuse: a security group or a route is missing.
    #[error("no connection to the database: it does not answer")]
    NoAnswer,
    /// A migration failed and was rolled back, or one that has run was changed since.
    #[error("the schema: {0}")]
    Schema(#[from] MigrateError),
    /// What the roles may do could not be set.
    #[error("the roles: {0}")]
    Roles(sqlx::Error),
    /// The function's time is over. What was under way is rolled back.
    #[error("the migration takes longer than the migrator may run")]
    TimedOut,
    /// A bug.
    #[error("the migrator panicked: its log says where")]
    Panicked,
}

/// Creates the database if there is none, runs the migrations that it lacks, and sets up its roles. Answers with its
/// name.
///
/// May be repeated, and run twice at once: the second waits for the first, and finds nothing to do.
pub async fn migrate(login: Login, patience: Duration) -> Result<String, MigratorError> {
    let login = login.with_settings([
        // Behind a statement that waits for a lock all others on that table wait, too: rather no deployment.
        ("lock_timeout", "10s"),
        // What runs ends when the migrator does.
        ("client_connection_check_interval", "1s"),
    ]);
    let mut connection = connect(&login, patience).await?;
    let mut migrations = Migrator {
        migrations: MIGRATIONS.migrations.clone(),
        ..Migrator::DEFAULT
    };
    // When a deployment is rolled back after its migration, CloudFormation asks the version before it once more. That one
    // suits a newer schema (migrations/README.md, "Expand, then contract"); refused, it would keep the stack from going back.
    migrations.set_ignore_missing(true);
    migrations.run(&mut connection).await?;
    let roles = sqlx::raw_sql(ROLES).execute(&mut connection).await;
    roles.map_err(MigratorError::Roles)?;
    // All is done: how the connection ends does not matter.
    let _ = connection.close().await;
    Ok(login.database().to_owned())
}

/// Tries until it succeeds or the patience ends.
async fn connect(login: &Login, patience: Duration) -> Result<PgConnection, MigratorError> {
    let mut last = MigratorError::NoAnswer;
    let connected = timeout(patience, async {
        loop {
            match open(login).await {
                Ok(connection) => return connection,
                Err(error) => {
                    tracing::info!(error = chain(&error), "no connection to the database yet");
                    last = MigratorError::Connect(error);
                }
            }
            sleep(PAUSE).await;
        }
    });
    connected.await.map_err(|_| last)
}

/// Connects to the database; creates it if it is not there.
async fn open(login: &Login) -> Result<PgConnection, sqlx::Error> {
    let missing = |error: &sqlx::Error| {
        let code = error.as_database_error().and_then(|error| error.code());
        code.as_deref() == Some("3D000") // invalid_catalog_name
    };
    match login.connect().await {
        Err(error) if missing(&error) => {
            let mut connection = login.clone().to_database(MAINTENANCE).connect().await?;
            let name = login.database().replace('"', "\"\"");
            let create = format!("create database \"{name}\"");
            sqlx::raw_sql(&create).execute(&mut connection).await?;
            login.connect().await
        }
        outcome => outcome,
    }
}
