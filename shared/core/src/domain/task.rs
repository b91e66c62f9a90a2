//! Tasks and the bodies of requests about them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use sqlx::{Decode, Postgres, error::BoxDynError, postgres::PgValueRef};
use time::{Duration, OffsetDateTime, UtcOffset};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, Ref, RefOr, Schema, Type, schema::AnyOfBuilder},
};

use super::{Description, FieldError, FilterTime, Input, Title, input::Members, text::stored_title};

/// A task id: a positive integer, assigned in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(try_from = "i64")]
#[sqlx(transparent)]
#[schema(minimum = 1, example = 7)]
pub struct TaskId(i64);

/// The text or number is not a task id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an integer from 1 to 9223372036854775807")]
pub struct InvalidTaskId;

impl TaskId {
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

    /// Decimal digits only. Each id has one spelling, so `+7` and `007` are invalid.
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

/// A task's status: `scheduled -> pending -> processing -> completed | failed`, or `cancelled` before
/// it ends. `POST /tasks/{id}/process` and a transient failure lead back to `pending`.
// Not `sqlx::Type`: statements pass it as text and cast it, so that no connection has to look up
// the enum `task_status` in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Waiting for a worker.
    Pending,
    /// Leased by a worker.
    Processing,
    /// Settled; `result` contains the output.
    Completed,
    /// Settled; `result` contains the reason.
    Failed,
    /// Settled without an outcome, by a client.
    Cancelled,
    /// Waiting for its time, `run_at`.
    Scheduled,
}

impl Status {
    /// Every status, in the order of the enum in Postgres.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Processing,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Scheduled,
    ];

    /// Those that clients set with `PUT` and `PATCH`. The others have a route, or a member, of their own.
    pub const SETTABLE: [Self; 4] = [Self::Pending, Self::Processing, Self::Completed, Self::Failed];

    /// The name in JSON and in Postgres.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Scheduled => "scheduled",
        }
    }

    /// How clients set a status that they cannot name.
    fn is_set_by(self) -> &'static str {
        match self {
            Self::Scheduled => "set `run_at`",
            _ => "there is a route for that",
        }
    }
}

/// A status that `PUT` and `PATCH` set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Status")]
pub struct SettableStatus(Status);

/// The status is not one that clients set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot be set to `{}`: {}", .0.as_str(), .0.is_set_by())]
pub struct NotSettable(Status);

impl TryFrom<Status> for SettableStatus {
    type Error = NotSettable;

    fn try_from(status: Status) -> Result<Self, NotSettable> {
        match Status::SETTABLE.contains(&status) {
            true => Ok(Self(status)),
            false => Err(NotSettable(status)),
        }
    }
}

impl PartialSchema for SettableStatus {
    fn schema() -> RefOr<Schema> {
        let names = Status::SETTABLE.map(Status::as_str);
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("A status that clients set."))
            .enum_values(Some(names))
            .into()
    }
}

impl ToSchema for SettableStatus {}

/// The status of a stored task: one of [`Status`], or one that only a newer version of the code
/// knows.
///
/// During a deployment, and after a rollback, the previous version reads what the newer one has
/// stored (migrations/README.md). It shows such a status as it is and leaves such a task alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredStatus {
    Known(Status),
    Unknown(String),
}

impl StoredStatus {
    /// The name in JSON and in Postgres.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(status) => status.as_str(),
            Self::Unknown(name) => name,
        }
    }
}

impl From<&str> for StoredStatus {
    fn from(name: &str) -> Self {
        let known = Status::ALL.into_iter().find(|status| status.as_str() == name);
        known.map_or_else(|| Self::Unknown(name.to_owned()), Self::Known)
    }
}

impl PartialEq<Status> for StoredStatus {
    fn eq(&self, status: &Status) -> bool {
        matches!(self, Self::Known(known) if known == status)
    }
}

impl Serialize for StoredStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for StoredStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|name| Self::from(name.as_str()))
    }
}

impl<'r> Decode<'r, Postgres> for StoredStatus {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        <&str as Decode<Postgres>>::decode(value).map(Self::from)
    }
}

impl PartialSchema for StoredStatus {
    fn schema() -> RefOr<Schema> {
        AnyOfBuilder::new()
            .item(Ref::from_schema_name(Status::name()))
            .item(ObjectBuilder::new().schema_type(Type::String))
            .description(Some(
                "The status of a task. A later version of the API may add values: clients must accept them.",
            ))
            .into()
    }
}

