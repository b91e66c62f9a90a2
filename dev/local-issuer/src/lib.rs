//! The token issuer of the local stack: a key in a file, and tokens signed with it.
//!
//! The authorizer receives the public key in its `JWKS` setting, so that no server has to publish
//! it. template.yaml rejects that setting in AWS, where these tokens are therefore invalid.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};

/// The `iss` of the tokens. `.invalid` never resolves (RFC 2606).
pub const ISSUER: &str = "https://local.invalid";

/// The `aud` of the tokens.
pub const AUDIENCE: &str = "task-api";

/// The `kid` of the only key.
const KEY_ID: &str = "local";

/// Why the key could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or created.
    #[error("the key file cannot be read or created")]
    File(#[from] io::Error),
    /// The file contains no valid key.
    #[error("the key file contains no ES256 key; delete it")]
    NotAKey,
}

pub struct LocalIssuer {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl LocalIssuer {
    /// With the key in this file, which is created if missing, readable only by its owner.
    pub fn open(file: &Path) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        if !file.exists() {
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
            let pkcs8 = pkcs8.map_err(|_| io::Error::other("no random numbers"))?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
            file.write_all(pkcs8.as_ref())?;
        }
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &fs::read(file)?, &random);
        let key = key.map_err(|_| KeyError::NotAKey)?;
        Ok(Self { key, random })
    }

    /// The public key as a JWK Set (RFC 7517), for the authorizer's `JWKS` setting.
    pub fn jwks(&self) -> String {
        // An uncompressed point: 4, x, y (SEC 1, section 2.3.3).
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate));
        let key = json!({ "kid": KEY_ID, "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "x": x, "y": y });
        json!({ "keys": [key] }).to_string()
    }

    /// A token for this subject with these space-separated scopes, valid from now.
    pub fn token(&self, subject: &str, scope: &str, lifetime: Duration) -> String {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let expires = now.saturating_add(lifetime.as_secs());
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "scope": scope, "iat": now, "exp": expires,
        });
        let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let message = format!(
            "{}.{}",
            part(&json!({ "alg": "ES256", "kid": KEY_ID, "typ": "JWT" })),
            part(&claims)
        );
        let signature = self.key.sign(&self.random, message.as_bytes());
        let signature = signature.expect("the operating system has random numbers");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
