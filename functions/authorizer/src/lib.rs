//! Decides who may call the API: a REQUEST authorizer of an API Gateway REST API (Amazon API Gateway Developer Guide,
//! "Use API Gateway Lambda authorizers").
//!
//! Whoever has a token of the issuer, a JWT signed with RS256 or ES256, may call everything but `/admin`; with the
//! admin scope, that too. Who has none gets API Gateway's 401, who lacks the scope its 403. If the decision cannot be
//! made, because the issuer is down and its keys are not known, it is a 500: the client's token may well be valid.
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

/// What tokens must be like.
#[derive(Config)]
pub struct Settings {
    /// Who issues the tokens: their `iss`, to the letter.
    #[config(env = "JWT_ISSUER", validate = not_empty)]
    pub jwt_issuer: String,
    /// Whom the tokens are for: one of their `aud`.
    #[config(env = "JWT_AUDIENCE", validate = not_empty)]
    pub jwt_audience: String,
    /// Where the issuer publishes its keys: the `jwks_uri` of its `/.well-known/openid-configuration`. By default where
    /// Amazon Cognito and Auth0 have it, at `/.well-known/jwks.json` below the issuer.
    #[config(env = "JWKS_URL")]
    pub jwks_url: Option<JwksUrl>,
    /// The issuer's keys themselves, for an issuer that publishes none: the local one. Then nothing is fetched.
    #[config(env = "JWKS")]
    pub jwks: Option<Jwks>,
    /// The scope that makes an admin. Cognito puts a resource server in front of it, like `tasks/admin`.
    #[config(env = "ADMIN_SCOPE", default = "admin", validate = not_empty)]
    pub admin_scope: String,
}

fn not_empty(text: &impl AsRef<str>) -> Result<(), &'static str> {
    if text.as_ref().is_empty() {
        Err("must not be empty")
    } else {
        Ok(())
    }
}

/// The function's environment does not say who may call: it cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A setting is missing or has the wrong form.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Neither `JWKS_URL` nor `JWKS` is set, and the issuer is not a URL below which there could be keys.
    #[error("JWKS_URL or JWKS must be set, because JWT_ISSUER {0}")]
    NoKeys(&'static str),
}

/// Why there is no answer but an error.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// 401: API Gateway makes one of an error only if its message is this word and nothing else (Amazon API Gateway
    /// Developer Guide, the examples in "Use API Gateway Lambda authorizers").
    #[error("Unauthorized")]
    Unauthorized(#[from] Refusal),
    /// 500: the token cannot be judged.
    #[error("the issuer's keys are not known")]
    NoKeys(#[from] KeysError),
    /// 500: it is not API Gateway that calls.
    #[error(transparent)]
    NotAMethodArn(#[from] NotAMethodArn),
}

impl From<AuthError> for Diagnostic {
    fn from(error: AuthError) -> Self {
        match error {
            // Without its cause, which would make it a 500.
            AuthError::Unauthorized(_) => Self {
                error_type: "Unauthorized".to_owned(),
                error_message: error.to_string(),
            },
            _ => telemetry::diagnostic("AuthError", &error),
        }
    }
}

/// Who may call.
pub enum Authorizer {
    /// Everybody, as an anonymous admin. Only for a stack that nobody else can reach.
    Open,
    /// Whoever has a valid token.
    Closed(Box<Verifier>),
}

impl Authorizer {
    /// As the environment says: closed, unless `AUTH` is `open`.
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

/// Answers API Gateway: who calls, and what of the stage they may call.
pub async fn handle(authorizer: &Authorizer, event: &Event, now: u64) -> Result<Value, AuthError> {
    let stage = policy::stage(&event.method_arn)?;
    let identity = authorizer.identify(event, now).await?;
    Ok(policy::answer(stage, &identity))
}

/// Seconds since 1970, the time of all functions here. Not an `Instant`, which may stand still while Lambda has
/// the execution environment frozen.
pub fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}
