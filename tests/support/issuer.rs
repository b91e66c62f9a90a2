//! Signing keys, tokens, and a server that publishes the key set.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The `iss` of the tests' tokens.
pub const ISSUER: &str = "https://issuer.example";

/// The `aud` of the tests' tokens.
pub const AUDIENCE: &str = "tasks";

/// The current time in the tests, in seconds since 1970: in 2027.
pub const NOW: u64 = 1_800_000_000;

pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A signing key.
pub enum Key {
    Es256(Box<EcdsaKeyPair>),
    Rs256(Box<RsaKeyPair>),
    Hs256(Vec<u8>),
}

impl Key {
    /// A new key.
    pub fn es256() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("random numbers");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random);
        Self::Es256(Box::new(key.expect("a key")))
    }

    /// The fixed key of tests/api/authorizer/keys.
    pub fn rs256() -> Self {
        let key = RsaKeyPair::from_der(include_bytes!("../api/authorizer/keys/rsa-2048.der"));
        Self::Rs256(Box::new(key.expect("a key")))
    }

    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Es256(_) => "ES256",
            Self::Rs256(_) => "RS256",
            Self::Hs256(_) => "HS256",
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Es256(key) => key.sign(&random, message).expect("random numbers").as_ref().to_vec(),
            Self::Rs256(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .expect("a signature");
                signature
            }
            Self::Hs256(secret) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                hmac::sign(&key, message).as_ref().to_vec()
            }
        }
    }

    /// A token with this header and these claims, valid or not.
    pub fn token(&self, header: &Value, claims: &Value) -> String {
        self.token_of(&header.to_string(), &claims.to_string())
    }

    /// A token with this text as its header and claims, JSON or not.
    pub fn token_of(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", base64(header), base64(claims));
        let signature = base64(self.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    /// A valid token, except for these changes to its claims; `null` removes a claim.
    pub fn token_with(&self, kid: &str, changes: Value) -> String {
        let mut claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW + 300, "nbf": NOW, "iat": NOW,
        });
        for (name, value) in changes.as_object().expect("claims") {
            claims[name] = value.clone();
        }
        claims
            .as_object_mut()
            .expect("claims")
            .retain(|_, value| !value.is_null());
        self.token(&json!({ "alg": self.algorithm(), "kid": kid, "typ": "JWT" }), &claims)
    }

    /// A valid token.
    pub fn valid(&self, kid: &str) -> String {
        self.token_with(kid, json!({}))
    }

    /// The public key.
    pub fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Es256(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({ "kid": kid, "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig",
                        "x": base64(x), "y": base64(y) })
            }
            Self::Rs256(key) => {
                let RsaPublicKeyComponents::<Vec<u8>> { n, e } = key.public().into();
                json!({ "kid": kid, "kty": "RSA", "alg": "RS256", "use": "sig", "n": base64(n), "e": base64(e) })
            }
            Self::Hs256(secret) => json!({ "kid": kid, "kty": "oct", "alg": "HS256", "k": base64(secret) }),
        }
    }
}

pub fn jwks(keys: &[Value]) -> Value {
    json!({ "keys": keys })
}

/// How the server responds to a fetch.
#[derive(Clone)]
pub enum KeysResponse {
    /// Sends this body with status 200.
    Body(String),
    /// Sends this status line with headers, and this body.
    Head(&'static str, String),
    /// Accepts the connection but never responds.
    Hang,
    /// Sends the head and part of the body, then nothing.
    HangMidBody,
    /// Closes the connection.
    Close,
}

/// Publishes keys at `http://127.0.0.1:<port>/keys`.
pub struct JwksServer {
    pub url: String,
    state: Arc<State>,
}

struct State {
    response: Mutex<KeysResponse>,
    fetches: AtomicUsize,
}

impl JwksServer {
    pub async fn start(keys: &[Value]) -> Self {
        Self::start_at("127.0.0.1:0", jwks(keys).to_string()).await
    }

    pub async fn start_at(address: &str, jwks: String) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
        let state = Arc::new(State {
            response: Mutex::new(KeysResponse::Body(jwks)),
            fetches: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.fetches.fetch_add(1, Ordering::SeqCst);
                let response = shared.response.lock().expect("not poisoned").clone();
                tokio::spawn(serve(stream, response));
            }
        });
        Self { url, state }
    }

    pub fn respond_with(&self, response: KeysResponse) {
        *self.state.response.lock().expect("not poisoned") = response;
    }

    pub fn publish(&self, keys: &[Value]) {
        self.respond_with(KeysResponse::Body(jwks(keys).to_string()));
    }

    /// How often keys were fetched.
    pub fn fetches(&self) -> usize {
        self.state.fetches.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, response: KeysResponse) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    assert!(request.starts_with(b"GET /keys HTTP/1.1\r\n"));
    match response {
        KeysResponse::Body(body) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await
        }
        KeysResponse::Head(head, body) => {
            let response = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(response.as_bytes()).await
        }
        KeysResponse::Hang => std::future::pending().await,
        KeysResponse::HangMidBody => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"keys\":")
                .await?;
            std::future::pending().await
        }
        KeysResponse::Close => Ok(()),
    }
}
