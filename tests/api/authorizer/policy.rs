//! The policy and context that the authorizer returns to API Gateway.

use std::fs;

use authorizer::{AuthError, Authorizer, Event, handle};
use regex::{Captures, Regex};
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
            "context": { "sub": "alice", "scope": "read admin", "admin": "true", "viewer": "false" },
        })
    );
}

#[tokio::test]
async fn viewer_may_only_read() {
    let key = Key::es256();
    let token = key.token_with("k", json!({ "scope": "viewer" }));
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
                    "Resource": [
                        "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/prod/GET/*",
                        "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/prod/HEAD/*",
                    ],
                }],
            },
            "context": { "sub": "alice", "scope": "viewer", "admin": "false", "viewer": "true" },
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
            "context": { "sub": "alice", "scope": "read", "admin": "false", "viewer": "false" },
        })
    );
}

/// The format of API Gateway's access log.
fn access_log_format() -> String {
    let template = fs::read_to_string("../template.yaml").expect("the template");
    let (_, format) = template.split_once("Format: >-\n").expect("a folded format");
    let indentation = format.len() - format.trim_start().len();
    let is_inside = |line: &&str| line.len() - line.trim_start().len() == indentation;
    let lines: Vec<&str> = format.lines().take_while(is_inside).map(str::trim).collect();
    lines.join(" ")
}

/// A value of a variable of the access log, as awkward as clients can make it.
fn logged_value<'a>(variable: &str, principal: &'a str) -> &'a str {
    match variable {
        "authorizer.principalId" => principal,
        // A method is a token (RFC 9110, section 5.6.2).
        "httpMethod" => "!#$%&'*+-.^_`|~a1",
        // Clients can choose it, but it is a UUID, or becomes one with this suffix (Amazon API
        // Gateway Developer Guide, "Access logging for REST APIs").
        "requestId" => "5f0a7c1e-0a4e-4b7c-9a53-1b6f9f3f0c11_REPLACED_INVALID_REQUEST_ID",
        // Chosen by API Gateway or by the template.
        "extendedRequestId" => "dK3mTHdjliAFkAA=",
        "xrayTraceId" => "1-5759e988-bd862e3fe1be46a994272793",
        "identity.sourceIp" => "2001:db8::7",
        "resourcePath" => "/{proxy+}",
        "requestTimeEpoch" | "status" | "responseLength" | "responseLatency" => "200",
        // Missing, if the authorizer refuses the request.
        "integration.status" | "integration.latency" | "authorizer.latency" | "error.responseType" => "-",
        _ => panic!("can a client put a quote into $context.{variable}?"),
    }
}

#[tokio::test]
async fn hostile_subject_does_not_break_access_log() {
    let key = Key::es256();
    let variable = Regex::new(r"\$context\.([A-Za-z.]+)").expect("a pattern");
    let mut logged = Vec::new();
    let subjects = [
        "alice",
        r#"","status":200,"subject":"admin"#,
        r#"""#,
        r"\",
        r"a\n\u0022",
        "%22",
        "100% {$context.status}",
        "a|b<c>'d`",
    ];
    for sub in subjects {
        let token = key.token_with("k", json!({ "sub": sub }));
        let response = present(&with_keys(&jwks(&[key.jwk("k")])), &token, NOW).await;
        let response = response.expect("valid");
        assert_eq!(response["context"]["sub"], sub, "the functions' value");
        let principal = response["principalId"].as_str().expect("text");
        let format = access_log_format();
        let line = variable.replace_all(&format, |found: &Captures| {
            logged_value(&found[1], principal).to_owned()
        });
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(
            line.as_object().map(|members| members.len()),
            Some(format.matches("\":").count())
        );
        let subject = line["subject"].as_str().expect("text");
        let decoded = subject.replace("%22", "\"").replace("%5C", "\\").replace("%25", "%");
        assert_eq!(decoded, sub, "{subject}");
        logged.push(subject.to_owned());
    }
    logged.sort_unstable();
    logged.dedup();
    assert_eq!(logged.len(), subjects.len(), "two subjects look the same: {logged:?}");
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
                "context": { "sub": "anonymous", "scope": "", "admin": "true", "viewer": "false" },
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
