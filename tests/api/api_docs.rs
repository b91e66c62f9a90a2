//! `GET /openapi.json`, `GET /docs`, `GET /docs/{asset}`, `GET /redoc`

use serde_json::Value;

use crate::support::{Answer, Call, Gateway};

async fn get(path: &str, gateway: Gateway) -> Answer {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut call = Call::new("GET", path);
    if let Some((name, value)) = query.split_once('=') {
        call = call.query(name, value);
    }
    if let Some(asset) = path.strip_prefix("/docs/") {
        call = call.parameter("asset", asset);
    }
    call.send_via(gateway, api_docs::handle).await
}

/// The URLs in a page.
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
async fn the_document_is_served_as_it_is_committed() {
    for gateway in [Gateway::Rest, Gateway::Http] {
        let answer = get("/openapi.json", gateway).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, "application/json")
        );
        let committed: Value = serde_json::from_str(include_str!("../../openapi.json")).expect("JSON");
        assert_eq!(answer.json(), committed);
    }
}

#[tokio::test]
async fn both_pages_load_nothing_from_elsewhere_and_what_they_load_may_be_kept_for_ever() {
    for path in ["/docs", "/redoc"] {
        let page = get(path, Gateway::Rest).await;
        assert_eq!(
            (page.status, page.header("content-type")),
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
            let answer = get(&format!("/{asset}"), Gateway::Rest).await;
            assert_eq!(answer.status, 200, "{asset}");
            assert_eq!(
                answer.header("cache-control"),
                "public, max-age=31536000, immutable",
                "{asset}"
            );
            let (name, _) = asset.split_once('?').expect("a version");
            let other = get(&format!("/{name}?v=other"), Gateway::Rest).await;
            assert_eq!(
                (other.header("cache-control"), other.text()),
                ("no-cache", answer.text())
            );
        }
    }
}

#[tokio::test]
async fn an_unknown_asset_is_404() {
    for name in ["none.js", "", "..%2F..%2FCargo.toml", "style.css/"] {
        let answer = get(&format!("/docs/{name}"), Gateway::Rest).await;
        answer.assert_problem(404, "Not Found");
    }
}
