//! The authorizer, called with the events that API Gateway sends, with real keys and a server that
//! publishes them.

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

/// The ARN of the method that the events call.
const METHOD: &str = "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/prod/GET/tasks/7";

fn settings() -> Settings {
    Settings {
        jwt_issuer: ISSUER.to_owned(),
        jwt_audience: AUDIENCE.to_owned(),
        jwks_url: None,
        jwks: None,
        admin_scope: "admin".to_owned(),
        viewer_scope: "viewer".to_owned(),
    }
}

/// An authorizer with these keys in its settings.
fn with_keys(jwks: &Value) -> Authorizer {
    let jwks = Jwks::try_from(jwks.to_string()).expect("a key set");
    let settings = Settings {
        jwks: Some(jwks),
        ..settings()
    };
    Authorizer::closed(settings).expect("complete settings")
}

/// An authorizer that fetches its keys from this URL.
fn with_jwks_url(url: &str) -> Authorizer {
    let url = JwksUrl::try_from(url.to_owned()).expect("a URL");
    let settings = Settings {
        jwks_url: Some(url),
        ..settings()
    };
    Authorizer::closed(settings).expect("complete settings")
}

/// API Gateway's event for a request with this `Authorization` header.
fn event(authorization: &str) -> Event {
    let event = json!({
        "type": "REQUEST",
        "methodArn": METHOD,
        "headers": { "Authorization": authorization },
        "multiValueHeaders": { "Authorization": [authorization] },
    });
    serde_json::from_value(event).expect("an event")
}

/// Calls the authorizer with this token.
async fn present(authorizer: &Authorizer, token: &str, now: u64) -> Result<Value, AuthError> {
    handle(authorizer, &event(&format!("Bearer {token}")), now).await
}

/// The reason why this token is refused.
async fn refusal(authorizer: &Authorizer, token: &str) -> Refusal {
    refusal_at(authorizer, token, NOW).await
}

async fn refusal_at(authorizer: &Authorizer, token: &str, now: u64) -> Refusal {
    match present(authorizer, token, now).await {
        Err(AuthError::Unauthorized(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}
