//! Logging in to Postgres: with the user and password of a URL, or as a role with an IAM token.
//!
//! A token is a presigned request, computed locally. It serves as the password of one role on one
//! server for 15 minutes (Amazon Aurora User Guide, "Connecting to your DB cluster using IAM
//! authentication"). Each new connection signs its own, so no function has a password that could
//! leak.

use std::str::FromStr;

use confique::Config;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use sqlx::{
    ConnectOptions, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use time::OffsetDateTime;

use crate::{
    config::{self, AwsCredentials, ConfigError},
    signature::{self, Signer},
};

/// The certificate authorities of RDS; see rds-ca/README.md for their origin.
const RDS_CA: &[u8] = include_bytes!("../../rds-ca/rds-ca.pem");

/// All characters except the unreserved ones of a URI (AWS General Reference, "Create a signed AWS
/// API request").
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The location of the database and the role of the function.
#[derive(Config)]
struct DatabaseConfig {
    /// `postgres://user:password@host:port/database?sslmode=...`. Without a user, the function logs
    /// in as its role, with an IAM token.
    #[config(env = "DATABASE_URL")]
    database_url: DatabaseUrl,
    /// The database role of the function. If the URL has a user, as locally, the session switches
    /// to this role, so that local runs also exercise its grants.
    #[config(env = "DATABASE_ROLE")]
    database_role: Option<String>,
}

/// A valid connection URL.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct DatabaseUrl {
    options: PgConnectOptions,
    has_user: bool,
}

impl TryFrom<String> for DatabaseUrl {
    type Error = &'static str;

    fn try_from(url: String) -> Result<Self, Self::Error> {
        // The message does not contain the text, which may include a password.
        let invalid = "must be a URL like postgres://user:password@host:5432/database";
        let options = url.parse().map_err(|_| invalid)?;
        let (_, after_scheme) = url.split_once("://").ok_or(invalid)?;
        let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or_default();
        let has_user = authority.contains('@');
        Ok(Self { options, has_user })
    }
}

/// How to open connections to Postgres.
#[derive(Clone)]
pub struct Login {
    options: PgConnectOptions,
    iam: Option<Iam>,
}

#[derive(Clone)]
struct Iam {
    role: String,
    credentials: AwsCredentials,
}

impl From<PgConnectOptions> for Login {
    fn from(options: PgConnectOptions) -> Self {
        Self { options, iam: None }
    }
}

impl FromStr for Login {
    type Err = sqlx::Error;

    /// A login with a URL: `postgres://user:password@host/database`.
    fn from_str(url: &str) -> Result<Self, Self::Err> {
        url.parse::<PgConnectOptions>().map(Self::from)
    }
}

impl Login {
    /// The login described by the environment.
    pub fn from_env() -> Result<Self, ConfigError> {
        let config: DatabaseConfig = config::from_env()?;
        let DatabaseUrl { options, has_user } = config.database_url;
        match config.database_role {
            Some(role) if has_user => Ok(options.options([("role", role)]).into()),
            Some(role) => Ok(Self::as_role(options, role, config::from_env()?)),
            None => Ok(options.into()),
        }
    }

    /// A login as this role, with a new token for each connection. TLS always verifies that the
    /// server has an RDS certificate for its host name, whatever the options specify, so that no
    /// other server receives a token.
    pub fn as_role(options: PgConnectOptions, role: String, credentials: AwsCredentials) -> Self {
        let options = options.username(&role).ssl_mode(PgSslMode::VerifyFull);
        let iam = Some(Iam { role, credentials });
        Self { options, iam }.trusting(RDS_CA)
    }

    /// Replaces the trusted certificate authorities; tests use their own.
    pub fn trusting(self, authorities: &[u8]) -> Self {
        let options = self.options.ssl_root_cert_from_pem(authorities.to_vec());
        Self { options, ..self }
    }

    /// The same login to another database of the server.
    pub fn to_database(self, name: &str) -> Self {
        let options = self.options.database(name);
        Self { options, ..self }
    }

    /// The same login with settings for each session.
    pub fn with_settings<const N: usize>(self, settings: [(&str, &str); N]) -> Self {
        let options = self.options.options(settings);
        Self { options, ..self }
    }

