//! Validation of tokens: signature, algorithm and claims.

use authorizer::{Identity, Jwks, Refusal};
use serde_json::{Value, json};

use super::{
    ISSUER, NOW,
    issuer::{Key, base64, jwks},
    present, refusal, settings, with_keys,
};

/// The caller that the authorizer's context names for this token.
async fn identity(key: &Key, token: &str) -> Identity {
    let response = present(&with_keys(&jwks(&[key.jwk("k")])), token, NOW).await;
    let context = response.unwrap_or_else(|error| panic!("{error:?}"))["context"].take();
    let text = |name: &str| context[name].as_str().expect("a string").to_owned();
    Identity {
        subject: text("sub"),
        scopes: text("scope").split_whitespace().map(str::to_owned).collect(),
        is_admin: text("admin") == "true",
        is_viewer: text("viewer") == "true",
    }
}

async fn refused(key: &Key, claims: Value) -> Refusal {
    refusal(&with_keys(&jwks(&[key.jwk("k")])), &key.token_with("k", claims)).await
}

fn alice(scopes: &[&str], is_admin: bool) -> Identity {
    Identity {
        subject: "alice".to_owned(),
        scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
        is_admin,
        is_viewer: false,
    }
}

#[tokio::test]
async fn token_is_valid_with_either_algorithm() {
    for key in [Key::es256(), Key::rs256()] {
        assert_eq!(identity(&key, &key.valid("k")).await, alice(&[], false));
    }
}

#[tokio::test]
async fn token_must_name_its_key() {
    let (one, other, rsa) = (Key::es256(), Key::es256(), Key::rs256());
    let authorizer = with_keys(&jwks(&[one.jwk("one"), other.jwk("other"), rsa.jwk("rsa")]));
    for (key, kid) in [(&one, "one"), (&other, "other"), (&rsa, "rsa")] {
        present(&authorizer, &key.valid(kid), NOW).await.expect("valid");
    }
    assert_eq!(refusal(&authorizer, &one.valid("other")).await, Refusal::Signature);
    assert_eq!(refusal(&authorizer, &one.valid("third")).await, Refusal::UnknownKey);
    assert_eq!(refusal(&authorizer, &one.valid("")).await, Refusal::UnknownKey);
    let claims = json!({ "iss": ISSUER, "aud": "tasks", "sub": "alice", "exp": NOW + 300 });
    let nameless = one.token(&json!({ "alg": "ES256" }), &claims);
    assert_eq!(refusal(&authorizer, &nameless).await, Refusal::UnknownKey);
}

#[tokio::test]
async fn key_determines_algorithm() {
    let (ec, rsa) = (Key::es256(), Key::rs256());
    let authorizer = with_keys(&jwks(&[ec.jwk("ec"), rsa.jwk("rsa")]));
    let claims = json!({ "iss": ISSUER, "aud": "tasks", "sub": "mallory", "exp": NOW + 300, "scope": "admin" });

    // The public key, in each of its encodings, as the HMAC secret (RFC 8725, section 2.1).
    let modulus = rsa.jwk("rsa")["n"].as_str().expect("a modulus").to_owned();
    for secret in [
        include_bytes!("keys/rsa-2048.pub.pem").to_vec(),
        include_str!("keys/rsa-2048.pub.pem").trim().as_bytes().to_vec(),
        modulus.into_bytes(),
        Vec::new(),
    ] {
        let forged = Key::Hs256(secret).token(&json!({ "alg": "HS256", "kid": "rsa" }), &claims);
        assert_eq!(refusal(&authorizer, &forged).await, Refusal::Algorithm);
    }
    // A correct signature under the other key's id, in both directions.
    let crossed = ec.token(&json!({ "alg": "ES256", "kid": "rsa" }), &claims);
    assert_eq!(refusal(&authorizer, &crossed).await, Refusal::Algorithm);
    let crossed = rsa.token(&json!({ "alg": "RS256", "kid": "ec" }), &claims);
    assert_eq!(refusal(&authorizer, &crossed).await, Refusal::Algorithm);
    // A correct signature under another algorithm's name.
    for name in ["RS384", "RS512", "PS256", "PS512", "HS384", "EdDSA"] {
        let renamed = rsa.token(&json!({ "alg": name, "kid": "rsa" }), &claims);
        assert_eq!(refusal(&authorizer, &renamed).await, Refusal::Algorithm, "{name}");
    }
    for name in [
        json!("none"),
        json!("None"),
        json!("rs256"),
        json!("ES512"),
        json!(""),
        json!(null),
        json!(["RS256"]),
    ] {
        let renamed = rsa.token(&json!({ "alg": name, "kid": "rsa" }), &claims);
        assert_eq!(refusal(&authorizer, &renamed).await, Refusal::Malformed, "{name}");
    }
}

