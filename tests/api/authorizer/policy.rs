//! What API Gateway is answered.

use authorizer::{AuthError, Authorizer, Event, handle};
use serde_json::{Value, json};

use super::{
    NOW,
    issuer::{Key, jwks},
    knowing, present,
};

fn called(method_arn: &str) -> Event {
    serde_json::from_value(json!({ "methodArn": method_arn })).expect("an event")
}

/// The resources that may be called, when everybody may call.
async fn allowed(method_arn: &str) -> Result<Value, AuthError> {
    let answer = handle(&Authorizer::Open, &called(method_arn), NOW).await?;
    Ok(answer["policyDocument"]["Statement"][0]["Resource"].clone())
}

#[tokio::test]
async fn admin_may_call_whole_stage() {
    let key = Key::es256();
    let token = key.token_with("k", json!({ "scope": "read admin" }));
    let answer = present(&knowing(&jwks(&[key.jwk("k")])), &token, NOW)
        .await
        .expect("valid");
    assert_eq!(
        answer,
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
    let answer = present(&knowing(&jwks(&[key.jwk("k")])), &token, NOW)
        .await
        .expect("valid");
    assert_eq!(
        answer,
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
        let answer = handle(&Authorizer::Open, &event, NOW).await.expect("allowed");
        assert_eq!(
            answer,
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
        // A path with colons, slashes, wildcards and percent signs: it is the client's, and not in the policy.
        (
            "arn:aws:execute-api:eu-central-1:123456789012:abc/prod/GET/tasks/arn:aws:x/*/?/%2F//..",
            "arn:aws:execute-api:eu-central-1:123456789012:abc/prod/*",
        ),
        // API Gateway's console, when it tests an authorizer.
        (
            "arn:aws:execute-api:eu-central-1:123456789012:abc/ESTestInvoke-stage/GET/",
            "arn:aws:execute-api:eu-central-1:123456789012:abc/ESTestInvoke-stage/*",
        ),
        // ministack.
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
