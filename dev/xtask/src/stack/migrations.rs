//! Migrations of a stack's databases.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use sqlx::{
    Connection, PgConnection, Postgres as Driver,
    migrate::{MigrateDatabase, MigrateError, Migrator},
};

use crate::{stack::Stack, tools::terminal::Step};

/// Migrates a database and sets up the functions' roles.
pub fn migrate(stack: &Stack, url: &str) -> Result<()> {
    let step = Step::start("migrate", "migrating the database");
    let applied = migrate_from(&stack.root.join("migrations"), url)?;
    step.done(&format!(
        "{applied} migrations are applied, the functions' roles are set up"
    ));
    Ok(())
}

/// Applies the migrations of a folder to a database, and returns how many the folder has.
#[tokio::main(flavor = "current_thread")]
pub async fn migrate_from(folder: &Path, url: &str) -> Result<usize> {
    // Read at run time: if the runner depended on `shared`, it would not compile after a change to
    // a query, when `make sqlx` is needed.
    let migrations = Migrator::new(folder).await?;
    let roles = fs::read_to_string(folder.join("roles.sql"))?;
    let migrated = async {
        if !Driver::database_exists(url).await? {
            Driver::create_database(url).await?;
        }
        let mut connection = PgConnection::connect(url).await?;
        migrations.run(&mut connection).await?;
        sqlx::raw_sql(&roles)
            .execute(&mut connection)
            .await
            .context("cannot apply roles.sql, for which the database user must be allowed to create roles")?;
        anyhow::Ok(())
    };
    if let Err(error) = migrated.await {
        bail!("{}", cannot_migrate(&error));
    }
    Ok(migrations.iter().count())
}

/// The error with advice. Only a migration that was changed after it had run is a reason to delete
/// the data.
fn cannot_migrate(error: &anyhow::Error) -> String {
    let advice = match error.downcast_ref() {
        Some(MigrateError::VersionMismatch(version)) => format!(
            "Migration {version} was changed after it had run here. Undo the change and put it into a new migration. \
             Or, if the data may be deleted: make clean-data, then make up"
        ),
        Some(MigrateError::VersionMissing(version)) => format!(
            "Migration {version} has run here, but is not in migrations/: it comes from another branch. \
             Switch to that branch, or use another database: make up DATABASE_URL=…"
        ),
        _ if error
            .chain()
            .any(|cause| cause.to_string().contains("too many clients")) =>
        {
            "All connections of this Postgres are in use. Wait a minute, or restart it, which keeps the data: \
             make down, then make up"
                .to_owned()
        }
        _ => "Its log is in .local; the data is unchanged".to_owned(),
    };
    format!("the database cannot be migrated: {error:#}.\n{advice}")
}

/// Migrates `template1`, from which Postgres creates new databases: migrating the tests' databases
/// one by one would double their time. Does nothing to a Postgres from `DATABASE_URL`.
pub fn migrate_template(stack: &Stack) -> Result<()> {
    if stack.owns_postgres() {
        migrate_from(&stack.root.join("migrations"), &stack.postgres()?.url("template1"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_changed_migration_suggests_deleting_data() {
        let advice = |error: anyhow::Error| cannot_migrate(&error);
        assert!(advice(MigrateError::VersionMismatch(3).into()).contains("make clean-data"));
        assert!(!advice(MigrateError::VersionMissing(12).into()).contains("clean-data"));
        let exhausted = advice(anyhow::anyhow!("FATAL: sorry, too many clients already"));
        assert!(
            exhausted.contains("make down") && !exhausted.contains("clean-data"),
            "{exhausted}"
        );
        assert!(!advice(anyhow::anyhow!("connection refused")).contains("clean-data"));
    }
}
