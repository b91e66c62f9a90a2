//! Pausing and resuming.

use serde_json::Value;
use utoipa::ToSchema;

use super::{FieldError, Input, input::Members};

/// The body of `PUT /admin/processing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(example = json!({"paused": true}))]
pub struct ProcessingRequest {
    /// Whether processing is to be paused.
    pub paused: bool,
}

impl Input for ProcessingRequest {
    fn parse(value: Value) -> Result<Self, Vec<FieldError>> {
        let mut members = Members::of(value)?;
        let paused = members.required("paused");
        members.finish(paused.map(|paused| Self { paused }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_paused_is_accepted() {
        assert!(ProcessingRequest::parse(json!({"paused": true})).expect("valid").paused);
        for (body, expected) in [
            (json!({}), "#/paused"),
            (json!({"paused": null}), "#/paused"),
            (json!({"paused": "true"}), "#/paused"),
            (json!({"paused": 1}), "#/paused"),
            (json!({"paused": true, "until": "now"}), "#/until"),
            (json!(true), "#"),
        ] {
            let errors = ProcessingRequest::parse(body.clone()).expect_err("invalid");
            let pointers: Vec<String> = errors.into_iter().map(|error| error.pointer).collect();
            assert_eq!(pointers, [expected], "{body}");
        }
    }
}
