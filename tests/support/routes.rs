//! The routes of `cargo lambda watch` in Cargo.toml. A test compares them with template.yaml.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::{Map, Value};

/// The function of each route, like "GET /tasks/{id}".
pub static ROUTES: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let manifest: toml::Table = include_str!("../../Cargo.toml").parse().expect("TOML");
    let router = manifest["workspace"]["metadata"]["lambda"]["watch"]["router"]
        .as_table()
        .expect("a router");
    let mut routes = BTreeMap::new();
    for (path, target) in router {
        let path = path.replace("{*proxy}", "{proxy+}");
        match target {
            toml::Value::String(function) => {
                routes.insert(format!("ANY {path}"), function.clone());
            }
            target => {
                for route in target.as_array().expect("a list") {
                    let text = |key: &str| route[key].as_str().expect("text").to_owned();
                    routes.insert(format!("{} {path}", text("method")), text("function"));
                }
            }
        }
    }
    routes
});

/// Where API Gateway sends a request.
pub(super) struct Route {
    pub function: String,
    /// The path in the template.
    pub resource: String,
    pub parameters: Map<String, Value>,
}

/// The route of a request, or else the catch-all.
pub(super) fn find(method: &str, path: &str) -> Route {
    let matches = |(route, function): (&String, &String)| {
        let resource = route.strip_prefix(method)?.strip_prefix(' ')?;
        Some(Route {
            function: function.clone(),
            resource: resource.to_owned(),
            parameters: parameters(resource, path)?,
        })
    };
    let anything_else = || match path {
        "/" => ("/", Map::new()),
        _ => {
            let proxy = path.strip_prefix('/').unwrap_or(path).into();
            ("/{proxy+}", Map::from_iter([("proxy".to_owned(), proxy)]))
        }
    };
    ROUTES.iter().find_map(matches).unwrap_or_else(|| {
        let (resource, parameters) = anything_else();
        Route {
            function: ROUTES["ANY /{proxy+}"].clone(),
            resource: resource.to_owned(),
            parameters,
        }
    })
}

/// The path parameters, if the path matches the pattern.
fn parameters(pattern: &str, path: &str) -> Option<Map<String, Value>> {
    let (pattern, path) = (pattern.split('/'), path.split('/'));
    let mut parameters = Map::new();
    if pattern.clone().count() != path.clone().count() {
        return None;
    }
    for (expected, segment) in pattern.zip(path) {
        match expected.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) if !segment.is_empty() => {
                parameters.insert(name.to_owned(), segment.into());
            }
            _ if expected == segment => {}
            _ => return None,
        }
    }
    Some(parameters)
}
