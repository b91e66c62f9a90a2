//! How a request carries its token, and how API Gateway learns of a refusal.

use authorizer::{AuthError, Event, Refusal, handle};
use lambda_runtime::Diagnostic;
use serde_json::{Value, json};

use super::{
    METHOD, NOW,
    issuer::{Key, jwks},
    with_keys,
};

fn event_with(headers: Value, multi_value_headers: Value) -> Event {
    let event = json!({ "methodArn": METHOD, "headers": headers, "multiValueHeaders": multi_value_headers });
    serde_json::from_value(event).expect("an event")
}

#[tokio::test]
async fn bearer_scheme_is_case_insensitive() {
    let key = Key::es256();
    let authorizer = with_keys(&jwks(&[key.jwk("k")]));
    let token = key.valid("k");
    for name in ["Authorization", "authorization", "AUTHORIZATION"] {
        for scheme in ["Bearer ", "bearer ", "BEARER  "] {
            let value = format!("{scheme}{token}");
            for event in [
                event_with(
                    json!({ name: value, "Accept": "*/*" }),
                    json!({ name: [value], "Accept": ["a", "b"] }),
                ),
                event_with(json!({ name: value }), Value::Null),
                event_with(Value::Null, json!({ name: [value] })),
                event_with(json!({ name: value, "X-Null": null }), Value::Null),
                event_with(
                    Value::Null,
                    json!({ name: [value, null], "X-Null": null, "X-Nulls": [null] }),
                ),
            ] {
                handle(&authorizer, &event, NOW).await.expect("valid");
            }
        }
    }
}

#[tokio::test]
async fn missing_or_repeated_bearer_token_is_refused() {
    let key = Key::es256();
    let authorizer = with_keys(&jwks(&[key.jwk("k")]));
    let token = key.valid("k");
    let bearer = format!("Bearer {token}");
    for event in [
        event_with(Value::Null, Value::Null),
        event_with(json!({}), json!({})),
        event_with(json!({ "Authorization": "" }), Value::Null),
        event_with(json!({ "Authorization": token }), Value::Null),
        event_with(json!({ "Authorization": "Bearer" }), Value::Null),
        event_with(json!({ "Authorization": "Bearer " }), Value::Null),
        event_with(json!({ "Authorization": format!("Basic {token}") }), Value::Null),
        event_with(json!({ "Authorization": format!(" {bearer}") }), Value::Null),
        event_with(json!({ "Authorization": format!("Bearer\t{token}") }), Value::Null),
        event_with(json!({ "X-Authorization": bearer }), Value::Null),
        // Two tokens: API Gateway's cache may use either as its key.
        event_with(
            json!({ "Authorization": bearer }),
            json!({ "Authorization": [bearer, bearer] }),
        ),
        event_with(
            json!({ "Authorization": bearer }),
            json!({ "Authorization": [bearer], "authorization": ["Bearer x"] }),
        ),
        event_with(json!({ "Authorization": bearer, "authorization": bearer }), Value::Null),
        // `multiValueHeaders` is complete; `headers` only repeats it.
        event_with(json!({ "Authorization": bearer }), json!({})),
    ] {
        let outcome = handle(&authorizer, &event, NOW).await;
        assert!(
            matches!(outcome, Err(AuthError::Unauthorized(Refusal::NoToken))),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn token_has_at_most_8_kib() {
    let key = Key::es256();
    let authorizer = with_keys(&jwks(&[key.jwk("k")]));
    let padded = |length: usize| {
        let empty = key.token_with("k", json!({ "padding": "" })).len();
        key.token_with("k", json!({ "padding": "x".repeat((length - empty) * 3 / 4) }))
    };
    let just = padded(8 * 1024);
    assert!((8 * 1024 - 4..=8 * 1024).contains(&just.len()), "{}", just.len());
    super::present(&authorizer, &just, NOW).await.expect("valid");
    for token in [padded(8 * 1024 + 8), "x".repeat(8 * 1024 + 1), "x".repeat(1024 * 1024)] {
        assert_eq!(super::refusal(&authorizer, &token).await, Refusal::TooLarge);
    }
}

#[tokio::test]
async fn refusal_becomes_401_without_details() {
    let key = Key::es256();
    let authorizer = with_keys(&jwks(&[key.jwk("k")]));
    let secret = "eyJzZWNyZXQ";
    for authorization in [
        format!("Bearer {secret}.{secret}.{secret}"),
        format!("Basic {secret}"),
        format!("Bearer {}", key.token_with("k", json!({ "exp": secret }))),
        format!("Bearer {}", key.token_with("k", json!({ "iss": secret }))),
        format!("Bearer {}", key.token_with("k", json!({ "aud": [secret] }))),
        format!(
            "Bearer {}",
            key.token(&json!({ "alg": secret, "kid": secret }), &json!({}))
        ),
        format!(
            "Bearer {}",
            key.token(&json!({ "alg": "ES256", "kid": secret }), &json!({}))
        ),
    ] {
        let outcome = handle(&authorizer, &super::event(&authorization), NOW).await;
        let error = outcome.expect_err("refused");
        // The runtime logs this text.
        assert!(!format!("{error:?}").contains(secret), "{error:?}");
        let diagnostic = Diagnostic::from(error);
        assert_eq!(
            serde_json::to_value(diagnostic).expect("serializable"),
            json!({ "errorType": "Unauthorized", "errorMessage": "Unauthorized" })
        );
    }
}

#[tokio::test]
async fn malformed_event_is_an_error_but_not_401() {
    let event: Event = serde_json::from_value(json!({ "methodArn": "nonsense" })).expect("an event");
    let error = handle(&authorizer::Authorizer::Open, &event, NOW)
        .await
        .expect_err("no ARN");
    assert_eq!(
        Diagnostic::from(error).error_message,
        "the event's methodArn is not the ARN of an API Gateway method"
    );
    assert!(serde_json::from_value::<Event>(json!({})).is_err());
}
