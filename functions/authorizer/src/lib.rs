//! Authorizes requests: a REQUEST authorizer of an API Gateway REST API (Amazon API Gateway
//! Developer Guide, "Use API Gateway Lambda authorizers").
//!
//! A caller with a token of the issuer, a JWT signed with RS256 or ES256, may call everything
//! except `/admin`, which requires the admin scope. With the viewer scope it may read everything,
//! and nothing else. Without a valid token API Gateway responds with 401, without the scope with 403. If no decision is possible, because the issuer is unreachable
//! and its keys are not cached, the response is a 500: the token may be valid.
//!
//! Tokens are secrets: neither errors nor logs contain any part of one.

mod crypto;
mod event;
mod keys;
mod policy;
mod token;

use std::time::SystemTime;

use confique::Config;
use lambda_runtime::Diagnostic;
use serde_json::Value;
use shared::{
    config::{self, Auth, AuthConfig, ConfigError},
    telemetry,
};

pub use event::Event;
pub use keys::{Jwks, JwksUrl, KeysError};
pub use policy::NotAMethodArn;
pub use token::{Identity, Refusal, Verifier};

/// What a token must satisfy.
#[derive(Config)]
pub struct Settings {
    /// The issuer of the tokens: their exact `iss`.
    #[config(env = "JWT_ISSUER", validate = not_empty)]
    pub jwt_issuer: String,
    /// The audience of the tokens: one of their `aud`.
    #[config(env = "JWT_AUDIENCE", validate = not_empty)]
    pub jwt_audience: String,
    /// Where the issuer publishes its keys: the `jwks_uri` of its
    /// `/.well-known/openid-configuration`. By default `/.well-known/jwks.json` below the issuer,
    /// as for Amazon Cognito and Auth0.
    #[config(env = "JWKS_URL")]
    pub jwks_url: Option<JwksUrl>,
    /// The issuer's keys themselves, if the issuer does not publish them, like the local one. Then
    /// nothing is fetched.
    #[config(env = "JWKS")]
    pub jwks: Option<Jwks>,
    /// The admin scope. Cognito prefixes it with a resource server, as in `tasks/admin`.
    #[config(env = "ADMIN_SCOPE", default = "admin", validate = not_empty)]
    pub admin_scope: String,
    /// The scope of operators who may see everything and change nothing.
    #[config(env = "VIEWER_SCOPE", default = "viewer", validate = not_empty)]
    pub viewer_scope: String,
}

fn not_empty(text: &impl AsRef<str>) -> Result<(), &'static str> {
    if text.as_ref().is_empty() {
        Err("must not be empty")
    } else {
        Ok(())
    }
}

/// The settings are missing or invalid: the function cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A setting is missing or malformed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Neither `JWKS_URL` nor `JWKS` is set, and the issuer is not a URL below which there could be
    /// keys.
    #[error("JWKS_URL or JWKS must be set, because JWT_ISSUER {0}")]
    NoKeys(&'static str),
}

/// Why a request is not authorized.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// 401: API Gateway returns it only for an error whose message is exactly this word (Amazon API
    /// Gateway Developer Guide, the examples in "Use API Gateway Lambda authorizers").
    #[error("Unauthorized")]
    Unauthorized(#[from] Refusal),
    /// 500: the token cannot be verified.
    #[error("the issuer's keys are unavailable")]
    NoKeys(#[from] KeysError),
    /// 500: the event does not come from API Gateway.
    #[error(transparent)]
    NotAMethodArn(#[from] NotAMethodArn),
}

impl From<AuthError> for Diagnostic {
    fn from(error: AuthError) -> Self {
        match error {
            // Without its cause: with any other message, API Gateway returns a 500.
            AuthError::Unauthorized(_) => Self {
                error_type: "Unauthorized".to_owned(),
                error_message: error.to_string(),
            },
            _ => telemetry::diagnostic("AuthError", &error),
        }
    }
}

/// Authorizes requests.
pub enum Authorizer {
    /// Every caller is an anonymous admin. Only for a stack that no one else can reach.
    Open,
    /// Callers need a valid token.
    Closed(Box<Verifier>),
}

impl Authorizer {
    /// Closed, unless the environment variable `AUTH` is `open`.
    pub fn from_env() -> Result<Self, SetupError> {
        match config::from_env::<AuthConfig>()?.auth {
            Auth::Open => Ok(Self::Open),
            Auth::Closed => Self::closed(config::from_env()?),
        }
    }

    /// Closed, with these settings.
    pub fn closed(settings: Settings) -> Result<Self, SetupError> {
        Verifier::new(settings).map(Box::new).map(Self::Closed)
    }

    async fn identify(&self, event: &Event, now: u64) -> Result<Identity, AuthError> {
        match self {
            Self::Open => Ok(Identity::anonymous()),
            Self::Closed(verifier) => verifier.verify(event.token()?, now).await,
        }
    }
}

/// Identifies the caller and returns the policy for the stage.
pub async fn handle(authorizer: &Authorizer, event: &Event, now: u64) -> Result<Value, AuthError> {
    let stage = policy::stage(&event.method_arn)?;
    let identity = authorizer.identify(event, now).await?;
    Ok(policy::response(stage, &identity))
}

/// Seconds since 1970. Not an `Instant`, which may not advance while Lambda freezes the execution
/// environment.
pub fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}
