//! The authorizer, called with the events that API Gateway sends: real keys, and a real server that publishes them.

mod caller;
mod keys;
mod local;
mod policy;
mod properties;
mod requests;
mod tokens;

use authorizer::{AuthError, Authorizer, Event, Jwks, JwksUrl, Refusal, Settings, handle};
use serde_json::{Value, json};

use crate::support::issuer::{self, AUDIENCE, ISSUER, NOW};

/// What is called.
const METHOD: &str = "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/prod/GET/tasks/7";

fn settings() -> Settings {
    Settings {
        jwt_issuer: ISSUER.to_owned(),
        jwt_audience: AUDIENCE.to_owned(),
        jwks_url: None,
        jwks: None,
        admin_scope: "admin".to_owned(),
    }
}

/// An authorizer that was given these keys.
fn knowing(jwks: &Value) -> Authorizer {
    let jwks = Jwks::try_from(jwks.to_string()).expect("a key set");
    let settings = Settings {
        jwks: Some(jwks),
        ..settings()
    };
    Authorizer::closed(settings).expect("complete settings")
}

/// An authorizer that fetches its keys.
fn fetching(url: &str) -> Authorizer {
    let url = JwksUrl::try_from(url.to_owned()).expect("an URL");
    let settings = Settings {
        jwks_url: Some(url),
        ..settings()
    };
    Authorizer::closed(settings).expect("complete settings")
}

/// What API Gateway asks if the header has this value.
fn event(authorization: &str) -> Event {
    let event = json!({
        "type": "REQUEST",
        "methodArn": METHOD,
        "headers": { "Authorization": authorization },
        "multiValueHeaders": { "Authorization": [authorization] },
    });
    serde_json::from_value(event).expect("an event")
}

/// What becomes of a request with this token.
async fn present(authorizer: &Authorizer, token: &str, now: u64) -> Result<Value, AuthError> {
    handle(authorizer, &event(&format!("Bearer {token}")), now).await
}

/// Why a request with this token is refused.
async fn refusal(authorizer: &Authorizer, token: &str) -> Refusal {
    refusal_at(authorizer, token, NOW).await
}

async fn refusal_at(authorizer: &Authorizer, token: &str, now: u64) -> Refusal {
    match present(authorizer, token, now).await {
        Err(AuthError::Unauthorized(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}
