//! The local stack's issuer.

use std::{env, fs, os::unix::fs::PermissionsExt, process, time::Duration};

use authorizer::{Authorizer, Jwks, Refusal, Settings, now};
use local_issuer::{AUDIENCE, ISSUER, LocalIssuer};

use super::{present, settings};

const HOUR: Duration = Duration::from_secs(3600);

fn authorizer(issuer: &LocalIssuer) -> Authorizer {
    let settings = Settings {
        jwt_issuer: ISSUER.to_owned(),
        jwt_audience: AUDIENCE.to_owned(),
        jwks: Some(Jwks::try_from(issuer.jwks()).expect("a key set")),
        ..settings()
    };
    Authorizer::closed(settings).expect("complete settings")
}

#[tokio::test]
async fn local_tokens_are_valid_while_key_exists() {
    let file = env::temp_dir().join(format!("dev-token-{}", process::id()));
    let issuer = LocalIssuer::open(&file).expect("a new key");
    let again = LocalIssuer::open(&file).expect("the same key");
    assert_eq!(issuer.jwks(), again.jwks());
    let mode = fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let (authorizer, now) = (authorizer(&issuer), now());
    let token = again.token("alice", "read admin", HOUR);
    let response = present(&authorizer, &token, now).await.expect("valid");
    assert_eq!(
        (&response["principalId"], &response["context"]["admin"]),
        (&"alice".into(), &"true".into())
    );
    let response = present(&authorizer, &again.token("bob", "", HOUR), now)
        .await
        .expect("valid");
    assert_eq!(
        (&response["principalId"], &response["context"]["admin"]),
        (&"bob".into(), &"false".into())
    );
    assert!(present(&authorizer, &token, now + 2 * HOUR.as_secs()).await.is_err());

    fs::write(&file, "something else").expect("written");
    assert!(LocalIssuer::open(&file).is_err());
    fs::remove_file(&file).expect("removed");
    let other = LocalIssuer::open(&file).expect("another key");
    fs::remove_file(&file).expect("removed");
    assert_eq!(
        super::refusal_at(&authorizer, &other.token("alice", "", HOUR), now).await,
        Refusal::Signature
    );
}
