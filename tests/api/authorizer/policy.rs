//! The policy and context that the authorizer returns to API Gateway.

use authorizer::{AuthError, Authorizer, Event, handle};
use serde_json::{Value, json};

use super::{
    NOW,
    issuer::{Key, jwks},
    present, with_keys,
};

fn event_for(method_arn: &str) -> Event {
    serde_json::from_value(json!({ "methodArn": method_arn })).expect("an event")
}

/// The resources that an open authorizer allows.
async fn allowed(method_arn: &str) -> Result<Value, AuthError> {
    let response = handle(&Authorizer::Open, &event_for(method_arn), NOW).await?;
    Ok(response["policyDocument"]["Statement"][0]["Resource"].clone())
}

#[tokio::test]
async fn admin_may_call_whole_stage() {
    let key = Key::es256();
    let token = key.token_with("k", json!({ "scope": "read admin" }));
    let response = present(&with_keys(&jwks(&[key.jwk("k")])), &token, NOW)
        .await
        .expect("valid");
    assert_eq!(
        response,
        json!({
            "principalId": "alice",
            "policyDocument": {
                "Version": "2012-10-17",
                "Statement": [{
                    "Effect": "Allow",
                    "Action": "execute-api:Invoke",
                    "Resource": ["arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/prod/*"],
                }],
            },
            "context": { "sub": "alice", "scope": "read admin", "admin": "true" },
        })
    );
}

#[tokio::test]
async fn non_admin_may_call_all_but_admin_routes() {
    let key = Key::rs256();
    let token = key.token_with("k", json!({ "scope": "read" }));
    let response = present(&with_keys(&jwks(&[key.jwk("k")])), &token, NOW)
        .await
        .expect("valid");
    assert_eq!(
        response,
        json!({
            "principalId": "alice",
            "policyDocument": {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Action": "execute-api:Invoke",
                        "Resource": ["arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/prod/*"],
                    },
                    {
                        "Effect": "Deny",
                        "Action": "execute-api:Invoke",
                        "Resource": [
                            "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/prod/*/admin",
                            "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/prod/*/admin/*",
                        ],
                    },
                ],
            },
            "context": { "sub": "alice", "scope": "read", "admin": "false" },
        })
    );
}

#[tokio::test]
async fn open_stack_has_anonymous_admin() {
    for authorization in [None, Some("Bearer a.b.c"), Some("Basic YTpi")] {
        let event = json!({ "methodArn": super::METHOD, "headers": { "authorization": authorization.unwrap_or("") } });
        let event: Event = serde_json::from_value(event).expect("an event");
        let response = handle(&Authorizer::Open, &event, NOW).await.expect("allowed");
        assert_eq!(
            response,
            json!({
                "principalId": "anonymous",
                "policyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [{
                        "Effect": "Allow",
                        "Action": "execute-api:Invoke",
                        "Resource": ["arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/prod/*"],
                    }],
                },
                "context": { "sub": "anonymous", "scope": "", "admin": "true" },
            })
        );
    }
}

#[tokio::test]
async fn policy_covers_stage_of_method() {
    for (method_arn, stage) in [
        (
            "arn:aws-cn:execute-api:cn-north-1:123456789012:abc/prod/GET/",
            "arn:aws-cn:execute-api:cn-north-1:123456789012:abc/prod/*",
        ),
        (
            "arn:aws-us-gov:execute-api:us-gov-west-1:123456789012:abc/prod/POST/tasks",
            "arn:aws-us-gov:execute-api:us-gov-west-1:123456789012:abc/prod/*",
        ),
        // The client chooses the path, here with colons, slashes, wildcards and percent signs: the
        // policy must not contain it.
        (
            "arn:aws:execute-api:eu-central-1:123456789012:abc/prod/GET/tasks/arn:aws:x/*/?/%2F//..",
            "arn:aws:execute-api:eu-central-1:123456789012:abc/prod/*",
        ),
        // A test of the authorizer in API Gateway's console.
        (
            "arn:aws:execute-api:eu-central-1:123456789012:abc/ESTestInvoke-stage/GET/",
            "arn:aws:execute-api:eu-central-1:123456789012:abc/ESTestInvoke-stage/*",
        ),
        // The emulator, ministack.
        (
            "arn:aws:execute-api:us-east-1:000000000000:84316038/local/GET/tasks",
            "arn:aws:execute-api:us-east-1:000000000000:84316038/local/*",
        ),
        // sam local start-api, for an API whose stage is a parameter.
        (
            "arn:aws:execute-api:us-east-1:123456789012:1234567890/None/GET/tasks",
            "arn:aws:execute-api:us-east-1:123456789012:1234567890/None/*",
        ),
    ] {
        assert_eq!(
            allowed(method_arn).await.expect("an ARN"),
            json!([stage]),
            "{method_arn}"
        );
    }
}

#[tokio::test]
async fn malformed_method_arn_gets_no_policy() {
    for method_arn in [
        "",
        "*",
        "arn:aws:execute-api:eu-central-1:123456789012:abc",
        "arn:aws:execute-api:eu-central-1:123456789012:abc/prod",
        "arn:aws:execute-api:eu-central-1:123456789012:abc/prod/",
        "arn:aws:execute-api:eu-central-1:123456789012:/prod/GET/",
        "arn:aws:execute-api:eu-central-1:123456789012:abc//GET/",
        "arn:aws:execute-api:eu-central-1:123456789012:*/prod/GET/",
        "arn:aws:execute-api:eu-central-1:123456789012:abc/*/GET/",
        "arn:aws:execute-api:*:123456789012:abc/prod/GET/",
        "arn:aws:lambda:eu-central-1:123456789012:function:authorizer",
        "arn:aws:s3:eu-central-1:123456789012:abc/prod/GET/",
        "arn:other:execute-api:eu-central-1:123456789012:abc/prod/GET/",
        "abc/prod/GET/tasks",
    ] {
        let outcome = allowed(method_arn).await;
        assert!(
            matches!(outcome, Err(AuthError::NotAMethodArn(_))),
            "{method_arn}: {outcome:?}"
        );
    }
}
