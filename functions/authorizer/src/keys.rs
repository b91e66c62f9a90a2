//! The issuer's public keys (RFC 7517), fetched when they are needed and kept while they are good.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use lambda_http::http::{StatusCode, Uri};
use serde::Deserialize;
use shared::telemetry;
use tokio::{sync::Mutex, time::timeout};

use crate::SetupError;

/// After how many seconds the keys are fetched again. A key that the issuer withdraws counts for as long.
const MAX_AGE: u64 = 60 * 60;

/// For how many seconds keys are used if the issuer cannot be asked again.
const MAX_STALE: u64 = 24 * 60 * 60;

/// How many seconds pass between two fetches, whatever comes: tokens with made-up keys must not become requests to the
/// issuer.
const PAUSE: u64 = 5;

/// How long a fetch may take as a whole. The client waits.
const FETCH_TIMEOUT: Duration = Duration::from_millis(1500);

/// The most bytes of a key set. Cognito's has 1 KiB, the largest known some 20.
const MAX_BODY: usize = 64 * 1024;

/// Why the issuer's keys are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It did not answer in time.
    #[error("the issuer did not send its keys in time")]
    TimedOut,
    /// There is no connection, or it broke.
    #[error("the issuer cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It answered something else than 200. Redirects are not followed.
    #[error("the issuer answered {0} instead of its keys")]
    Status(StatusCode),
    /// It answered more than any key set has.
    #[error("the issuer answered more than {MAX_BODY} bytes")]
    TooLarge,
    /// What it answered, or what the setting says, is something else.
    #[error("it is not a JWK Set")]
    NotAKeySet(#[source] serde_json::Error),
    /// There is no key in it that we can use.
    #[error("no key in the JWK Set is for RS256 or ES256")]
    NoKey,
    /// The last fetch failed, and the next may not begin yet.
    #[error("the issuer was asked less than {PAUSE} s ago")]
    Paused,
}

/// A key to verify signatures with.
#[derive(Clone)]
pub struct Key {
    kid: String,
    /// The one algorithm that the key is for.
    pub algorithm: Algorithm,
    /// The key itself.
    pub decoding_key: DecodingKey,
}

/// The keys for RS256 and ES256 in a key set, given as JSON.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Jwks(Vec<Key>);

impl TryFrom<String> for Jwks {
    type Error = KeysError;

    fn try_from(json: String) -> Result<Self, KeysError> {
        Self::parse(json.as_bytes())
    }
}

impl Jwks {
    fn parse(json: &[u8]) -> Result<Self, KeysError> {
        let set: JwkSet = serde_json::from_slice(json).map_err(KeysError::NotAKeySet)?;
        let keys: Vec<Key> = set.keys.iter().filter_map(usable).collect();
        if keys.is_empty() {
            Err(KeysError::NoKey)
        } else {
            Ok(Self(keys))
        }
    }

    fn find(&self, kid: &str) -> Option<Key> {
        self.0.iter().find(|key| key.kid == kid).cloned()
    }
}

/// The key, if it has a name and is meant for signatures that we verify. Others are none of our business.
fn usable(jwk: &Jwk) -> Option<Key> {
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        _ => return None,
    };
    let common = &jwk.common;
    let operations = common.key_operations.as_ref();
    let is_for_it = common.key_algorithm.is_none_or(|algorithm| algorithm == name)
        && common
            .public_key_use
            .as_ref()
            .is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    Some(Key {
        kid: common.key_id.clone().filter(|_| is_for_it)?,
        algorithm,
        decoding_key: DecodingKey::from_jwk(jwk).ok()?,
    })
}

/// Where an issuer publishes its keys: an `https` URL, or an `http` one of this machine.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct JwksUrl(Uri);