impl ToSchema for StoredStatus {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Status::name().into_owned(), Status::schema()));
    }
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// The task's id.
    pub id: TaskId,
    /// The title.
    #[serde(deserialize_with = "stored_title")]
    pub title: Title,
    /// The description.
    #[schema(required)]
    pub description: Option<Description>,
    /// The status.
    pub status: StoredStatus,
    /// The output, or the reason for the failure, of up to 1,000 characters; null until the task is
    /// settled.
    #[schema(required, example = "Processed \"Process user data\": 5 words, 23 characters")]
    pub result: Option<String>,
    /// How many attempts were started since the task was last queued.
    #[schema(minimum = 0, example = 1)]
    pub attempts: i32,
    /// When the task is to run, or was to before it ran (RFC 3339, UTC); null for at once.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required, example = json!(null))]
    pub run_at: Option<OffsetDateTime>,
    /// When the task was created (RFC 3339, UTC).
    #[serde(with = "time::serde::rfc3339")]
    #[schema(example = "2026-11-22T15:41:29.796838Z")]
    pub created_at: OffsetDateTime,
    /// When any member above last changed (RFC 3339, UTC).
    #[serde(with = "time::serde::rfc3339")]
    #[schema(example = "2026-11-22T15:41:29.848184Z")]
    pub updated_at: OffsetDateTime,
    /// Grows with every change of a member above; returned as the `ETag`.
    #[serde(skip)]
    pub version: i64,
}

/// When a client wants a task to run, to the microsecond like every stored time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "FilterTime")]
pub struct RunAt(OffsetDateTime);

/// The time is too far in the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be at most 366 days ahead")]
pub struct TooFarAhead;

impl RunAt {
    const MAX_AHEAD: Duration = Duration::days(366);

    pub fn get(self) -> OffsetDateTime {
        self.0
    }
}

impl TryFrom<FilterTime> for RunAt {
    type Error = TooFarAhead;

    fn try_from(FilterTime(time): FilterTime) -> Result<Self, TooFarAhead> {
        if time > OffsetDateTime::now_utc() + Self::MAX_AHEAD {
            return Err(TooFarAhead);
        }
        let microsecond = time.nanosecond() / 1000 * 1000;
        let time = time.replace_nanosecond(microsecond).expect("below a second");
        Ok(Self(time.to_offset(UtcOffset::UTC)))
    }
}

/// The body of `POST /tasks`.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
pub struct NewTask {
    /// The title.
    pub title: Title,
    /// The description.
    pub description: Option<Description>,
    /// When the task is to run (RFC 3339), at most 366 days ahead. A time that has passed, or null: at
    /// once.
    #[schema(value_type = Option<OffsetDateTime>, example = json!(null))]
    pub run_at: Option<RunAt>,
}

/// The body of `PUT` and `PATCH /tasks/{id}`. Only the members that are present change.
#[derive(Clone, Debug, Default, PartialEq, Eq, ToSchema)]
#[schema(example = json!({"title": "Process user data", "description": "Count the words of this"}))]
pub struct TaskPatch {
    /// The new title. Null is invalid: every task has a title.
    #[schema(value_type = Title, required = false)]
    pub title: Option<Title>,
    /// The new description; null removes it.
    #[schema(value_type = Option<Description>)]
    pub description: Option<Option<Description>>,
    /// The new status. Null is invalid, and so are `cancelled`, for which there is a route, and
    /// `scheduled`, which `run_at` sets. It ends a schedule.
    #[schema(value_type = SettableStatus, required = false)]
    pub status: Option<Status>,
    /// Schedules the task anew, whatever its status (RFC 3339, at most 366 days ahead); a time that has
    /// passed queues it at once. Null ends the schedule: a scheduled task is queued, others remain. Not
    /// together with `status`.
    #[schema(value_type = Option<OffsetDateTime>)]
    pub run_at: Option<Option<RunAt>>,
}

impl Input for NewTask {
    fn parse(value: Value) -> Result<Self, Vec<FieldError>> {
        let mut members = Members::of(value)?;
        let title = members.required("title");
        let description: Option<Option<Description>> = members.optional("description");
        let run_at: Option<Option<RunAt>> = members.optional("run_at");
        members.finish(title.map(|title| Self {
            title,
            description: description.flatten(),
            run_at: run_at.flatten(),
        }))
    }
}

impl Input for TaskPatch {
    fn parse(value: Value) -> Result<Self, Vec<FieldError>> {
        let mut members = Members::of(value)?;
        let patch = Self {
            title: members.optional("title"),
            description: members.optional("description"),
            status: members.optional("status").map(|SettableStatus(status)| status),
            run_at: members.optional("run_at"),
        };
        if patch.status.is_some() && patch.run_at.is_some() {
            members.reject("run_at", "cannot be set together with `status`");
        }
        members.finish(Some(patch))
    }
}

