//! What every benchmark needs: variables that its command sets, and a database of its own.

use anyhow::{Context, Result};
use migrator::{MIGRATIONS, ROLES};
use sqlx::{ConnectOptions, Connection, PgConnection, Postgres, migrate::MigrateDatabase, postgres::PgConnectOptions};

/// A variable that this make target sets.
pub fn variable(target: &str, name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run `make {target}`"))
}

/// Creates a database with the project's schema and roles, and connects to it.
pub async fn create_database(server: &PgConnectOptions, name: &str) -> Result<(PgConnectOptions, PgConnection)> {
    let options = server.clone().database(name);
    let url = options.to_url_lossy();
    // An interrupted run may have left one.
    Postgres::force_drop_database(url.as_str()).await?;
    Postgres::create_database(url.as_str()).await?;
    let mut connection = PgConnection::connect_with(&options).await?;
    MIGRATIONS.run(&mut connection).await?;
    sqlx::raw_sql(ROLES).execute(&mut connection).await?;
    Ok((options, connection))
}

/// Deletes it.
pub async fn delete_database(options: &PgConnectOptions, connection: PgConnection) -> Result<()> {
    connection.close().await?;
    Postgres::force_drop_database(options.to_url_lossy().as_str()).await?;
    Ok(())
}

/// The process of a connection.
pub async fn backend(connection: &mut PgConnection) -> Result<i32> {
    let backend = sqlx::query_scalar("select pg_backend_pid()");
    Ok(backend.fetch_one(connection).await?)
}

/// Postpones what would fall into the measurements: autovacuum and, up to this much log, checkpoints.
pub async fn postpone_maintenance(connection: &mut PgConnection, max_wal_size: &str) -> Result<()> {
    let wal = format!("max_wal_size = '{max_wal_size}'");
    for setting in ["autovacuum = off", "checkpoint_timeout = '1h'", &wal] {
        sqlx::query(&format!("alter system set {setting}"))
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query("select pg_reload_conf()").execute(connection).await?;
    Ok(())
}
