//! Which tokens are valid, and what they say (RFC 7519; the pitfalls are those of RFC 8725).

use jsonwebtoken::{
    Algorithm, Validation, decode, decode_header,
    errors::{Error, ErrorKind},
};
use serde::Deserialize;

use crate::{AuthError, Settings, SetupError, crypto, keys::Keys};

/// By how many seconds the issuer's clock and ours may differ.
const CLOCK_SKEW: f64 = 60.0;

/// The most characters of a subject (OpenID Connect Core 1.0, section 2, "sub").
const MAX_SUBJECT: usize = 255;

/// Why a token does not count. The client is told nothing of it; the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no `Authorization: Bearer`, or more than one.
    #[error("there is no bearer token")]
    NoToken,
    /// It is longer than any header that API Gateway lets through may be.
    #[error("the token is too large")]
    TooLarge,
    /// It is not a JWT, or its header or claims are not of the form they must be.
    #[error("the token is malformed")]
    Malformed,
    /// It is signed, if at all, in another way than the issuer's key is for.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// It does not say with which of the issuer's keys it is signed, or the issuer has no such key.
    #[error("the token's key is unknown")]
    UnknownKey,
    /// It was not signed by the issuer, or changed since.
    #[error("the token's signature is wrong")]
    Signature,
    /// It is of another issuer, or of none.
    #[error("the token is not of our issuer")]
    Issuer,
    /// It is for another audience, or for none.
    #[error("the token is not for us")]
    Audience,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
}

impl From<Error> for Refusal {
    /// Without the library's texts, which may quote the token.
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => Self::Algorithm,
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::InvalidAudience => Self::Audience,
            _ => Self::Malformed,
        }
    }
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The issuer's name for them, of printable ASCII characters.
    pub subject: String,
    /// What they were allowed.
    pub scopes: Vec<String>,
    /// Whether the admin scope is among that.
    pub is_admin: bool,
}

impl Identity {
    /// Everybody, where everybody may do everything.
    pub fn anonymous() -> Self {
        Self {
            subject: "anonymous".to_owned(),
            scopes: Vec::new(),
            is_admin: true,
        }
    }
}

/// What we read of a token's claims. A member of another type makes the token malformed.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    aud: Option<OneOrMany>,
    client_id: Option<String>,
    token_use: Option<String>,
    scope: Option<OneOrMany>,
    scp: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    /// The scopes in it: a text with spaces (RFC 8693, section 4.2; Microsoft Entra's `scp`), or a list (Okta's `scp`).
    /// What has a character that no scope has (RFC 6749, section 3.3) is none, so that joined they stay the same.
    fn into_scopes(self) -> impl Iterator<Item = String> {
        let texts = match self {
            Self::One(text) => text.split(' ').map(str::to_owned).collect(),
            Self::Many(texts) => texts,
        };
        let is_scope = |text: &String| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        texts.into_iter().filter(is_scope)
    }
}

/// Tells valid tokens from others.
pub struct Verifier {
    issuer: String,
    audience: String,
    admin_scope: String,
    keys: Keys,
}

impl Verifier {
    /// Accepts what these settings say. Fetches nothing yet.
    pub fn new(settings: Settings) -> Result<Self, SetupError> {
        crypto::install();
        Ok(Self {
            keys: Keys::new(settings.jwks, settings.jwks_url, &settings.jwt_issuer)?,
            issuer: settings.jwt_issuer,
            audience: settings.jwt_audience,
            admin_scope: settings.admin_scope,
        })
    }

    /// Who calls with this token at this time, in seconds since 1970.
    pub async fn verify(&self, token: &str, now: u64) -> Result<Identity, AuthError> {
        let header = decode_header(token).map_err(Refusal::from)?;
        // Before anything is fetched for it.
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
            return Err(Refusal::Algorithm.into());
        }
        // An extension that must be understood and is not (RFC 7515, section 4.1.11): we know none.
        if header.crit.is_some() {
            return Err(Refusal::Malformed.into());
        }
        let kid = header.kid.as_deref().ok_or(Refusal::UnknownKey)?;
        let key = self.keys.find(kid, now).await?.ok_or(Refusal::UnknownKey)?;

        // The algorithm is the key's, and the token's must be the same (RFC 8725, section 3.1).
        let mut rules = Validation::new(key.algorithm);
        rules.set_issuer(&[&self.issuer]);
        rules.set_audience(&[&self.audience]);
        rules.set_required_spec_claims(&["exp", "iss", "sub"]);
        // `judge` does, by the caller's clock.
        rules.validate_exp = false;
        let claims: Claims = decode(token, &key.decoding_key, &rules).map_err(Refusal::from)?.claims;
        Ok(self.judge(claims, now)?)
    }

    /// What `decode` has not looked at: the times, and what Cognito does its own way.
    fn judge(&self, claims: Claims, now: u64) -> Result<Identity, Refusal> {
        // Cognito's access tokens name whom they are for in `client_id`. API Gateway's own JWT authorizers read them
        // like this, too (Amazon API Gateway Developer Guide, "Control access to HTTP APIs with JWT authorizers").
        if claims.aud.is_none() && claims.client_id.as_ref() != Some(&self.audience) {
            return Err(Refusal::Audience);
        }
        // An ID token tells the client who its user is. It is no permission to call anything.
        if claims.token_use.is_some_and(|usage| usage != "access") {
            return Err(Refusal::Audience);
        }
        let now = now as f64;
        if now >= claims.exp + CLOCK_SKEW {
            return Err(Refusal::Expired);
        }
        if claims.nbf.is_some_and(|nbf| now < nbf - CLOCK_SKEW) {
            return Err(Refusal::NotYetValid);
        }
        // It becomes part of log lines, rows and headers.
        let sub = claims.sub;
        if sub.is_empty() || sub.len() > MAX_SUBJECT || !sub.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(Refusal::Malformed);
        }
        let scopes: Vec<String> = [claims.scope, claims.scp]
            .into_iter()
            .flatten()
            .flat_map(OneOrMany::into_scopes)
            .collect();
        Ok(Identity {
            is_admin: scopes.contains(&self.admin_scope),
            subject: sub,
            scopes,
        })
    }
}
