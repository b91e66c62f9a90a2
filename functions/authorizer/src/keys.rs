//! The issuer's public keys (RFC 7517), fetched on demand and cached.

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

/// After how many seconds the keys are fetched again. A key that the issuer withdraws is accepted
/// for that long.
const MAX_AGE: u64 = 60 * 60;

/// For how many seconds cached keys are used while the issuer is unreachable.
const MAX_STALE: u64 = 24 * 60 * 60;

/// The minimum time between two fetches, in seconds: tokens with made-up key ids must not cause a
/// request to the issuer each.
const MIN_FETCH_INTERVAL: u64 = 5;

/// The timeout of a fetch as a whole. Meanwhile the client waits.
const FETCH_TIMEOUT: Duration = Duration::from_millis(1500);

/// The maximum size of a key set, in bytes. Cognito's has 1 KiB, the largest known about 20 KiB.
const MAX_BODY: usize = 64 * 1024;

/// Why the issuer's keys are unavailable.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The issuer did not respond in time.
    #[error("the issuer did not send its keys in time")]
    TimedOut,
    /// There is no connection, or it was interrupted.
    #[error("the issuer cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The response is not a 200. Redirects are not followed.
    #[error("the issuer responded with {0} instead of its keys")]
    Status(StatusCode),
    /// The response is larger than any known key set.
    #[error("the issuer's response exceeds {MAX_BODY} bytes")]
    TooLarge,
    /// The response, or the setting, cannot be parsed.
    #[error("the keys are not a JWK Set")]
    NotAKeySet(#[source] serde_json::Error),
    /// The set contains no usable key.
    #[error("no key in the JWK Set is for RS256 or ES256")]
    NoKey,
    /// The last fetch failed, and the next is not allowed yet.
    #[error("the last fetch was less than {MIN_FETCH_INTERVAL} s ago")]
    Paused,
}

/// A key to verify signatures with.
#[derive(Clone)]
pub struct Key {
    kid: String,
    /// The only algorithm that the key may be used with.
    pub algorithm: Algorithm,
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

/// The key, if it has a `kid` and may verify RS256 or ES256.
fn usable(jwk: &Jwk) -> Option<Key> {
    let (algorithm, key_algorithm) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        _ => return None,
    };
    let common = &jwk.common;
    let operations = common.key_operations.as_ref();
    let is_usable = common.key_algorithm.is_none_or(|algorithm| algorithm == key_algorithm)
        && common
            .public_key_use
            .as_ref()
            .is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    Some(Key {
        kid: common.key_id.clone().filter(|_| is_usable)?,
        algorithm,
        decoding_key: DecodingKey::from_jwk(jwk).ok()?,
    })
}

/// Where an issuer publishes its keys: an `https` URL, or an `http` URL of this host.
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
            // Otherwise an attacker on the network path could substitute the keys.
            _ => Err("is not an https URL"),
        }
    }
}

/// The keys of one issuer.
pub enum Keys {
    /// Given in the settings.
    Given(Jwks),
    /// Published by the issuer.
    Published(Box<Published>),
}

impl Keys {
    /// The given keys, else those at the URL, else those below the issuer's URL. Fetches nothing
    /// yet.
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

    /// The key with this id; `None` if the issuer has no such key. `now` is in seconds since 1970.
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
    /// Locked during a fetch, so that only one runs at a time.
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    /// The keys, and when they were fetched.
    keys: Option<(Jwks, u64)>,
    /// When the last fetch began.
    last_fetch: Option<u64>,
}

impl Published {
    fn new(JwksUrl(url): JwksUrl) -> Self {
        let connector = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http();
        // A pooled connection would be dead by the next fetch, an hour later.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector.enable_http1().build());
        Self {
            url,
            client,
            cache: Mutex::default(),
        }
    }

    /// Fetches the keys if they are stale or do not include this one, which may be new.
    async fn find(&self, kid: &str, now: u64) -> Result<Option<Key>, KeysError> {
        let mut cache = self.cache.lock().await;
        let known = cache
            .keys
            .as_ref()
            .and_then(|(keys, since)| Some((keys.find(kid)?, now.abs_diff(*since))));
        if let Some((key, age)) = known
            && age < MAX_AGE
        {
            return Ok(Some(key));
        }
        let is_too_early = |last: u64| now.abs_diff(last) < MIN_FETCH_INTERVAL;
        let failure = if cache.last_fetch.is_some_and(is_too_early) {
            KeysError::Paused
        } else {
            cache.last_fetch = Some(now);
            match self.fetch().await {
                Ok(keys) => {
                    let found = keys.find(kid);
                    cache.keys = Some((keys, now));
                    return Ok(found);
                }
                Err(error) => {
                    telemetry::log_error(&error, "the issuer's keys could not be fetched");
                    error
                }
            }
        };
        match &cache.keys {
            Some((keys, since)) if now.abs_diff(*since) < MAX_STALE => Ok(keys.find(kid)),
            _ => Err(failure),
        }
    }

    async fn fetch(&self) -> Result<Jwks, KeysError> {
        let fetch = async {
            let response = self.client.get(self.url.clone()).await;
            let response = response.map_err(|error| KeysError::Unreachable(error.into()))?;
            if response.status() != StatusCode::OK {
                return Err(KeysError::Status(response.status()));
            }
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
            let body = body.map_err(|error| match error.is::<LengthLimitError>() {
                true => KeysError::TooLarge,
                false => KeysError::Unreachable(error),
            })?;
            Jwks::parse(&body.to_bytes())
        };
        timeout(FETCH_TIMEOUT, fetch).await.unwrap_or(Err(KeysError::TimedOut))
    }
}