#[tokio::test]
async fn invalid_signature_is_refused() {
    let key = Key::es256();
    let authorizer = with_keys(&jwks(&[key.jwk("k")]));
    let token = key.valid("k");
    let (message, signature) = token.rsplit_once('.').expect("three parts");
    let (header, _) = message.split_once('.').expect("three parts");

    assert_eq!(refusal(&authorizer, &format!("{message}.")).await, Refusal::Signature);
    for half in [&signature[..43], &signature[..84]] {
        let error = refusal(&authorizer, &format!("{message}.{half}")).await;
        assert!(matches!(error, Refusal::Signature | Refusal::Malformed), "{error}");
    }
    // All zeros: accepted for every message by the "psychic signatures" bug (CVE-2022-21449).
    let zeros = base64([0; 64]);
    assert_eq!(
        refusal(&authorizer, &format!("{message}.{zeros}")).await,
        Refusal::Signature
    );
    let promoted = base64(
        json!({ "iss": ISSUER, "aud": "tasks", "sub": "alice", "exp": NOW + 300, "scope": "admin" }).to_string(),
    );
    assert_eq!(
        refusal(&authorizer, &format!("{header}.{promoted}.{signature}")).await,
        Refusal::Signature
    );
    let unsigned = base64(json!({ "alg": "none" }).to_string());
    assert_eq!(
        refusal(&authorizer, &format!("{unsigned}.{promoted}.")).await,
        Refusal::Malformed
    );
    // Another key with the same id.
    assert_eq!(refusal(&authorizer, &Key::es256().valid("k")).await, Refusal::Signature);
    // With the attacker's key embedded in the header (RFC 8725, section 3.10).
    let attacker = Key::es256();
    let claims = json!({ "iss": ISSUER, "aud": "tasks", "sub": "alice", "exp": NOW + 300 });
    let forged = json!({ "alg": "ES256", "kid": "k", "jwk": attacker.jwk("k"), "jku": "http://127.0.0.1:1/keys" });
    assert_eq!(
        refusal(&authorizer, &attacker.token(&forged, &claims)).await,
        Refusal::Signature
    );
}

#[tokio::test]
async fn short_rsa_key_is_ignored() {
    let keys: Value = serde_json::from_str(include_str!("keys/rsa-1024.jwks.json")).expect("JSON");
    let token = include_str!("keys/rsa-1024.token").trim();
    assert_eq!(refusal(&with_keys(&keys), token).await, Refusal::Signature);
}

#[tokio::test]
async fn critical_extension_is_refused() {
    let key = Key::es256();
    let claims = json!({ "iss": ISSUER, "aud": "tasks", "sub": "alice", "exp": NOW + 300 });
    for crit in [json!(["exp"]), json!([]), json!(["b64"])] {
        let token = key.token(
            &json!({ "alg": "ES256", "kid": "k", "crit": crit, "b64": true }),
            &claims,
        );
        assert_eq!(
            refusal(&with_keys(&jwks(&[key.jwk("k")])), &token).await,
            Refusal::Malformed
        );
    }
}

