//! What the environment must provide. Each function takes only the parts it needs.

use confique::Config;
use serde::Deserialize;
use sqlx::postgres::PgConnectOptions;

use crate::store::Login;

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

/// Where the database is, and as whom to log in.
#[derive(Config)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host:port/database?sslmode=...`. Without a user the function logs in as its role, with
    /// an IAM token.
    #[config(env = "DATABASE_URL")]
    database_url: DatabaseUrl,
    /// What the function may do. A user of the URL, as on a laptop, takes this role for the session, so that what the
    /// roles may do is tried there, too.
    #[config(env = "DATABASE_ROLE")]
    database_role: Option<String>,
}

impl DatabaseConfig {
    /// How to connect.
    pub fn into_login(self) -> Result<Login, ConfigError> {
        let DatabaseUrl { options, has_user } = self.database_url;
        match self.database_role {
            Some(role) if has_user => Ok(options.options([("role", role)]).into()),
            Some(role) => Ok(Login::as_role(options, role, from_env()?)),
            None => Ok(options.into()),
        }
    }
}

/// A valid connection URL.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub struct DatabaseUrl {
    options: PgConnectOptions,
    has_user: bool,
}

impl TryFrom<String> for DatabaseUrl {
    type Error = &'static str;

    fn try_from(url: String) -> Result<Self, Self::Error> {
        // Says nothing of the text itself, which may hold a password.
        let invalid = "must be a URL like postgres://user:password@host:5432/database";
        let options = url.parse().map_err(|_| invalid)?;
        let (_, after_scheme) = url.split_once("://").ok_or(invalid)?;
        let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or_default();
        let has_user = authority.contains('@');
        Ok(Self { options, has_user })
    }
}

/// Who the function is to AWS: Lambda puts it into each function's environment (AWS Lambda Developer Guide, "Defined
/// runtime environment variables"). It stays the same for as long as the execution environment lives.
#[derive(Clone, Config)]
pub struct AwsIdentity {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_url_is_parsed_and_a_wrong_one_is_not_repeated_in_the_error() {
        let url = DatabaseUrl::try_from("postgres://u:p@db:6000/tasks".to_owned()).expect("valid");
        let options = url.options;
        assert_eq!(
            (options.get_host(), options.get_port(), options.get_database()),
            ("db", 6000, Some("tasks"))
        );
        let error = DatabaseUrl::try_from("postgres://u:s3cret@db:port/tasks".to_owned())
            .map(|_| ())
            .expect_err("invalid");
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[test]
    fn a_url_has_a_user_or_leaves_it_to_the_role() {
        for (url, has_user) in [
            ("postgres://u:p@db:6000/tasks", true),
            ("postgres://u@db/tasks", true),
            ("postgres://db:5432/tasks?sslmode=verify-full", false),
            ("postgres://db?application_name=a@b", false),
        ] {
            let parsed = DatabaseUrl::try_from(url.to_owned()).expect("valid");
            assert_eq!(parsed.has_user, has_user, "{url}");
        }
    }
}
