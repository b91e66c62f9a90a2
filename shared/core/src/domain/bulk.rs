//! Actions about all tasks that match a filter.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{FieldError, Input, Status, TextError, input::Members, text::check};

/// What becomes of the tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BulkAction {
    /// Queued again: failed tasks, or completed or cancelled ones if `status` says so.
    Retry,
    /// Cancelled: pending and processing tasks, or scheduled ones if `status` says so.
    Cancel,
    /// Deleted.
    Delete,
}

impl BulkAction {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Delete => "delete",
        }
    }

    /// The statuses that it applies to.
    fn statuses(self) -> &'static [Status] {
        match self {
            Self::Retry => &[Status::Completed, Status::Failed, Status::Cancelled],
            Self::Cancel => &[Status::Pending, Status::Processing, Status::Scheduled],
            Self::Delete => &Status::ALL,
        }
    }
}

/// A text of 1 to `MAX` characters that a column may contain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct FilterText<const MAX: usize>(String);

impl<const MAX: usize> TryFrom<String> for FilterText<MAX> {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        check(&text, MAX)?;
        if text.is_empty() {
            Err(TextError::Blank)
        } else {
            Ok(Self(text))
        }
    }
}

impl<const MAX: usize> FilterText<MAX> {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A time in a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FilterTime(#[serde(with = "time::serde::rfc3339")] pub OffsetDateTime);

/// Which tasks. All members must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BulkFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q: Option<FilterText<255>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<FilterText<255>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_after: Option<FilterTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_before: Option<FilterTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_after: Option<FilterTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_before: Option<FilterTime>,
    /// The reason of a failure; words with digits do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<FilterText<1000>>,
}

/// The body of `POST /admin/actions`. At least one member must say which tasks.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
#[schema(example = json!({
    "action": "retry", "created_after": "2026-11-22T00:00:00Z", "error": "HTTP 503 after 2.5 s", "dry_run": true,
}))]
pub struct BulkRequest {
    /// What becomes of the tasks.
    pub action: BulkAction,
    /// Only tasks with this status. By default `failed` for `retry`, `pending` and `processing` for
    /// `cancel`, and any for `delete`.
    #[schema(value_type = Status, required = false)]
    pub status: Option<Status>,
    /// Only tasks whose title contains this text, ignoring case.
    #[schema(value_type = String, required = false, min_length = 1, max_length = 255, pattern = r"^[^\u0000]*$")]
    pub q: Option<FilterText<255>>,
    /// Only tasks that this subject created.
    #[schema(value_type = String, required = false, min_length = 1, max_length = 255, pattern = r"^[^\u0000]*$")]
    pub created_by: Option<FilterText<255>>,
    /// Only tasks that were created at this time or later (RFC 3339).
    #[schema(value_type = OffsetDateTime, required = false)]
    pub created_after: Option<FilterTime>,
    /// Only tasks that were created before (RFC 3339).
    #[schema(value_type = OffsetDateTime, required = false)]
    pub created_before: Option<FilterTime>,
    /// Only tasks that were completed, failed or cancelled at this time or later (RFC 3339).
    #[schema(value_type = OffsetDateTime, required = false)]
    pub ended_after: Option<FilterTime>,
    /// Only tasks that were completed, failed or cancelled before (RFC 3339).
    #[schema(value_type = OffsetDateTime, required = false)]
    pub ended_before: Option<FilterTime>,
    /// Only tasks that failed for this reason, of which words with digits do not count: those with other
    /// ids, numbers and times are the same.
    #[schema(value_type = String, required = false, min_length = 1, max_length = 1000, pattern = r"^[^\u0000]*$")]
    pub error: Option<FilterText<1000>>,
    /// `false` carries out the action. By default the tasks are only counted.
    #[schema(value_type = bool, required = false, default = true)]
    pub dry_run: bool,
}

impl Input for BulkRequest {
    fn parse(value: Value) -> Result<Self, Vec<FieldError>> {
        let mut members = Members::of(value)?;
        let action: Option<BulkAction> = members.required("action");
        let status = members.optional("status");
        let q = members.optional("q");
        let created_by = members.optional("created_by");
        let created_after = members.optional("created_after");
        let created_before = members.optional("created_before");
        let ended_after = members.optional("ended_after");
        let ended_before = members.optional("ended_before");
        let error = members.optional("error");
        let dry_run = members.optional("dry_run").unwrap_or(true);
        if let Some(action) = action {
            let applies = |status| action.statuses().contains(&status);
            let words: Vec<&str> = action.statuses().iter().map(|status| status.as_str()).collect();
            if status.is_some_and(|status| !applies(status)) {
                members.reject("status", format!("must be one of: {}", words.join(", ")));
            }
            if error.is_some() && (!applies(Status::Failed) || status.is_some_and(|status| status != Status::Failed)) {
                members.reject("error", "can be given only for failed tasks");
            }
        }
        let request = action.map(|action| Self {
            action,
            status,
            q,
            created_by,
            created_after,
            created_before,
            ended_after,
            ended_before,
            error,
            dry_run,
        });
        if request
            .as_ref()
            .is_some_and(|request| request.filter_as_sent() == BulkFilter::default())
        {
            members.reject_all(
                "must say which tasks: at least one of status, q, created_by, created_after, \
                                created_before, ended_after, ended_before and error",
            );
        }
        members.finish(request)
    }
}