#[tokio::test]
async fn issuer_must_match_exactly() {
    let key = Key::es256();
    for iss in [
        json!("https://issuer.example/"),
        json!("https://ISSUER.example"),
        json!("http://issuer.example"),
        json!("https://issuer.example.evil.com"),
        json!(""),
    ] {
        assert_eq!(refused(&key, json!({ "iss": iss })).await, Refusal::Issuer, "{iss}");
    }
    for iss in [json!(null), json!(7), json!({ "https://issuer.example": 1 })] {
        assert_eq!(refused(&key, json!({ "iss": iss })).await, Refusal::Malformed, "{iss}");
    }
}

#[tokio::test]
async fn audience_must_include_this_api() {
    let key = Key::es256();
    for aud in [json!("tasks"), json!(["tasks"]), json!(["others", "tasks"])] {
        let token = key.token_with("k", json!({ "aud": aud }));
        assert_eq!(identity(&key, &token).await, alice(&[], false), "{aud}");
    }
    for aud in [
        json!("others"),
        json!("task"),
        json!("Tasks"),
        json!(""),
        json!([]),
        json!(["others"]),
        json!(null),
    ] {
        assert_eq!(refused(&key, json!({ "aud": aud })).await, Refusal::Audience, "{aud}");
    }
    for aud in [json!(7), json!(true), json!(["tasks", 7]), json!({ "tasks": 1 })] {
        // Not even with a client id, which is used only where there is no audience.
        let claims = json!({ "aud": aud, "client_id": "tasks" });
        assert_eq!(refused(&key, claims).await, Refusal::Malformed, "{aud}");
    }
}

#[tokio::test]
async fn cognito_access_token_is_valid_and_id_token_is_not() {
    let key = Key::rs256();
    let access = json!({ "aud": null, "client_id": "tasks", "token_use": "access", "scope": "openid" });
    assert_eq!(
        identity(&key, &key.token_with("k", access)).await,
        alice(&["openid"], false)
    );
    let of_another_client = json!({ "aud": null, "client_id": "others", "token_use": "access" });
    assert_eq!(refused(&key, of_another_client).await, Refusal::Audience);
    let other_audience = json!({ "aud": "others", "client_id": "tasks", "token_use": "access" });
    assert_eq!(refused(&key, other_audience).await, Refusal::Audience);
    for usage in ["id", "refresh", ""] {
        assert_eq!(
            refused(&key, json!({ "token_use": usage })).await,
            Refusal::Audience,
            "{usage}"
        );
    }
}

#[tokio::test]
async fn token_expires_with_a_minute_of_leeway() {
    let key = Key::es256();
    let authorizer = with_keys(&jwks(&[key.jwk("k")]));
    for exp in [json!(NOW), json!(NOW as f64 + 0.5)] {
        let token = key.token_with("k", json!({ "exp": exp, "nbf": null }));
        for now in [0, NOW, NOW + 59] {
            present(&authorizer, &token, now).await.expect("valid");
        }
        for now in [NOW + 61, u64::MAX] {
            let outcome = present(&authorizer, &token, now)
                .await
                .map_err(|error| format!("{error:?}"));
            assert_eq!(outcome, Err("Unauthorized(Expired)".to_owned()), "{now}");
        }
    }
    // The boundary itself: the current time must be before it (RFC 7519, section 4.1.4).
    let token = key.token_with("k", json!({ "exp": NOW }));
    assert!(present(&authorizer, &token, NOW + 60).await.is_err());

    for exp in [json!(0), json!(1.5)] {
        assert_eq!(refused(&key, json!({ "exp": exp })).await, Refusal::Expired, "{exp}");
    }
    for exp in [
        json!(null),
        json!(-1),
        json!("1900000000"),
        json!([NOW + 300]),
        json!(true),
    ] {
        assert_eq!(refused(&key, json!({ "exp": exp })).await, Refusal::Malformed, "{exp}");
    }
}

