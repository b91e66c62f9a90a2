//! Security headers and CORS.

use sqlx::PgPool;

use crate::support::{App, Gateway, Response, mapping, routes::ROUTES, task};

fn assert_has_security_headers(response: &Response) {
    for (name, value) in [
        ("cache-control", "no-cache"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ("referrer-policy", "no-referrer"),
        ("strict-transport-security", "max-age=31536000"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(response.header(name), value, "{name}");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn every_response_has_security_headers(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "<script>alert(1)</script>").await;
    for (id, status) in [(id, 200), (id + 1, 404)] {
        for gateway in [Gateway::Rest, Gateway::Http] {
            let response = app.get(format!("/tasks/{id}")).via(gateway).await;
            assert_eq!(response.status(), status);
            assert_has_security_headers(&response);
        }
    }
    let health = app.get("/health").await;
    assert_eq!(
        health.header("cache-control"),
        "no-store",
        "a handler's own header is overwritten"
    );
}

/// RFC 9110, section 9.3.2.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn head_is_get_without_body(pool: PgPool) {
    let app = App::new(&pool).with_mapping(mapping::mapping().await.0);
    let id = task(&pool, "t").await.to_string();
    let routes: Vec<&str> = ROUTES.keys().filter_map(|route| route.strip_prefix("GET ")).collect();
    assert!(routes.len() > 10, "{routes:?}");
    for route in routes {
        assert_eq!(
            ROUTES.get(&format!("HEAD {route}")),
            ROUTES.get(&format!("GET {route}"))
        );
        let path = route.replace("{id}", &id).replace("{asset}", "style.css");
        for gateway in [Gateway::Rest, Gateway::Http] {
            let (get, head) = (app.get(&path).await, app.request("HEAD", &path).via(gateway).await);
            assert_eq!((get.status(), head.status(), head.text()), (200, 200, ""), "{path}");
            for name in [
                "content-type",
                "etag",
                "link",
                "cache-control",
                "content-security-policy",
            ] {
                assert_eq!(head.header(name), get.header(name), "{path}: {name}");
            }
        }
    }
    let head = async |app: &App, path: &str| {
        let response = app.request("HEAD", path).await;
        (response.status(), response.text().to_owned())
    };
    let missing = format!("/tasks/{}", i64::MAX);
    assert_eq!(head(&app, &missing).await, (404, String::new()));
    assert_eq!(head(&app, "/tasks/x").await, (422, String::new()));
    assert_eq!(head(&app, "/nope").await, (404, String::new()));
    assert_eq!(head(&app, "/tasks/7/process").await, (405, String::new()));
    assert_eq!(head(&app.without_authorizer(), "/tasks").await, (401, String::new()));
    let known = app
        .request("HEAD", format!("/tasks/{id}"))
        .header("if-none-match", "\"1\"");
    assert_eq!(known.await.status(), 304);
}

async fn get_from(origin: &str, allowed: &'static str) -> Response {
    let app = App::without_database();
    app.get("/").header("origin", origin).allow_origins(allowed).await
}

#[tokio::test]
async fn only_allowed_origins_may_read_responses() {
    let allowed = "https://app.example.com, http://localhost:*";
    for origin in ["https://app.example.com", "http://localhost:5173"] {
        let response = get_from(origin, allowed).await;
        assert_eq!(
            (response.status(), response.header("access-control-allow-origin")),
            (200, origin)
        );
        assert!(
            response.header("access-control-expose-headers").contains("etag"),
            "{response:?}"
        );
        assert!(response.header("vary").contains("origin"), "{response:?}");
        assert_has_security_headers(&response);
    }
    for (origin, allowed) in [
        ("https://evil.com", allowed),
        ("http://localhost:5173", ""),
        ("null", allowed),
    ] {
        let response = get_from(origin, allowed).await;
        assert_eq!(
            (response.status(), response.header("access-control-allow-origin")),
            (200, "")
        );
    }
}

#[tokio::test]
async fn preflight_request_succeeds_for_every_route() {
    let preflight = async |origin: &str, allowed: &'static str| {
        let request = App::without_database()
            .request("OPTIONS", "/tasks/7")
            .allow_origins(allowed);
        request
            .header("origin", origin)
            .header("access-control-request-method", "PUT")
            .header("access-control-request-headers", "if-match,content-type")
            .await
    };
    let response = preflight("http://localhost:5173", "http://localhost:*").await;
    assert_eq!((response.status(), response.text()), (200, ""));
    assert_eq!(response.header("access-control-allow-origin"), "http://localhost:5173");
    assert!(
        response.header("access-control-allow-methods").contains("PUT"),
        "{response:?}"
    );
    for name in ["if-match", "content-type", "idempotency-key"] {
        assert!(
            response.header("access-control-allow-headers").contains(name),
            "{response:?}"
        );
    }
    let refused = preflight("https://evil.com", "http://localhost:*").await;
    assert_eq!(refused.header("access-control-allow-origin"), "");
    preflight("http://localhost:5173", "")
        .await
        .assert_problem(405, "Method Not Allowed");
}
