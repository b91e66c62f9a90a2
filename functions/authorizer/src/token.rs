//! Verification of tokens (RFC 7519), according to the best practices of RFC 8725.

use jsonwebtoken::{
    Algorithm, Validation, decode, decode_header,
    errors::{Error, ErrorKind},
};
use serde::Deserialize;

use crate::{AuthError, Settings, SetupError, crypto, keys::Keys};

/// The tolerated difference between the issuer's clock and ours, in seconds.
const CLOCK_SKEW: f64 = 60.0;

/// The maximum length of a subject (OpenID Connect Core 1.0, section 2, "sub").
const MAX_SUBJECT: usize = 255;

/// Why a token is rejected. The reason is logged, but not returned to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No `Authorization: Bearer`, or more than one.
    #[error("there is no bearer token")]
    NoToken,
    /// Longer than `MAX_TOKEN`.
    #[error("the token is too large")]
    TooLarge,
    /// Not a JWT, or its header or claims are malformed.
    #[error("the token is malformed")]
    Malformed,
    /// Unsigned, or signed with another algorithm than the issuer's key is for.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// It has no `kid`, or the issuer has no such key.
    #[error("the token's key is unknown")]
    UnknownKey,
    /// Not signed by the issuer, or modified since.
    #[error("the token's signature is wrong")]
    Signature,
    /// Issued by another issuer, or by none.
    #[error("the token has another issuer")]
    Issuer,
    /// Issued for another audience, or for none.
    #[error("the token has another audience")]
    Audience,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
}

impl From<Error> for Refusal {
    /// Drops the library's messages, which may quote the token.
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

/// The caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The issuer's identifier of the caller, in printable ASCII characters.
    pub subject: String,
    /// The granted scopes.
    pub scopes: Vec<String>,
    /// Whether the admin scope is among them.
    pub is_admin: bool,
    /// Whether the viewer scope is among them, and the admin scope is not.
    pub is_viewer: bool,
}

impl Identity {
    /// Every caller of an open stack.
    pub fn anonymous() -> Self {
        Self {
            subject: "anonymous".to_owned(),
            scopes: Vec::new(),
            is_admin: true,
            is_viewer: false,
        }
    }
}

/// The claims that we read. A claim of another type makes the token malformed.
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
    /// The scopes in it: a text with spaces (RFC 8693, section 4.2; Microsoft Entra's `scp`), or a
    /// list (Okta's `scp`). A text with a character that is invalid in scopes (RFC 6749, section
    /// 3.3) is dropped: joining the scopes with spaces and splitting them again yields the same
    /// scopes.
    fn into_scopes(self) -> impl Iterator<Item = String> {
        let texts = match self {
            Self::One(text) => text.split(' ').map(str::to_owned).collect(),
            Self::Many(texts) => texts,
        };
        let is_scope = |text: &String| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        texts.into_iter().filter(is_scope)
    }
}

/// Verifies tokens.
pub struct Verifier {
    issuer: String,
    audience: String,
    admin_scope: String,
    viewer_scope: String,
    keys: Keys,
}

impl Verifier {
    /// Fetches no keys yet.
    pub fn new(settings: Settings) -> Result<Self, SetupError> {
        crypto::install();
        Ok(Self {
            keys: Keys::new(settings.jwks, settings.jwks_url, &settings.jwt_issuer)?,
            issuer: settings.jwt_issuer,
            audience: settings.jwt_audience,
            admin_scope: settings.admin_scope,
            viewer_scope: settings.viewer_scope,
        })
    }

    /// The caller with this token. `now` is in seconds since 1970.
    pub async fn verify(&self, token: &str, now: u64) -> Result<Identity, AuthError> {
        let header = decode_header(token).map_err(Refusal::from)?;
        // Checked before any key is fetched.
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
            return Err(Refusal::Algorithm.into());
        }
        // Critical extensions must be understood (RFC 7515, section 4.1.11), and we support none.
        if header.crit.is_some() {
            return Err(Refusal::Malformed.into());
        }
        let kid = header.kid.as_deref().ok_or(Refusal::UnknownKey)?;
        let key = self.keys.find(kid, now).await?.ok_or(Refusal::UnknownKey)?;

        // The key determines the algorithm, and the token's must match (RFC 8725, section 3.1).
        let mut rules = Validation::new(key.algorithm);
        rules.set_issuer(&[&self.issuer]);
        rules.set_audience(&[&self.audience]);
        rules.set_required_spec_claims(&["exp", "iss", "sub"]);
        // `check_claims` checks it against `now`.
        rules.validate_exp = false;
        let claims: Claims = decode(token, &key.decoding_key, &rules).map_err(Refusal::from)?.claims;
        Ok(self.check_claims(claims, now)?)
    }

    /// Checks what `decode` does not: the times, and the claims specific to Cognito.
    fn check_claims(&self, claims: Claims, now: u64) -> Result<Identity, Refusal> {
        // Cognito's access tokens contain the audience in `client_id`. API Gateway's own JWT
        // authorizers read them in the same way (Amazon API Gateway Developer Guide, "Control
        // access to HTTP APIs with JWT authorizers").
        if claims.aud.is_none() && claims.client_id.as_ref() != Some(&self.audience) {
            return Err(Refusal::Audience);
        }
        // An ID token identifies the user to the client. It does not authorize API calls.
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
        // The subject becomes part of log lines, rows and headers.
        let sub = claims.sub;
        if sub.is_empty() || sub.len() > MAX_SUBJECT || !sub.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(Refusal::Malformed);
        }
        let scopes: Vec<String> = [claims.scope, claims.scp]
            .into_iter()
            .flatten()
            .flat_map(OneOrMany::into_scopes)
            .collect();
        let is_admin = scopes.contains(&self.admin_scope);
        Ok(Identity {
            is_admin,
            is_viewer: !is_admin && scopes.contains(&self.viewer_scope),
            subject: sub,
            scopes,
        })
    }
}
