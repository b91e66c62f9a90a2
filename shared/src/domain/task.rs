//! Tasks, and what clients can ask of them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Description, Title};

/// Identifies a task: a positive `bigint` that Postgres hands out in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(try_from = "i64")]
#[sqlx(transparent)]
pub struct TaskId(i64);

/// The text or number is not a task id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an integer from 1 to 9223372036854775807")]
pub struct InvalidTaskId;

impl TaskId {
    /// The number.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for TaskId {
    type Error = InvalidTaskId;

    fn try_from(id: i64) -> Result<Self, InvalidTaskId> {
        if id >= 1 { Ok(Self(id)) } else { Err(InvalidTaskId) }
    }
}

impl FromStr for TaskId {
    type Err = InvalidTaskId;

    /// Decimal digits only: one id has one spelling, so `+7` and `007` are not ids.
    fn from_str(text: &str) -> Result<Self, InvalidTaskId> {
        if text.starts_with(['+', '0']) {
            return Err(InvalidTaskId);
        }
        text.parse::<i64>().map_err(|_| InvalidTaskId)?.try_into()
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far a task is. `pending -> processing -> completed | failed`; `POST /tasks/{id}/process` and a
/// transient failure lead back to `pending`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, eserde::Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "task_status", rename_all = "lowercase")]
pub enum Status {
    /// Waits for the task-processor.
    Pending,
    /// A task-processor holds a lease on it.
    Processing,
    /// Done; `result` says what came out.
    Completed,
    /// Given up; `result` says why.
    Failed,
}

impl Status {
    /// The word for it, in JSON and in Postgres.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// A task as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Task {
    /// Identifies the task.
    pub id: TaskId,
    /// What it is called.
    pub title: Title,
    /// What it is about.
    pub description: Option<Description>,
    /// How far it is.
    pub status: Status,
    /// What came out, or why it failed; null until then.
    pub result: Option<String>,
    /// When it was created (RFC 3339, UTC).
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When anything above last changed (RFC 3339, UTC).
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// The body of `POST /tasks`.
#[derive(Clone, Debug, PartialEq, Eq, eserde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTask {
    /// What it is called.
    #[eserde(compat)]
    pub title: Title,
    /// What it is about.
    #[eserde(compat)]
    #[serde(default)]
    pub description: Option<Description>,
}

/// The body of `PUT` and `PATCH /tasks/{id}`: only the members that were sent change.
#[derive(Clone, Debug, Default, PartialEq, Eq, eserde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskPatch {
    /// A new title. Null is refused: a task always has one.
    #[serde(default, deserialize_with = "sent")]
    pub title: Option<Title>,
    /// A new description; `Some(None)` (null) removes it.
    #[serde(default, deserialize_with = "sent")]
    pub description: Option<Option<Description>>,
    /// A new status. Null is refused.
    #[serde(default, deserialize_with = "sent")]
    pub status: Option<Status>,
}

impl TaskPatch {
    /// True if no member was sent.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Reads a member that was sent, so that null reaches `T` instead of meaning "not sent".
fn sent<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(json: &str) -> Result<TaskPatch, Vec<(String, String)>> {
        eserde::json::from_str(json).map_err(|errors| {
            let at = |e: &eserde::DeserializationError| e.path().map(ToString::to_string).unwrap_or_default();
            errors.iter().map(|e| (at(e), e.message().to_string())).collect()
        })
    }

    #[test]
    fn ids_are_positive_and_have_one_spelling() {
        assert_eq!("7".parse(), Ok(TaskId(7)));
        assert_eq!("9223372036854775807".parse(), Ok(TaskId(i64::MAX)));
        for bad in [
            "0",
            "-1",
            "9223372036854775808",
            "abc",
            "",
            "+7",
            "007",
            "7.0",
            " 7",
            "7 ",
            "٧",
            "1e3",
        ] {
            assert_eq!(bad.parse::<TaskId>(), Err(InvalidTaskId), "{bad:?}");
        }
    }

    #[test]
    fn a_patch_tells_absent_from_null() {
        assert_eq!(patch("{}"), Ok(TaskPatch::default()));
        assert!(patch("{}").expect("valid").is_empty());
        assert_eq!(patch(r#"{"description":null}"#).expect("valid").description, Some(None));
        assert_eq!(
            patch(r#"{"status":"failed"}"#).expect("valid").status,
            Some(Status::Failed)
        );
    }

    #[test]
    fn every_mistake_of_a_patch_is_reported_with_its_path() {
        let errors = patch(r#"{"title":null,"status":"paused","colour":"red"}"#).expect_err("three mistakes");
        let paths: Vec<_> = errors.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["title", "status", "colour"], "{errors:?}");
    }
}
