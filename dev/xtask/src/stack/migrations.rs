//! Migrates a stack's databases.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use sqlx::{
    Connection, PgConnection, Postgres as Driver,
    migrate::{MigrateDatabase, MigrateError, Migrator},
};

use crate::{stack::Stack, tools::terminal::Step};

/// Migrates a database and sets the functions' roles up.
pub fn migrate(stack: &Stack, url: &str) -> Result<()> {
    let step = Step::start("migrate", "migrating the database");
    let applied = migrate_from(&stack.root.join("migrations"), url)?;
    step.done(&format!(
        "{applied} migrations applied, the functions' roles are set up"
    ));
    Ok(())
}

/// Migrates a database with the migrations of a folder, and returns how many there are.
#[tokio::main(flavor = "current_thread")]
pub async fn migrate_from(folder: &Path, url: &str) -> Result<usize> {
    // Read now, not compiled in: the runner must not depend on `shared`, or a change of a query would keep it from
    // compiling just when `make sqlx` is needed.
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
            .context("roles.sql, for which the user must be allowed to create roles")?;
        anyhow::Ok(())
    };
    if let Err(error) = migrated.await {
        bail!("{}", cannot_migrate(&error));
    }
    Ok(migrations.iter().count())
}

/// What to do about it depends on why. Only a migration that was changed after it had run is a reason to delete the data.
fn cannot_migrate(error: &anyhow::Error) -> String {
    let advice = match error.downcast_ref() {
        Some(MigrateError::VersionMismatch(version)) => format!(
            "The migration {version} was changed after it had run here. Undo the change, and put it into a new migration; \
             or, if this data may go: make clean-data, then make up"
        ),
        Some(MigrateError::VersionMissing(version)) => format!(
            "The migration {version} has run here, but is not in migrations/: it comes from another branch. Go back to \
             that branch; or use another database: make up DATABASE_URL=…"
        ),
        _ if error
            .chain()
            .any(|cause| cause.to_string().contains("too many clients")) =>
        {
            "Every connection of this Postgres is taken. Wait a minute, or: make down, then make up; the data stays"
                .to_owned()
        }
        _ => "Its log is in .local; the data is as it was".to_owned(),
    };
    format!("the database cannot be migrated: {error:#}.\n{advice}")
}

/// Migrates what Postgres makes each new database of, so that those of the tests need not be migrated one by one: half of
/// their time. Not for a Postgres that is not ours.
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
    fn data_is_deleted_only_for_a_changed_migration() {
        let advice = |error: anyhow::Error| cannot_migrate(&error);
        assert!(advice(MigrateError::VersionMismatch(3).into()).contains("make clean-data"));
        assert!(!advice(MigrateError::VersionMissing(12).into()).contains("clean-data"));
        let crowded = advice(anyhow::anyhow!("FATAL: sorry, too many clients already"));
        assert!(
            crowded.contains("make down") && !crowded.contains("clean-data"),
            "{crowded}"
        );
        assert!(!advice(anyhow::anyhow!("connection refused")).contains("clean-data"));
    }
}
