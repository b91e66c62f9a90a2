//! What the environment must provide. Each function takes only the parts it needs.

use confique::Config;
use serde::Deserialize;

/// The environment lacks something, or has it in the wrong form: the function cannot start.
#[derive(Debug, thiserror::Error)]
#[error("the function's environment is not complete")]
pub struct ConfigError(#[source] confique::Error);

/// Reads `C` from environment variables.
pub fn from_env<C: Config>() -> Result<C, ConfigError> {
    C::builder().env().load().map_err(ConfigError)
}

/// Who may call.
#[derive(Config)]
pub struct AuthConfig {
    /// `closed` or `open`.
    #[config(env = "AUTH", default = "closed")]
    pub auth: Auth,
}

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Whom the authorizer lets through.
    Closed,
    /// Everybody, as an anonymous admin. Only for a stack that nobody else can reach.
    Open,
}

/// The function's credentials and region: Lambda puts them into each function's environment (AWS Lambda Developer Guide,
/// "Defined runtime environment variables"). They stay the same for as long as the execution environment lives.
#[derive(Clone, Config)]
pub struct AwsCredentials {
    /// The id of the key.
    #[config(env = "AWS_ACCESS_KEY_ID")]
    pub access_key_id: String,
    /// The key.
    #[config(env = "AWS_SECRET_ACCESS_KEY")]
    pub secret_access_key: String,
    /// Proof that the key is a temporary one, as those of Lambda are.
    #[config(env = "AWS_SESSION_TOKEN")]
    pub session_token: Option<String>,
    /// The region that the function and its database are in.
    #[config(env = "AWS_REGION")]
    pub region: String,
}