#[tokio::test]
async fn not_before_has_a_minute_of_leeway() {
    let key = Key::es256();
    let authorizer = with_keys(&jwks(&[key.jwk("k")]));
    let token = key.token_with("k", json!({ "nbf": NOW }));
    present(&authorizer, &token, NOW - 60).await.expect("valid");
    let outcome = present(&authorizer, &token, NOW - 61)
        .await
        .map_err(|error| format!("{error:?}"));
    assert_eq!(outcome, Err("Unauthorized(NotYetValid)".to_owned()));
    let without = key.token_with("k", json!({ "nbf": null }));
    present(&authorizer, &without, 0).await.expect("valid");
    for nbf in [json!("0"), json!([]), json!(false)] {
        assert_eq!(refused(&key, json!({ "nbf": nbf })).await, Refusal::Malformed, "{nbf}");
    }
}

#[tokio::test]
async fn subject_is_short_and_printable() {
    let key = Key::es256();
    for sub in ["a", "auth0|5f7c8ec7c33c6c004bbafe82", "Jo Doe", &"s".repeat(255)] {
        let token = key.token_with("k", json!({ "sub": sub }));
        assert_eq!(identity(&key, &token).await.subject, sub);
    }
    for sub in [
        json!(""),
        json!("s".repeat(256)),
        json!("a\nb"),
        json!("a\u{0}"),
        json!("ä"),
        json!(7),
        json!(null),
    ] {
        assert_eq!(refused(&key, json!({ "sub": sub })).await, Refusal::Malformed, "{sub}");
    }
}

#[tokio::test]
async fn admin_needs_exact_scope() {
    let key = Key::es256();
    for (claims, scopes, is_admin) in [
        (json!({ "scope": "admin" }), &["admin"][..], true),
        (
            json!({ "scope": "read admin write" }),
            &["read", "admin", "write"],
            true,
        ),
        (json!({ "scope": " read  admin " }), &["read", "admin"], true),
        (json!({ "scp": ["read", "admin"] }), &["read", "admin"], true),
        (json!({ "scp": "read admin" }), &["read", "admin"], true),
        (json!({ "scope": "read", "scp": ["admin"] }), &["read", "admin"], true),
        (json!({ "scope": "Admin" }), &["Admin"], false),
        (
            json!({ "scope": "administrator tasks/admin" }),
            &["administrator", "tasks/admin"],
            false,
        ),
        (
            json!({ "scope": "aws.cognito.signin.user.admin" }),
            &["aws.cognito.signin.user.admin"],
            false,
        ),
        (json!({ "scope": "read,admin" }), &["read,admin"], false),
        (json!({ "scope": "read\tadmin" }), &[], false),
        (json!({ "scp": ["read admin", "", "ädmin"] }), &[], false),
        (json!({ "scope": "" }), &[], false),
        (
            json!({ "admin": true, "roles": ["admin"], "groups": "admin" }),
            &[],
            false,
        ),
    ] {
        let token = key.token_with("k", claims.clone());
        assert_eq!(identity(&key, &token).await, alice(scopes, is_admin), "{claims}");
    }
    for scope in [json!(7), json!([["admin"]]), json!({ "admin": true }), json!(true)] {
        assert_eq!(
            refused(&key, json!({ "scope": scope })).await,
            Refusal::Malformed,
            "{scope}"
        );
    }
}

#[tokio::test]
async fn viewer_needs_exact_scope_and_admin_is_none() {
    let key = Key::es256();
    for (scope, is_admin, is_viewer) in [
        ("viewer", false, true),
        ("read viewer", false, true),
        ("viewer admin", true, false),
        ("Viewer", false, false),
        ("viewers tasks/viewer", false, false),
        ("read,viewer", false, false),
    ] {
        let identity = identity(&key, &key.token_with("k", json!({ "scope": scope }))).await;
        assert_eq!(
            (identity.is_admin, identity.is_viewer),
            (is_admin, is_viewer),
            "{scope}"
        );
    }
}

