//! Fetching and caching the issuer's keys.

use std::time::{Duration, Instant};

use authorizer::{AuthError, Authorizer, JwksUrl, KeysError, Refusal, SetupError};

use super::{
    NOW,
    issuer::{JwksServer, Key, KeysResponse, jwks},
    present, settings, with_jwks_url,
};

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

/// The outcome of a request with this token, as a short name.
async fn outcome(authorizer: &Authorizer, token: &str, now: u64) -> &'static str {
    match present(authorizer, token, now).await {
        Ok(_) => "valid",
        Err(AuthError::Unauthorized(Refusal::UnknownKey)) => "unknown key",
        Err(AuthError::NoKeys(KeysError::Paused)) => "paused",
        Err(AuthError::NoKeys(_)) => "no keys",
        Err(error) => panic!("{error:?}"),
    }
}

/// A token that is valid for ten days.
fn long_lived_token(key: &Key, kid: &str) -> String {
    key.token_with(kid, serde_json::json!({ "exp": NOW + 10 * DAY }))
}

#[tokio::test]
async fn keys_are_fetched_once_an_hour() {
    let key = Key::es256();
    let server = JwksServer::start(&[key.jwk("k")]).await;
    let authorizer = with_jwks_url(&server.url);
    assert_eq!(server.fetches(), 0, "before the first request");
    let token = long_lived_token(&key, "k");
    for (now, fetches) in [
        (NOW, 1),
        (NOW + 1, 1),
        (NOW + HOUR - 1, 1),
        (NOW + HOUR, 2),
        (NOW + HOUR + 1, 2),
    ] {
        assert_eq!(outcome(&authorizer, &token, now).await, "valid");
        assert_eq!(server.fetches(), fetches, "{now}");
    }
}

#[tokio::test]
async fn first_token_of_new_key_fetches_keys() {
    let (old, new) = (Key::rs256(), Key::es256());
    let server = JwksServer::start(&[old.jwk("old")]).await;
    let authorizer = with_jwks_url(&server.url);
    assert_eq!(outcome(&authorizer, &long_lived_token(&old, "old"), NOW).await, "valid");

    server.publish(&[old.jwk("old"), new.jwk("new")]);
    assert_eq!(
        outcome(&authorizer, &long_lived_token(&new, "new"), NOW + 60).await,
        "valid"
    );
    assert_eq!(
        outcome(&authorizer, &long_lived_token(&old, "old"), NOW + 60).await,
        "valid"
    );
    assert_eq!(server.fetches(), 2);

    // A withdrawn key stays valid until the next fetch.
    server.publish(&[new.jwk("new")]);
    assert_eq!(
        outcome(&authorizer, &long_lived_token(&old, "old"), NOW + 70).await,
        "valid"
    );
    assert_eq!(
        outcome(&authorizer, &long_lived_token(&new, "new"), NOW + 60 + HOUR).await,
        "valid"
    );
    assert_eq!(
        outcome(&authorizer, &long_lived_token(&old, "old"), NOW + 61 + HOUR).await,
        "unknown key"
    );
}

#[tokio::test]
async fn unknown_keys_do_not_flood_issuer() {
    let key = Key::es256();
    let server = JwksServer::start(&[key.jwk("k")]).await;
    let authorizer = with_jwks_url(&server.url);
    for second in 0..20 {
        for token in 0..20 {
            let made_up = long_lived_token(&key, &format!("made-up-{second}-{token}"));
            assert_eq!(outcome(&authorizer, &made_up, NOW + second).await, "unknown key");
        }
        assert_eq!(
            outcome(&authorizer, &long_lived_token(&key, "k"), NOW + second).await,
            "valid"
        );
    }
    // At most one fetch in five seconds.
    assert_eq!(server.fetches(), 4);
    // A token that no key could make valid causes no fetch.
    let authorizer = with_jwks_url(&server.url);
    let symmetric = Key::Hs256(b"secret".to_vec());
    for token in ["a.b.c", "", "e30.e30.", &symmetric.valid("k")] {
        assert!(present(&authorizer, token, NOW).await.is_err());
    }
    assert_eq!(server.fetches(), 4);
}

#[tokio::test]
async fn concurrent_requests_share_one_fetch() {
    let key = Key::es256();
    let server = JwksServer::start(&[key.jwk("k")]).await;
    let authorizer = with_jwks_url(&server.url);
    let token = long_lived_token(&key, "k");
    let (one, two, three) = tokio::join!(
        outcome(&authorizer, &token, NOW),
        outcome(&authorizer, &token, NOW),
        outcome(&authorizer, &token, NOW)
    );
    assert_eq!((one, two, three, server.fetches()), ("valid", "valid", "valid", 1));
}

