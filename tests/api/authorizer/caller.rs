//! How functions derive the caller from the authorizer's context.

use confique::Config;
use lambda_http::{Body, LambdaEvent, Response, http::StatusCode};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use shared::{
    config::{Auth, AuthConfig},
    http::{ApiError, Context, respond},
};

use crate::support::events;

/// The responses of two handlers that return the caller: one for all callers, one for operators.
async fn responses(auth: Auth, event: &Value) -> [(u64, Value); 2] {
    let any_caller = |context: Context| async move {
        let caller = context.caller()?;
        Ok::<_, ApiError>(Response::new(Body::Text(format!(
            "{} {:?}",
            caller.subject, caller.role
        ))))
    };
    let operators_only = |context: Context| async move {
        let caller = context.operator()?;
        Ok::<_, ApiError>(Response::new(Body::Text(caller.subject.clone())))
    };
    let any_caller = respond(&any_caller, auth, None, lambda_event(event))
        .await
        .expect("handlers do not fail");
    let operators_only = respond(&operators_only, auth, None, lambda_event(event))
        .await
        .expect("handlers do not fail");
    [json!(any_caller), json!(operators_only)].map(|response| {
        (
            response["statusCode"].as_u64().expect("a status"),
            response["body"].clone(),
        )
    })
}

fn lambda_event(event: &Value) -> LambdaEvent<Box<RawValue>> {
    LambdaEvent::new(to_raw_value(event).expect("JSON"), lambda_http::Context::default())
}

fn rest(authorizer: Value) -> Value {
    let mut event = events::rest_sample();
    event["requestContext"]["authorizer"] = authorizer;
    event
}

fn http() -> Value {
    events::http_sample()
}

#[tokio::test]
async fn authorizer_determines_caller() {
    for auth in [Auth::Closed, Auth::Open] {
        let admin = rest(json!({ "principalId": "alice", "sub": "alice", "scope": "admin", "admin": "true" }));
        assert_eq!(
            responses(auth, &admin).await,
            [(200, json!("alice Admin")), (200, json!("alice"))]
        );
        // With a member that API Gateway adds.
        let other = rest(json!({ "sub": "bob", "scope": "", "admin": "false", "integrationLatency": 7 }));
        let [any_caller, admin_only] = responses(auth, &other).await;
        assert_eq!((any_caller, admin_only.0), ((200, json!("bob User")), 403));
    }
    for admin in [json!("TRUE"), json!("1"), json!(true), json!(1), json!(""), json!(null)] {
        let event = rest(json!({ "sub": "bob", "admin": admin }));
        let [any_caller, admin_only] = responses(Auth::Closed, &event).await;
        assert_eq!((any_caller, admin_only.0), ((200, json!("bob User")), 403), "{admin}");
    }
}

#[tokio::test]
async fn viewer_may_read_and_not_change() {
    for (method, status) in [
        ("GET", 200),
        ("HEAD", 200),
        ("POST", 403),
        ("PUT", 403),
        ("PATCH", 403),
        ("DELETE", 403),
        ("get", 403),
        ("REPORT", 403),
    ] {
        let mut event = rest(json!({ "sub": "vera", "admin": "false", "viewer": "true" }));
        event["httpMethod"] = json!(method);
        let statuses = responses(Auth::Closed, &event).await.map(|(status, _)| status);
        assert_eq!(statuses, [status, status], "{method}");
    }
    for viewer in [json!("TRUE"), json!(true), json!(1), json!(null)] {
        let event = rest(json!({ "sub": "bob", "admin": "false", "viewer": viewer }));
        let [any_caller, operators_only] = responses(Auth::Closed, &event).await;
        assert_eq!(
            (any_caller, operators_only.0),
            ((200, json!("bob User")), 403),
            "{viewer}"
        );
    }
}

#[tokio::test]
async fn missing_authorizer_context_is_401() {
    let mut lambda = http();
    lambda["requestContext"]["authorizer"] = json!({ "lambda": { "sub": "mallory", "admin": "true" } });
    for event in [
        rest(Value::Null),
        rest(json!({})),
        rest(json!({ "principalId": "mallory", "admin": "true" })),
        rest(json!({ "sub": null, "admin": "true" })),
        rest(json!({ "sub": 7, "admin": "true" })),
        rest(json!({ "claims": { "sub": "mallory" }, "admin": "true" })),
        http(),
        // The HTTP API has no authorizer: its context is not trusted.
        lambda,
    ] {
        for (status, body) in responses(Auth::Closed, &event).await {
            assert_eq!(status, 401, "{event}");
            assert!(
                body.as_str()
                    .is_some_and(|body| body.contains(r#""title":"Unauthorized""#)),
                "{body}"
            );
        }
        // On an open stack, every caller is the same anonymous admin.
        let open = [(200, json!("anonymous Admin")), (200, json!("anonymous"))];
        assert_eq!(responses(Auth::Open, &event).await, open, "{event}");
    }
}

#[tokio::test]
async fn unauthorized_response_names_bearer_scheme() {
    let handler = |_| async { Err(ApiError::Unauthorized) };
    let response = json!(
        respond(&handler, Auth::Closed, None, lambda_event(&http()))
            .await
            .expect("handlers do not fail")
    );
    assert_eq!(response["statusCode"], StatusCode::UNAUTHORIZED.as_u16());
    assert_eq!(response["headers"]["www-authenticate"], "Bearer", "{response}");
}

#[test]
fn api_is_closed_by_default() {
    let auth = |text: &str| serde_json::from_value::<Auth>(json!(text)).ok();
    assert_eq!((auth("open"), auth("closed")), (Some(Auth::Open), Some(Auth::Closed)));
    assert!(auth("Open").is_none() && auth("none").is_none() && auth("").is_none());
    // Loaded from the defaults alone.
    let unset = AuthConfig::builder().load().expect("complete");
    assert_eq!(unset.auth, Auth::Closed);
}
