//! Configuration from environment variables. Each function reads only the parts that it needs.

use confique::Config;
use serde::Deserialize;

/// An environment variable is missing or invalid, so the function cannot start.
#[derive(Debug, thiserror::Error)]
#[error("an environment variable is missing or invalid")]
pub struct ConfigError(#[source] confique::Error);

/// Reads `C` from environment variables.
pub fn from_env<C: Config>() -> Result<C, ConfigError> {
    C::builder().env().load().map_err(ConfigError)
}

/// The authentication settings of a function.
#[derive(Config)]
pub struct AuthConfig {
    /// `closed` or `open`.
    #[config(env = "AUTH", default = "closed")]
    pub auth: Auth,
}

/// Whether requests must be authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Only callers that the authorizer accepts.
    Closed,
    /// Unauthenticated: every caller is an anonymous admin. Only for local stacks.
    Open,
}

/// The function's credentials and region, set by Lambda (AWS Lambda Developer Guide, "Defined
/// runtime environment variables"). They do not change during the lifetime of an execution
/// environment.
#[derive(Clone, Config)]
pub struct AwsCredentials {
    #[config(env = "AWS_ACCESS_KEY_ID")]
    pub access_key_id: String,
    #[config(env = "AWS_SECRET_ACCESS_KEY")]
    pub secret_access_key: String,
    /// Present with temporary keys, such as those of Lambda.
    #[config(env = "AWS_SESSION_TOKEN")]
    pub session_token: Option<String>,
    /// The region of the function and its database.
    #[config(env = "AWS_REGION")]
    pub region: String,
}