    /// True for a role with IAM tokens, false for a user with a password.
    pub fn is_by_token(&self) -> bool {
        self.iam.is_some()
    }

    /// The name of the database.
    pub fn database(&self) -> &str {
        // As in Postgres, the default is the name of the user.
        let options = &self.options;
        options.get_database().unwrap_or(options.get_username())
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let Some(Iam { role, credentials }) = &self.iam else {
            return self.options.connect().await;
        };
        let (host, port) = (self.options.get_host(), self.options.get_port());
        let token = auth_token(credentials, host, port, role, OffsetDateTime::now_utc());
        self.options.clone().password(&token).connect().await
    }
}

/// The IAM token of a database role, valid for 15 minutes from `now`.
///
/// It is a presigned request (AWS General Reference, "Create a signed AWS API request") without its
/// scheme.
pub fn auth_token(credentials: &AwsCredentials, host: &str, port: u16, role: &str, now: OffsetDateTime) -> String {
    let signer = Signer::new(credentials, "rds-db", now);
    let credential = signer.credential();
    // Sorted by name, as the signature requires.
    let parameters = [
        ("Action", Some("connect")),
        ("DBUser", Some(role)),
        ("X-Amz-Algorithm", Some("AWS4-HMAC-SHA256")),
        ("X-Amz-Credential", Some(&credential)),
        ("X-Amz-Date", Some(&signer.moment)),
        ("X-Amz-Expires", Some("900")),
        ("X-Amz-Security-Token", credentials.session_token.as_deref()),
        ("X-Amz-SignedHeaders", Some("host")),
    ];
    let parameters = parameters.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let parameters = parameters.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, RESERVED)));
    let query = parameters.collect::<Vec<_>>().join("&");
    let no_body = signature::digest("");
    let signature = signer.sign(&format!("GET\n/\n{query}\nhost:{host}:{port}\n\nhost\n{no_body}"));
    format!("{host}:{port}/?{query}&X-Amz-Signature={signature}")
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn invalid_database_url_is_not_leaked() {
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
    fn url_with_or_without_user_is_parsed() {
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

    fn credentials(session_token: Option<&str>) -> AwsCredentials {
        AwsCredentials {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: session_token.map(str::to_owned),
            region: "eu-central-1".to_owned(),
        }
    }

    #[test]
    fn token_matches_botocore() {
        // From generate_db_auth_token of botocore 1.43.127, which orders the parameters
        // differently.
        let now = OffsetDateTime::from_unix_timestamp(1_795_387_412).expect("a time");
        let host = "tasks.cluster-c1.eu-central-1.rds.amazonaws.com";
        let common = "Action=connect&DBUser=reader&X-Amz-Algorithm=AWS4-HMAC-SHA256\
            &X-Amz-Credential=AKIDEXAMPLE%2F20261122%2Feu-central-1%2Frds-db%2Faws4_request\
            &X-Amz-Date=20261122T224332Z&X-Amz-SignedHeaders=host&X-Amz-Expires=900";
        for (session_token, rest) in [
            (
                None,
                "&X-Amz-Signature=d377bee6b194605325db7963be24b2a5e8e8cd585e37b977d8d4ecbfa6c56176",
            ),
            (
                Some("IQoJb3JpZ2luX2VjEA//+/=a b~c"),
                "&X-Amz-Security-Token=IQoJb3JpZ2luX2VjEA%2F%2F%2B%2F%3Da%20b~c\
                 &X-Amz-Signature=4d31ce9fc2431e33ecc4552f059892747c69afb41630533858e90eafe62a115e",
            ),
        ] {
            let token = auth_token(&credentials(session_token), host, 5432, "reader", now);
            let query = token.strip_prefix(&format!("{host}:5432/?")).expect("the server");
            let botocores = format!("{common}{rest}");
            assert_eq!(sorted(query), sorted(&botocores));
        }
    }

    fn sorted(query: &str) -> Vec<&str> {
        let mut parameters: Vec<&str> = query.split('&').collect();
        parameters.sort_unstable();
        parameters
    }

    #[test]
    fn rds_ca_matches_checksum_in_readme() {
        let readme = include_str!("../../rds-ca/README.md");
        let sum = format!("{:x}", Sha256::digest(RDS_CA));
        assert!(readme.contains(&sum), "rds-ca.pem has the sum {sum}");
    }
}
