//! `GET /openapi.json`, `GET /docs`, `GET /docs/{asset}`, `GET /redoc`

use serde_json::Value;

use crate::support::{App, Gateway, Response};

async fn get(path: &str, gateway: Gateway) -> Response {
    App::without_database().get(path).via(gateway).await
}

/// The URLs that a page refers to.
fn urls(page: &str) -> Vec<&str> {
    let attributes = page
        .split([' ', '>'])
        .filter_map(|text| text.strip_prefix("href=\"").or(text.strip_prefix("src=\"")));
    attributes
        .map(|url| url.trim_end_matches('"'))
        .filter(|url| !url.starts_with("data:"))
        .collect()
}

#[tokio::test]
async fn committed_document_is_served() {
    for gateway in [Gateway::Rest, Gateway::Http] {
        let response = get("/openapi.json", gateway).await;
        assert_eq!(
            (response.status(), response.header("content-type")),
            (200, "application/json")
        );
        let committed: Value = serde_json::from_str(include_str!("../../openapi.json")).expect("JSON");
        assert_eq!(response.json(), committed);
    }
}

#[tokio::test]
async fn pages_load_only_own_immutable_assets() {
    for path in ["/docs", "/redoc"] {
        let page = get(path, Gateway::Rest).await;
        assert_eq!(
            (page.status(), page.header("content-type")),
            (200, "text/html; charset=utf-8")
        );
        let policy = page.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'; "),
            "{policy}"
        );
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(page.text(), get(path, Gateway::Http).await.text());

        let (assets, links): (Vec<&str>, Vec<&str>) =
            urls(page.text()).into_iter().partition(|url| url.starts_with("docs/"));
        assert_eq!(
            links,
            ["docs", "redoc", "admin/dashboard", "openapi.json", "openapi.json"],
            "{path}"
        );
        assert!(assets.len() >= 3, "{assets:?}");
        for asset in assets {
            let response = get(&format!("/{asset}"), Gateway::Rest).await;
            assert_eq!(response.status(), 200, "{asset}");
            assert_eq!(
                response.header("cache-control"),
                "public, max-age=31536000, immutable",
                "{asset}"
            );
            let (name, _) = asset.split_once('?').expect("a version");
            let other = get(&format!("/{name}?v=other"), Gateway::Rest).await;
            assert_eq!(
                (other.header("cache-control"), other.text()),
                ("no-cache", response.text())
            );
        }
    }
}

#[tokio::test]
async fn unknown_asset_is_404() {
    for name in ["none.js", "", "..%2F..%2FCargo.toml", "style.css/"] {
        let response = App::without_database()
            .get(format!("/docs/{name}"))
            .routed_to("api-docs", "asset", name)
            .await;
        response.assert_problem(404, "Not Found");
    }
}
