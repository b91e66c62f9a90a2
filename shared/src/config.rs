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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_url_is_parsed_and_a_wrong_one_is_not_repeated_in_the_error() {
        let DatabaseUrl(options) = DatabaseUrl::try_from("postgres://u:p@db:6000/tasks".to_owned()).expect("valid");
        assert_eq!(
            (options.get_host(), options.get_port(), options.get_database()),
            ("db", 6000, Some("tasks"))
        );
        let error = DatabaseUrl::try_from("postgres://u:s3cret@db:port/tasks".to_owned())
            .map(|_| ())
            .expect_err("invalid");
        assert!(!error.contains("s3cret"), "{error}");
    }
}