impl TryFrom<String> for JwksUrl {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let uri: Uri = text.parse().map_err(|_| "is not a URL")?;
        let host = uri.host().unwrap_or_default();
        match uri.scheme_str() {
            Some("https") if !host.is_empty() => Ok(Self(uri)),
            Some("http") if matches!(host, "127.0.0.1" | "[::1]" | "localhost") => Ok(Self(uri)),
            // Whoever is in between could send keys of their own.
            _ => Err("is not an https URL"),
        }
    }
}

/// The keys of one issuer.
pub enum Keys {
    /// As they were given.
    Given(Jwks),
    /// As it publishes them.
    Published(Box<Published>),
}

impl Keys {
    /// Those given, else those at the URL, else those below the issuer. Fetches nothing yet.
    pub fn new(given: Option<Jwks>, url: Option<JwksUrl>, issuer: &str) -> Result<Self, SetupError> {
        match (given, url) {
            (Some(keys), _) => Ok(Self::Given(keys)),
            (None, Some(url)) => Ok(Self::Published(Box::new(Published::new(url)))),
            (None, None) => {
                let url = format!("{}/.well-known/jwks.json", issuer.trim_end_matches('/'));
                let url = JwksUrl::try_from(url).map_err(SetupError::NoKeys)?;
                Ok(Self::Published(Box::new(Published::new(url))))
            }
        }
    }

    /// The key of this name, `None` if the issuer has none. At a time in seconds since 1970.
    pub async fn find(&self, kid: &str, now: u64) -> Result<Option<Key>, KeysError> {
        match self {
            Self::Given(keys) => Ok(keys.find(kid)),
            Self::Published(published) => published.find(kid, now).await,
        }
    }
}

/// Keys that are fetched over HTTPS.
pub struct Published {
    url: Uri,
    client: Client<HttpsConnector<HttpConnector>, Empty<&'static [u8]>>,
    /// Locked during a fetch, so that there is one at a time.
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// The keys, and when they were fetched.
    keys: Option<(Jwks, u64)>,
    /// When they were last asked for.
    asked: Option<u64>,
}

impl Published {
    fn new(JwksUrl(url): JwksUrl) -> Self {
        let connector = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http();
        // A kept connection would be dead by the next fetch, an hour later.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector.enable_http1().build());
        Self {
            url,
            client,
            memory: Mutex::default(),
        }
    }

    /// Asks the issuer if the keys are old, or this one is not among them: it may be new.
    async fn find(&self, kid: &str, now: u64) -> Result<Option<Key>, KeysError> {
        let mut memory = self.memory.lock().await;
        let known = memory
            .keys
            .as_ref()
            .and_then(|(keys, since)| Some((keys.find(kid)?, now.abs_diff(*since))));
        if let Some((key, age)) = known
            && age < MAX_AGE
        {
            return Ok(Some(key));
        }
        let failure = if memory.asked.is_some_and(|asked| now.abs_diff(asked) < PAUSE) {
            KeysError::Paused
        } else {
            memory.asked = Some(now);
            match self.fetch().await {
                Ok(keys) => {
                    let found = keys.find(kid);
                    memory.keys = Some((keys, now));
                    return Ok(found);
                }
                Err(error) => {
                    telemetry::log_error(&error, "the issuer's keys could not be fetched");
                    error
                }
            }
        };
        match &memory.keys {
            Some((keys, since)) if now.abs_diff(*since) < MAX_STALE => Ok(keys.find(kid)),
            _ => Err(failure),
        }
    }

    async fn fetch(&self) -> Result<Jwks, KeysError> {
        let fetch = async {
            let answer = self.client.get(self.url.clone()).await;
            let answer = answer.map_err(|error| KeysError::Unreachable(error.into()))?;
            if answer.status() != StatusCode::OK {
                return Err(KeysError::Status(answer.status()));
            }
            let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
            let body = body.map_err(|error| match error.is::<LengthLimitError>() {
                true => KeysError::TooLarge,
                false => KeysError::Unreachable(error),
            })?;
            Jwks::parse(&body.to_bytes())
        };
        timeout(FETCH_TIMEOUT, fetch).await.unwrap_or(Err(KeysError::TimedOut))
    }
}
