//! CORS: the web origins that may call this API (Fetch standard, section 3.3, "CORS protocol").

use std::time::Duration;

use confique::Config;
use lambda_http::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::config::{self, ConfigError};

#[derive(Config)]
struct CorsConfig {
    /// Origins such as `https://app.example.com`, separated by commas. `http://localhost:*` allows
    /// every port. Empty: none.
    #[config(env = "CORS_ALLOW_ORIGINS", default = "")]
    cors_allow_origins: String,
}

/// How long a browser may cache the response to a preflight request.
const MAX_AGE: Duration = Duration::from_secs(600);

/// The CORS layer for `CORS_ALLOW_ORIGINS`; `None` if no other origin is allowed.
pub fn from_env() -> Result<Option<CorsLayer>, ConfigError> {
    config::from_env::<CorsConfig>().map(|config| layer(&config.cors_allow_origins))
}

/// The CORS layer for a list of origins.
pub fn layer(origins: &str) -> Option<CorsLayer> {
    let origins = origins.split(',').map(str::trim).filter(|origin| !origin.is_empty());
    let origins: Vec<String> = origins.map(str::to_owned).collect();
    if origins.is_empty() {
        return None;
    }
    let allowed = move |origin: &HeaderValue, _: &_| origins.iter().any(|pattern| matches(pattern, origin));
    Some(
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(allowed))
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                header::IF_MATCH,
                header::IF_NONE_MATCH,
                HeaderName::from_static("idempotency-key"),
            ])
            .expose_headers([
                header::ETAG,
                header::LINK,
                header::LOCATION,
                header::RETRY_AFTER,
                HeaderName::from_static("idempotent-replayed"),
                HeaderName::from_static("x-total-count"),
                HeaderName::from_static("x-total-count-relation"),
            ])
            .max_age(MAX_AGE),
    )
}

fn matches(pattern: &str, origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    match pattern.strip_suffix(":*") {
        Some(host) => {
            let port = origin.strip_prefix(host).and_then(|rest| rest.strip_prefix(':'));
            port.is_some_and(|port| port.parse::<u16>().is_ok())
        }
        None => origin == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_matches_exactly_or_with_any_port() {
        let allowed = |pattern: &str, origin: &str| matches(pattern, &HeaderValue::from_str(origin).expect("a value"));
        assert!(allowed("https://app.example.com", "https://app.example.com"));
        assert!(allowed("http://localhost:*", "http://localhost:5173"));
        for origin in [
            "http://app.example.com",
            "https://app.example.com.evil.com",
            "https://app.example.com:8443",
            "null",
        ] {
            assert!(!allowed("https://app.example.com", origin), "{origin}");
        }
        for origin in [
            "http://localhost",
            "http://localhost.evil.com:80",
            "http://localhost:80.evil.com",
            "http://localhost:",
        ] {
            assert!(!allowed("http://localhost:*", origin), "{origin}");
        }
    }

    #[test]
    fn empty_origin_list_disables_cors() {
        assert!(layer("").is_none() && layer(" , ").is_none());
        assert!(layer("https://app.example.com").is_some());
    }
}