#[tokio::test]
async fn cached_keys_survive_issuer_outage_for_a_day() {
    let key = Key::es256();
    let server = JwksServer::start(&[key.jwk("k")]).await;
    let authorizer = with_jwks_url(&server.url);
    let (token, unknown) = (long_lived_token(&key, "k"), long_lived_token(&key, "unknown"));
    assert_eq!(outcome(&authorizer, &token, NOW).await, "valid");

    server.respond_with(KeysResponse::Head("503 Service Unavailable", String::new()));
    assert_eq!(outcome(&authorizer, &token, NOW + HOUR).await, "valid");
    assert_eq!(server.fetches(), 2);
    // The fetch is retried, but not with every request.
    assert_eq!(outcome(&authorizer, &token, NOW + HOUR + 4).await, "valid");
    assert_eq!(server.fetches(), 2);
    assert_eq!(outcome(&authorizer, &token, NOW + HOUR + 5).await, "valid");
    assert_eq!(outcome(&authorizer, &unknown, NOW + HOUR + 6).await, "unknown key");
    assert_eq!(server.fetches(), 3);

    assert_eq!(outcome(&authorizer, &token, NOW + DAY - 1).await, "valid");
    assert_eq!(outcome(&authorizer, &token, NOW + DAY).await, "paused");
    assert_eq!(outcome(&authorizer, &token, NOW + DAY + 5).await, "no keys");
    assert_eq!(outcome(&authorizer, &unknown, NOW + DAY + 5).await, "paused");

    server.publish(&[key.jwk("k")]);
    assert_eq!(outcome(&authorizer, &token, NOW + DAY + 10).await, "valid");
}

#[tokio::test]
async fn unavailable_keys_are_a_server_error() {
    let key = Key::es256();
    let server = JwksServer::start(&[]).await;
    let token = long_lived_token(&key, "k");
    let keys = jwks(&[key.jwk("k")]).to_string();
    let padded = |length: usize| format!("{keys}{}", " ".repeat(length - keys.len()));
    server.respond_with(KeysResponse::Body(padded(64 * 1024)));
    assert_eq!(outcome(&with_jwks_url(&server.url), &token, NOW).await, "valid");
    for response in [
        KeysResponse::Head("404 Not Found", keys.clone()),
        KeysResponse::Head("500 Internal Server Error", keys.clone()),
        KeysResponse::Head("203 Non-Authoritative Information", keys.clone()),
        // Redirects are not followed: the setting names the only source of keys.
        KeysResponse::Head("302 Found\r\nlocation: /keys", keys.clone()),
        KeysResponse::Body(String::new()),
        KeysResponse::Body("<html>".to_owned()),
        KeysResponse::Body(r#"{"keys":[]}"#.to_owned()),
        KeysResponse::Body(padded(64 * 1024 + 1)),
        KeysResponse::Close,
    ] {
        server.respond_with(response);
        let authorizer = with_jwks_url(&server.url);
        assert_eq!(outcome(&authorizer, &token, NOW).await, "no keys");
        assert_eq!(outcome(&authorizer, &token, NOW + 4).await, "paused");
        server.publish(&[key.jwk("k")]);
        assert_eq!(outcome(&authorizer, &token, NOW + 5).await, "valid");
    }
    // No server listens there.
    let authorizer = with_jwks_url("http://127.0.0.1:1/keys");
    assert_eq!(outcome(&authorizer, &token, NOW).await, "no keys");
    let message = present(&authorizer, &token, NOW + 5)
        .await
        .map_err(lambda_runtime::Diagnostic::from);
    let message = message.expect_err("no keys").error_message;
    assert!(
        message.starts_with("the issuer's keys are unavailable: the issuer cannot be reached"),
        "{message}"
    );
}

#[tokio::test]
async fn hanging_issuer_times_out_after_1500_ms() {
    let key = Key::es256();
    let server = JwksServer::start(&[]).await;
    for response in [KeysResponse::Hang, KeysResponse::HangMidBody] {
        server.respond_with(response);
        let authorizer = with_jwks_url(&server.url);
        let start = Instant::now();
        assert_eq!(outcome(&authorizer, &long_lived_token(&key, "k"), NOW).await, "no keys");
        let waited = start.elapsed();
        assert!(
            Duration::from_millis(1450) < waited && waited < Duration::from_millis(2500),
            "{waited:?}"
        );
        let start = Instant::now();
        assert_eq!(
            outcome(&authorizer, &long_lived_token(&key, "k"), NOW + 1).await,
            "paused"
        );
        assert!(start.elapsed() < Duration::from_millis(500));
    }
}

#[test]
fn jwks_url_must_be_https_or_loopback() {
    for url in [
        "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_abc/.well-known/jwks.json",
        "https://issuer.example:8443/keys?version=1",
        "http://127.0.0.1:8080/keys",
        "http://localhost/keys",
        "http://[::1]/keys",
    ] {
        assert!(JwksUrl::try_from(url.to_owned()).is_ok(), "{url}");
    }
    for url in [
        "",
        "issuer.example/keys",
        "http://issuer.example/keys",
        "http://127.0.0.1.issuer.example/keys",
        "http://127.0.0.1@issuer.example/keys",
        "http://169.254.169.254/latest",
        "file:///etc/passwd",
        "https://",
        "https:///keys",
        "/keys",
    ] {
        assert!(JwksUrl::try_from(url.to_owned()).is_err(), "{url}");
    }
}

#[test]
fn default_jwks_url_is_below_issuer() {
    for issuer in ["https://issuer.example", "https://tenant.auth0.com/"] {
        let mut settings = settings();
        settings.jwt_issuer = issuer.to_owned();
        assert!(Authorizer::closed(settings).is_ok(), "{issuer}");
    }
    for issuer in ["task-api", "http://issuer.example", "https://"] {
        let mut settings = settings();
        settings.jwt_issuer = issuer.to_owned();
        assert!(
            matches!(Authorizer::closed(settings), Err(SetupError::NoKeys(_))),
            "{issuer}"
        );
    }
}