impl BulkRequest {
    fn filter_as_sent(&self) -> BulkFilter {
        BulkFilter {
            status: self.status,
            q: self.q.clone(),
            created_by: self.created_by.clone(),
            created_after: self.created_after,
            created_before: self.created_before,
            ended_after: self.ended_after,
            ended_before: self.ended_before,
            error: self.error.clone(),
        }
    }

    /// Which tasks, with the status that it implies.
    pub fn filter(&self) -> BulkFilter {
        let is_of_failed = self.action == BulkAction::Retry || self.error.is_some();
        let filter = self.filter_as_sent();
        let status = filter.status.or(is_of_failed.then_some(Status::Failed));
        BulkFilter { status, ..filter }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pointers(body: Value) -> Vec<String> {
        let errors = BulkRequest::parse(body).expect_err("invalid");
        errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn action_is_a_dry_run_unless_said_otherwise() {
        let request = |body| BulkRequest::parse(body).expect("valid");
        assert!(request(json!({"action": "delete", "q": "a"})).dry_run);
        assert!(!request(json!({"action": "delete", "q": "a", "dry_run": false})).dry_run);
    }

    #[test]
    fn filter_must_suit_action() {
        for (body, expected) in [
            (json!({}), &["#/action"][..]),
            (json!({"action": "retry"}), &["#"]),
            (json!({"action": "delete", "dry_run": false}), &["#"]),
            (json!({"action": "stop", "q": "a"}), &["#/action"]),
            (json!({"action": "retry", "status": "pending"}), &["#/status"]),
            (json!({"action": "cancel", "status": "failed"}), &["#/status"]),
            (json!({"action": "cancel", "error": "e"}), &["#/error"]),
            (
                json!({"action": "retry", "status": "completed", "error": "e"}),
                &["#/error"],
            ),
            (json!({"action": "delete", "status": "none"}), &["#/status", "#"]),
            (
                json!({"action": "delete", "q": "", "error": "\0"}),
                &["#/q", "#/error", "#"],
            ),
            (
                json!({"action": "delete", "q": "x".repeat(256), "created_by": null}),
                &["#/q", "#/created_by", "#"],
            ),
            (
                json!({"action": "delete", "created_after": "today", "ended_before": 7}),
                &["#/created_after", "#/ended_before", "#"],
            ),
            (json!({"action": "delete", "q": "a", "dry_run": "no"}), &["#/dry_run"]),
            (json!({"action": "delete", "q": "a", "title": "b"}), &["#/title"]),
        ] {
            assert_eq!(pointers(body.clone()), expected, "{body}");
        }
    }

    #[test]
    fn implied_status_is_part_of_filter() {
        let status = |body| BulkRequest::parse(body).expect("valid").filter().status;
        assert_eq!(status(json!({"action": "retry", "q": "a"})), Some(Status::Failed));
        assert_eq!(
            status(json!({"action": "retry", "status": "cancelled"})),
            Some(Status::Cancelled)
        );
        assert_eq!(status(json!({"action": "cancel", "q": "a"})), None);
        assert_eq!(status(json!({"action": "delete", "q": "a"})), None);
        assert_eq!(status(json!({"action": "delete", "error": "e"})), Some(Status::Failed));
    }

    #[test]
    fn stored_filter_round_trips() {
        let body = json!({
            "action": "retry", "status": "failed", "q": "a", "created_by": "bob", "created_after": "2026-11-22T00:00:00Z",
            "created_before": "2026-11-23T00:00:00+01:00", "ended_after": "2026-11-22T00:00:00.5Z",
            "ended_before": "2026-11-24T00:00:00Z", "error": "e",
        });
        let filter = BulkRequest::parse(body).expect("valid").filter();
        assert_eq!(
            serde_json::from_value::<BulkFilter>(json!(filter)).expect("valid"),
            filter
        );
        assert_eq!(json!(BulkFilter::default()), json!({}));
    }
}
