//! The headers that every answer has.

use sqlx::PgPool;

use crate::support::{Answer, Call, Gateway, database, task};

fn assert_protected(answer: &Answer) {
    for (name, value) in [
        ("cache-control", "no-cache"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ("referrer-policy", "no-referrer"),
        ("strict-transport-security", "max-age=31536000"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_browser_may_make_no_more_of_an_answer_than_it_is(pool: PgPool) {
    let database = database(&pool);
    let id = task(&pool, "<script>alert(1)</script>").await;
    for (id, status) in [(id, 200), (id + 1, 404)] {
        for gateway in [Gateway::Rest, Gateway::Http] {
            let call = Call::task("GET", id, "");
            let answer = call
                .send_via(gateway, |request| get_task::handle(&database, request))
                .await;
            assert_eq!(answer.status, status);
            assert_protected(&answer);
        }
    }
    let call = Call::new("GET", "/health");
    let health = call.send(|request| health::handle(&database, request)).await;
    assert_eq!(
        health.header("cache-control"),
        "no-store",
        "what a handler decides stays"
    );
}

async fn get_from(origin: &str, allowed: &'static str) -> Answer {
    let call = Call::new("GET", "/").header("origin", origin).allow_origins(allowed);
    call.send(api_info::handle).await
}

#[tokio::test]
async fn only_pages_of_allowed_origins_may_read_answers() {
    let allowed = "https://app.example.com, http://localhost:*";
    for origin in ["https://app.example.com", "http://localhost:5173"] {
        let answer = get_from(origin, allowed).await;
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (200, origin)
        );
        assert!(
            answer.header("access-control-expose-headers").contains("etag"),
            "{answer:?}"
        );
        assert!(answer.header("vary").contains("origin"), "{answer:?}");
        assert_protected(&answer);
    }
    for (origin, allowed) in [
        ("https://evil.com", allowed),
        ("http://localhost:5173", ""),
        ("null", allowed),
    ] {
        let answer = get_from(origin, allowed).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, ""));
    }
}

#[tokio::test]
async fn a_preflight_request_is_answered_for_every_route() {
    let preflight = async |origin: &str, allowed: &'static str| {
        let call = Call::new("OPTIONS", "/tasks/7").header("origin", origin);
        let call = call
            .header("access-control-request-method", "PUT")
            .allow_origins(allowed);
        call.header("access-control-request-headers", "if-match,content-type")
            .send(api_info::handle)
            .await
    };
    let answer = preflight("http://localhost:5173", "http://localhost:*").await;
    assert_eq!((answer.status, answer.text()), (200, ""));
    assert_eq!(answer.header("access-control-allow-origin"), "http://localhost:5173");
    assert!(
        answer.header("access-control-allow-methods").contains("PUT"),
        "{answer:?}"
    );
    for name in ["if-match", "content-type", "idempotency-key"] {
        assert!(
            answer.header("access-control-allow-headers").contains(name),
            "{answer:?}"
        );
    }
    let refused = preflight("https://evil.com", "http://localhost:*").await;
    assert_eq!(refused.header("access-control-allow-origin"), "");
    preflight("http://localhost:5173", "")
        .await
        .assert_problem(405, "Method Not Allowed");
}
