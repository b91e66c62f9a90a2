//! The assets of the documentation pages.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// A script, style or license.
pub struct Asset {
    /// The file's name in the URL.
    pub name: &'static str,
    pub media_type: &'static str,
    pub content: &'static str,
    /// A hash of the content.
    pub version: String,
}

/// The licenses are included because the scripts refer to them.
static ASSETS: LazyLock<[Asset; 8]> = LazyLock::new(|| {
    [
        ("style.css", CSS, include_str!("../page/style.css")),
        ("docs.js", JAVASCRIPT, include_str!("../page/docs.js")),
        ("redoc.js", JAVASCRIPT, include_str!("../page/redoc.js")),
        (
            "swagger-ui.css",
            CSS,
            include_str!("../vendor/swagger-ui/swagger-ui.css"),
        ),
        (
            "swagger-ui-bundle.js",
            JAVASCRIPT,
            include_str!("../vendor/swagger-ui/swagger-ui-bundle.js"),
        ),
        (
            "swagger-ui-bundle.js.LICENSE.txt",
            TEXT,
            include_str!("../vendor/swagger-ui/swagger-ui-bundle.js.LICENSE.txt"),
        ),
        (
            "redoc.standalone.js",
            JAVASCRIPT,
            include_str!("../vendor/redoc/redoc.standalone.js"),
        ),
        (
            "redoc.standalone.js.LICENSE.txt",
            TEXT,
            include_str!("../vendor/redoc/redoc.standalone.js.LICENSE.txt"),
        ),
    ]
    .map(|(name, media_type, content)| Asset {
        name,
        media_type,
        content,
        version: URL_SAFE_NO_PAD.encode(&Sha256::digest(content)[..9]),
    })
});

pub fn find(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.name == name)
}

/// The page, with the version of each asset added to its URL, so that browsers may cache the assets
/// indefinitely.
pub fn versioned(page: &str) -> String {
    ASSETS
        .iter()
        .fold(page.to_owned(), |page, Asset { name, version, .. }| {
            page.replace(&format!("\"docs/{name}\""), &format!("\"docs/{name}?v={version}\""))
        })
}