impl TaskPatch {
    /// True if no member was sent.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::format_description::well_known::Rfc3339;

    use super::*;

    fn pointers<T: Input + std::fmt::Debug>(value: Value) -> Vec<String> {
        let errors = T::parse(value).expect_err("invalid");
        errors.into_iter().map(|error| error.pointer).collect()
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
    fn stored_status_keeps_names_of_newer_versions() {
        for status in Status::ALL {
            assert_eq!(StoredStatus::from(status.as_str()), StoredStatus::Known(status));
        }
        let newer: StoredStatus = serde_json::from_value(json!("archived")).expect("a name");
        assert_eq!(newer, StoredStatus::Unknown("archived".to_owned()));
        assert_eq!(json!(newer), "archived");
        assert!(serde_json::from_value::<StoredStatus>(json!(7)).is_err());
        // Clients cannot set it.
        assert_eq!(pointers::<TaskPatch>(json!({"status": "archived"})), ["#/status"]);
    }

    #[test]
    fn patch_distinguishes_absent_from_null() {
        let patch = |value| TaskPatch::parse(value).expect("valid");
        assert!(patch(json!({})).is_empty());
        assert_eq!(patch(json!({"description": null})).description, Some(None));
        for status in Status::SETTABLE {
            assert_eq!(patch(json!({"status": status})).status, Some(status));
        }
        for status in Status::ALL
            .into_iter()
            .filter(|status| !Status::SETTABLE.contains(status))
        {
            assert_eq!(pointers::<TaskPatch>(json!({"status": status})), ["#/status"]);
        }
        assert_eq!(
            pointers::<TaskPatch>(json!({"title": null, "status": null})),
            ["#/title", "#/status"]
        );
    }

    #[test]
    fn run_at_is_at_most_366_days_ahead() {
        let in_days = |days| {
            let time = OffsetDateTime::now_utc() + Duration::days(days);
            json!(time.format(&Rfc3339).expect("RFC 3339"))
        };
        let run_at = |value: &Value| {
            let new = NewTask::parse(json!({"title": "t", "run_at": value}));
            let patch = TaskPatch::parse(json!({"run_at": value}));
            assert_eq!(new.is_ok(), patch.is_ok(), "{value}");
            (new.map(|new| new.run_at), patch.map(|patch| patch.run_at))
        };
        for valid in [
            in_days(365),
            in_days(-365),
            json!("0000-01-01T00:00:00+23:59"),
            json!("2026-01-02T03:04:05.6789012345+01:00"),
        ] {
            let (new, patch) = run_at(&valid);
            assert!(
                new.expect("valid").is_some() && patch.expect("valid").flatten().is_some(),
                "{valid}"
            );
        }
        assert_eq!(run_at(&Value::Null), (Ok(None), Ok(Some(None))));
        for invalid in [
            in_days(367),
            json!("9999-12-31T23:59:59-23:59"),
            json!("2026-01-02T03:04:05"),
            json!("2026-01-02"),
            json!("tomorrow"),
            json!(""),
            json!(1_767_323_045),
        ] {
            assert_eq!(
                pointers::<NewTask>(json!({"title": "t", "run_at": invalid})),
                ["#/run_at"]
            );
            assert_eq!(pointers::<TaskPatch>(json!({"run_at": invalid})), ["#/run_at"]);
        }
    }

    #[test]
    fn run_at_is_utc_with_microseconds() {
        let body = json!({"title": "t", "run_at": "2026-01-02T03:04:05.678901999+01:00"});
        let run_at = NewTask::parse(body).expect("valid").run_at.expect("a time").get();
        assert_eq!(
            run_at.format(&Rfc3339).expect("RFC 3339"),
            "2026-01-02T02:04:05.678901Z"
        );
    }

    #[test]
    fn status_and_run_at_exclude_each_other() {
        for run_at in [Value::Null, json!("2026-01-02T03:04:05Z")] {
            let patch = json!({"status": "pending", "run_at": run_at});
            assert_eq!(pointers::<TaskPatch>(patch), ["#/run_at"]);
        }
    }

    #[test]
    fn every_mistake_in_body_is_reported() {
        let task = json!({"description": 7, "a/b~c": 1, "z": 2});
        assert_eq!(
            pointers::<NewTask>(task),
            ["#/title", "#/description", "#/a~1b~0c", "#/z"]
        );
        assert_eq!(
            pointers::<TaskPatch>(json!({"title": " ", "status": "paused"})),
            ["#/title", "#/status"]
        );
        assert_eq!(pointers::<NewTask>(json!([])), ["#"]);
    }
}