#[tokio::test]
async fn scopes_of_operators_are_configurable() {
    let key = Key::es256();
    let settings = authorizer::Settings {
        jwks: Some(Jwks::try_from(jwks(&[key.jwk("k")]).to_string()).expect("a key set")),
        admin_scope: "tasks/admin".to_owned(),
        viewer_scope: "tasks/viewer".to_owned(),
        ..settings()
    };
    let authorizer = authorizer::Authorizer::closed(settings).expect("complete settings");
    for (scope, is_admin, is_viewer) in [
        ("tasks/admin", "true", "false"),
        ("tasks/viewer", "false", "true"),
        ("admin viewer", "false", "false"),
    ] {
        let token = key.token_with("k", json!({ "scope": scope }));
        let context = present(&authorizer, &token, NOW).await.expect("valid")["context"].take();
        assert_eq!(
            (&context["admin"], &context["viewer"]),
            (&json!(is_admin), &json!(is_viewer))
        );
    }
}

#[tokio::test]
async fn malformed_jwt_is_refused() {
    let key = Key::es256();
    let authorizer = with_keys(&jwks(&[key.jwk("k")]));
    let valid = key.valid("k");
    let [header, claims, signature] = valid.split('.').collect::<Vec<_>>()[..] else {
        panic!("three parts");
    };
    for token in [
        ".",
        "..",
        "a.b.c",
        "e30.e30.",
        &valid[1..],
        header,
        &format!("{header}.{claims}"),
        &format!("{valid}.{signature}"),
        &format!("{valid}="),
        &format!("{valid} "),
        &format!("{header}\n.{claims}.{signature}"),
        &"a.".repeat(4000),
        // Five parts: encrypted (RFC 7516).
        "eyJhbGciOiJSU0EtT0FFUCJ9.a.b.c.d",
        &key.token(&json!({ "alg": "ES256", "kid": 7 }), &json!({})),
        &key.token(&json!({ "alg": "ES256", "kid": "k" }), &json!([])),
        &key.token(&json!({ "alg": "ES256", "kid": "k" }), &json!("alice")),
        &key.token(&json!([]), &json!({})),
    ] {
        let error = refusal(&authorizer, token).await;
        assert!(matches!(error, Refusal::Malformed), "{token}: {error}");
    }
    // Duplicate members, which parsers may read differently.
    let header = r#"{"alg":"ES256","kid":"k"}"#;
    let claims = format!(
        r#"{{"iss":"{ISSUER}","aud":"tasks","sub":"bob","exp":{},"sub":"alice"}}"#,
        NOW + 300
    );
    assert_eq!(
        refusal(&authorizer, &key.token_of(header, &claims)).await,
        Refusal::Malformed
    );
    let header = r#"{"alg":"ES256","alg":"ES256","kid":"k"}"#;
    assert_eq!(
        refusal(&authorizer, &key.token_of(header, "{}")).await,
        Refusal::Malformed
    );
}

#[test]
fn key_set_keeps_supported_keys_and_needs_one() {
    let key = Key::es256();
    let with = |member: &str, value: Value| {
        let mut jwk = key.jwk("k");
        jwk[member] = value;
        Jwks::try_from(jwks(&[jwk]).to_string()).is_ok()
    };
    assert!(with("alg", json!("ES256")) && with("use", json!("sig")) && with("key_ops", json!(["verify"])));
    assert!(with("x5c", json!(["anything"])) && with("ext", json!(true)));
    for (member, value) in [
        ("alg", json!("ES384")),
        ("alg", json!("RS256")),
        ("alg", json!("none")),
        ("use", json!("enc")),
        ("key_ops", json!(["sign"])),
        ("kty", json!("RSA")),
        ("crv", json!("P-384")),
        ("crv", json!("secp256k1")),
        ("x", json!("!")),
        ("y", json!(null)),
        ("kid", json!(null)),
    ] {
        assert!(!with(member, value.clone()), "{member}: {value}");
    }
    let symmetric = Key::Hs256(b"secret".to_vec()).jwk("k");
    for set in [
        json!({}),
        json!([]),
        json!({ "keys": [] }),
        jwks(std::slice::from_ref(&symmetric)),
        jwks(&[json!({})]),
    ] {
        assert!(Jwks::try_from(set.to_string()).is_err(), "{set}");
    }
    assert!(Jwks::try_from(jwks(&[symmetric, key.jwk("k")]).to_string()).is_ok());
    assert!(Jwks::try_from(String::new()).is_err());
}
