//! What the environment must provide. Each function takes only the parts it needs.

use confique::Config;
use serde::Deserialize;
use sqlx::postgres::PgConnectOptions;

/// The environment lacks something, or has it in the wrong form: the function cannot start.
#[derive(Debug, thiserror::Error)]
#[error("the function's environment is not complete")]
pub struct ConfigError(#[source] confique::Error);

/// Reads `C` from environment variables.
pub fn from_env<C: Config>() -> Result<C, ConfigError> {
    C::builder().env().load().map_err(ConfigError)
}

/// Where the database is.
#[derive(Config)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host:port/database?sslmode=...`
    #[config(env = "DATABASE_URL")]
    database_url: DatabaseUrl,
}

impl DatabaseConfig {
    /// The options to connect with.
    pub fn into_options(self) -> PgConnectOptions {
        self.database_url.0
    }
}

/// A valid connection URL.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub struct DatabaseUrl(PgConnectOptions);

impl TryFrom<String> for DatabaseUrl {
    type Error = &'static str;

    fn try_from(url: String) -> Result<Self, Self::Error> {
        // Says nothing of the text itself, which may hold a password.
        url.parse()
            .map(Self)
            .map_err(|_| "must be a URL like postgres://user:password@host:5432/database")
    }
}
