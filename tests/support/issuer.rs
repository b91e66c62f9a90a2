//! Keys to sign with, and a server that publishes them.

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

/// The issuer of the tests' tokens.
pub const ISSUER: &str = "https://issuer.example";

/// Their audience.
pub const AUDIENCE: &str = "tasks";

/// When the tests take place, in seconds since 1970: in 2027.
pub const NOW: u64 = 1_800_000_000;

pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key to sign with.
pub enum Key {
    Es256(Box<EcdsaKeyPair>),
    Rs256(Box<RsaKeyPair>),
    Hs256(Vec<u8>),
}

impl Key {
    /// A new one.
    pub fn es256() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("random numbers");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random);
        Self::Es256(Box::new(key.expect("a key")))
    }

    /// The one there is.
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

    /// A token with this header and these claims, whatever they are.
    pub fn token(&self, header: &Value, claims: &Value) -> String {
        self.token_of(&header.to_string(), &claims.to_string())
    }

    /// A token of these texts.
    pub fn token_of(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", base64(header), base64(claims));
        let signature = base64(self.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    /// A token as it should be, signed with the key of this name, but for these claims. `null` removes one.
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

    /// A token as it should be.
    pub fn valid(&self, kid: &str) -> String {
        self.token_with(kid, json!({}))
    }

    /// The public half.
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

/// A key set.
pub fn jwks(keys: &[Value]) -> Value {
    json!({ "keys": keys })
}

/// What the server does when it is asked.
#[derive(Clone)]
pub enum Answer {
    /// Sends this with status 200.
    Body(String),
    /// Sends this status line and headers, and the keys all the same.
    Head(&'static str, String),
    /// Accepts, and says nothing.
    Nothing,
    /// Sends the head and half of a body, and then nothing.
    Half,
    /// Hangs up.
    HangUp,
}

/// Publishes keys at `http://127.0.0.1:<port>/keys`.
pub struct Server {
    pub url: String,
    state: Arc<State>,
}

struct State {
    answer: Mutex<Answer>,
    asked: AtomicUsize,
}

impl Server {
    pub async fn start(keys: &[Value]) -> Self {
        Self::start_at("127.0.0.1:0", jwks(keys).to_string()).await
    }

    pub async fn start_at(address: &str, jwks: String) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
        let state = Arc::new(State {
            answer: Mutex::new(Answer::Body(jwks)),
            asked: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.asked.fetch_add(1, Ordering::SeqCst);
                let answer = shared.answer.lock().expect("not poisoned").clone();
                tokio::spawn(serve(stream, answer));
            }
        });
        Self { url, state }
    }

    pub fn answer(&self, answer: Answer) {
        *self.state.answer.lock().expect("not poisoned") = answer;
    }

    pub fn publish(&self, keys: &[Value]) {
        self.answer(Answer::Body(jwks(keys).to_string()));
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, answer: Answer) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    assert!(request.starts_with(b"GET /keys HTTP/1.1\r\n"));
    match answer {
        Answer::Body(body) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await
        }
        Answer::Head(head, body) => {
            let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await
        }
        Answer::Nothing => std::future::pending().await,
        Answer::Half => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"keys\":")
                .await?;
            std::future::pending().await
        }
        Answer::HangUp => Ok(()),
    }
}
