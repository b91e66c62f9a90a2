//! Properties of the authorizer, checked with arbitrary input.

use authorizer::{AuthError, Authorizer, handle};
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use super::{
    NOW, event,
    issuer::{Key, base64, jwks},
    with_keys,
};

/// Arbitrary JSON, mostly objects with the names of JWT headers and claims.
fn arbitrary_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop_oneof![
            Just("ES256"),
            Just("RS256"),
            Just("HS256"),
            Just("none"),
            Just("k"),
            Just("admin"),
            Just("tasks")
        ]
        .prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 8, |inner| {
        let names = prop::sample::select(vec![
            "alg",
            "kid",
            "typ",
            "crit",
            "jwk",
            "iss",
            "sub",
            "aud",
            "exp",
            "nbf",
            "scope",
            "scp",
            "client_id",
            "token_use",
        ]);
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((names, inner), 0..10).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

fn decide(authorizer: &Authorizer, authorization: &str) -> Result<Value, AuthError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(handle(authorizer, &event(authorization), NOW))
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn is_refused(authorizer: &Authorizer, authorization: &str) -> bool {
    matches!(decide(authorizer, authorization), Err(AuthError::Unauthorized(_)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_refused(bytes in vec(any::<u8>(), 0..300)) {
        let key = Key::es256();
        let authorizer = with_keys(&jwks(&[key.jwk("k")]));
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(is_refused(&authorizer, &text));
        prop_assert!(is_refused(&authorizer, &bearer(&text)));
        let parts = [base64(&bytes), base64(&bytes), base64(&bytes)].join(".");
        prop_assert!(is_refused(&authorizer, &bearer(&parts)));
    }

    #[test]
    fn changed_token_is_refused(position in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let key = Key::es256();
        let authorizer = with_keys(&jwks(&[key.jwk("k")]));
        let token = key.valid("k");
        prop_assert!(decide(&authorizer, &bearer(&token)).is_ok());
        let mut bytes = token.clone().into_bytes();
        *position.get_mut(&mut bytes) = byte;
        let changed = String::from_utf8_lossy(&bytes).into_owned();
        prop_assume!(changed != token);
        prop_assert!(is_refused(&authorizer, &bearer(&changed)), "{changed}");
    }

    #[test]
    fn token_of_another_key_is_refused(header in arbitrary_json(), claims in arbitrary_json()) {
        let authorizer = with_keys(&jwks(&[Key::es256().jwk("k")]));
        let token = Key::es256().token(&header, &claims);
        prop_assert!(is_refused(&authorizer, &bearer(&token)));
    }

    #[test]
    fn arbitrary_claims_grant_no_admin_without_scope(claims in arbitrary_json()) {
        let key = Key::es256();
        let authorizer = with_keys(&jwks(&[key.jwk("k")]));
        let mut members = json!({ "iss": super::ISSUER, "aud": "tasks", "sub": "alice", "exp": NOW + 300 });
        if let Value::Object(claims) = claims {
            members.as_object_mut().expect("an object").extend(claims);
        }
        let token = key.token(&json!({ "alg": "ES256", "kid": "k" }), &members);
        match decide(&authorizer, &bearer(&token)) {
            Ok(policy) => {
                let is_admin = policy["context"]["admin"] == "true";
                prop_assert_eq!(is_admin, [&members["scope"], &members["scp"]].iter().any(|scopes| match scopes {
                    Value::String(text) => text.split(' ').any(|scope| scope == "admin"),
                    Value::Array(list) => list.contains(&json!("admin")),
                    _ => false,
                }));
                let statements = policy["policyDocument"]["Statement"].as_array().expect("statements").len();
                let is_viewer = policy["context"]["viewer"] == "true";
                prop_assert!(!(is_admin && is_viewer));
                prop_assert_eq!(statements, if is_admin || is_viewer { 1 } else { 2 });
            }
            Err(error) => prop_assert!(matches!(error, AuthError::Unauthorized(_)), "{error:?}"),
        }
    }
}
