//! What can go wrong between us and Postgres.

use std::borrow::Cow;

use sqlx::error::DatabaseError;

/// Why a statement has no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Postgres cannot be reached or cannot serve us now. Worth a retry: 503 for a client, a transient
    /// failure for the task-processor.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// No answer within the time a statement may take. As worth a retry as [`StoreError::Unavailable`];
    /// a write may or may not have happened.
    #[error("the database did not answer in time")]
    TimedOut,
    /// Anything else is a bug: a statement that does not fit the schema, a value that cannot be decoded.
    #[error("the database refused a statement")]
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

/// What Postgres says is wrong (PostgreSQL documentation, appendix A); `None` if it was not Postgres that said so.
pub(super) fn sqlstate(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(DatabaseError::code)
}

/// True for the SQLSTATEs that go away by themselves.
fn is_transient(code: &str) -> bool {
    const CLASSES: [&str; 3] = [
        "08", // connection exception
        "53", // insufficient resources: too many connections, disk full
        "57", // operator intervention: shutting down, starting up, statement timeout
    ];
    const CODES: [&str; 4] = [
        "25006", // read_only_sql_transaction: a failover is under way
        "40001", // serialization_failure
        "40P01", // deadlock_detected
        "55P03", // lock_not_available
    ];
    CLASSES.iter().any(|class| code.starts_with(class)) || CODES.contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_connection_is_unavailable_a_missing_row_is_a_bug() {
        let broken = sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert!(matches!(StoreError::from(broken), StoreError::Unavailable(_)));
        assert!(matches!(
            StoreError::from(sqlx::Error::RowNotFound),
            StoreError::Unexpected(_)
        ));
    }

    #[test]
    fn only_sqlstates_that_go_away_by_themselves_are_transient() {
        for code in ["08006", "53300", "57P01", "57P03", "57014", "25006", "40P01"] {
            assert!(is_transient(code), "{code}");
        }
        for code in ["23514", "42703", "22001", "25P02", "28P01", "3D000"] {
            assert!(!is_transient(code), "{code}");
        }
    }
}
