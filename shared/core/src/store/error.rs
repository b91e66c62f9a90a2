//! Errors of the database.

use std::borrow::Cow;

use sqlx::error::DatabaseError;

/// Why a statement failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Postgres is unreachable or temporarily cannot serve requests. Transient: clients get a 503,
    /// the task-processor retries.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// No response within the deadline. Transient like [`StoreError::Unavailable`], but a write may
    /// or may not have happened.
    #[error("the database did not respond in time")]
    TimedOut,
    /// Everything else is a bug: a statement that does not match the schema, or a value that cannot
    /// be decoded.
    #[error("the database rejected a statement")]
    Unexpected(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let transient = match &error {
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => true,
            error => sqlstate(error).is_some_and(|code| is_transient(&code)),
        };
        match transient {
            true => Self::Unavailable(error),
            false => Self::Unexpected(error),
        }
    }
}

/// The SQLSTATE of an error (PostgreSQL documentation, appendix A); `None` if the error is not from
/// Postgres.
pub(super) fn sqlstate(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(DatabaseError::code)
}

impl StoreError {
    /// True if another session held the lock of a row for longer than `lock_timeout`. The statement
    /// had no effect.
    pub fn is_lock_timeout(&self) -> bool {
        matches!(self, Self::Unavailable(error) if sqlstate(error).as_deref() == Some(LOCK_NOT_AVAILABLE))
    }
}

/// lock_not_available: `lock_timeout` has passed.
pub(super) const LOCK_NOT_AVAILABLE: &str = "55P03";

/// True for SQLSTATEs that resolve without intervention.
fn is_transient(code: &str) -> bool {
    const CLASSES: [&str; 4] = [
        "08", // connection exception
        "28", // invalid authorization: IAM refuses a valid token now and then
        "53", // insufficient resources: too many connections, disk full
        "57", // operator intervention: shutting down, starting up, statement timeout
    ];
    const CODES: [&str; 4] = [
        "25006", // read_only_sql_transaction: a failover is under way
        "40001", // serialization_failure
        "40P01", // deadlock_detected
        LOCK_NOT_AVAILABLE,
    ];
    CLASSES.iter().any(|class| code.starts_with(class)) || CODES.contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_connection_is_transient_missing_row_is_not() {
        let broken = sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert!(matches!(StoreError::from(broken), StoreError::Unavailable(_)));
        assert!(matches!(
            StoreError::from(sqlx::Error::RowNotFound),
            StoreError::Unexpected(_)
        ));
    }

    #[test]
    fn only_transient_sqlstates_are_unavailable() {
        for code in [
            "08006", "28000", "28P01", "53300", "57P01", "57P03", "57014", "25006", "40P01", "55P03",
        ] {
            assert!(is_transient(code), "{code}");
        }
        for code in ["23514", "42703", "22001", "25P02", "0A000", "3D000"] {
            assert!(!is_transient(code), "{code}");
        }
    }
}
