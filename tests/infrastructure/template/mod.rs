//! template.yaml as CloudFormation receives it: properties that no linter checks. This module
//! compares it with the code; `checks` has the requirements on the template itself, `mutations`
//! tests that the checks detect mistakes, and `permissions` compares the roles with the calls that
//! the code makes. `filter_pattern` and `log_lines` are for the checks of metric filters; `tools`
//! tests the scripts of `make lint`.

mod checks;
mod filter_pattern;
mod log_lines;
mod mutations;
mod permissions;
mod tools;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::{
    App, env,
    functions::{FUNCTIONS, function_name},
    routes::ROUTES,
};

/// A route: "GET /tasks/{id}".
type Route = String;

/// All templates of `make lint` (see dev/tools/translate.py): the resources of each environment,
/// under `translated` also the conditions, parameters and mappings, and bootstrap.yaml.
pub fn templates() -> Value {
    let folder = env("TEMPLATES");
    let read = |name: &str| -> Value {
        let file = format!("{folder}/{name}.json");
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        serde_json::from_str(&text).expect("JSON")
    };
    json!({
        "translated": read("sandbox"),
        "local": read("local.resolved"),
        "sandbox": read("sandbox.resolved"),
        "prod": read("prod.resolved"),
        "prod-at-once": read("prod-at-once.resolved"),
        "prod-without-proxy": read("prod-without-proxy.resolved"),
        "prod-with-options": read("prod-with-options.resolved"),
        "bootstrap": read("bootstrap"),
    })
}

pub fn of_type<'a>(template: &'a Value, kind: &'a str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let all = template["Resources"].as_object().expect("resources").iter();
    all.filter(move |(_, resource)| resource["Type"] == kind)
}

/// The elements of a list, or a single value as a list of one.
fn one_or_more(value: &Value) -> Vec<&Value> {
    value
        .as_array()
        .map_or_else(|| vec![value], |list| list.iter().collect())
}

/// The operations of the deployed API: each route and its definition.
fn operations(template: &Value) -> Vec<(Route, Value)> {
    let (_, api) = of_type(template, "AWS::ApiGateway::RestApi").next().expect("an API");
    let mut operations = Vec::new();
    for (path, methods) in api["Properties"]["Body"]["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let method = match method.as_str() {
                "x-amazon-apigateway-any-method" => "ANY".to_owned(),
                method => method.to_uppercase(),
            };
            operations.push((format!("{method} {path}"), operation.clone()));
        }
    }
    operations
}

/// The routes of the deployed API and their functions.
pub fn template_routes() -> BTreeMap<Route, String> {
    let operations = operations(&templates()["local"]).into_iter();
    let routes = operations.map(|(route, operation)| {
        let uri = operation["x-amazon-apigateway-integration"]["uri"]["Fn::Sub"].as_str();
        let function = uri.and_then(|uri| uri.split("${").last()?.split("Aliaslive").next());
        (route, function_name(function.expect("a function")))
    });
    routes.collect()
}

/// The routes without an authorizer.
pub fn public_routes(template: &Value) -> BTreeSet<Route> {
    let operations = operations(template).into_iter();
    let public = operations.filter(|(_, operation)| {
        let security = operation["security"].as_array().cloned().unwrap_or_default();
        !security.iter().any(|requirement| requirement.get("Jwt").is_some())
    });
    public.map(|(route, _)| route).collect()
}

#[test]
fn router_has_routes_of_template() {
    let mut template = template_routes();
    // Without a catch-all for "/" itself, `cargo lambda watch` needs the methods.
    let root = template.remove("ANY /").expect("a root");
    template.extend(["GET /", "HEAD /"].map(|route| (route.to_owned(), root.clone())));
    assert_eq!(*ROUTES, template);
}

#[tokio::test]
async fn allow_header_matches_template() {
    let routes = template_routes();
    let paths: BTreeSet<&str> = routes.keys().filter_map(|route| route.split(' ').nth(1)).collect();
    for path in paths.into_iter().filter(|path| !path.contains("proxy") && *path != "/") {
        let methods: Vec<&str> = routes
            .keys()
            .filter_map(|route| route.split_once(' ').filter(|(_, at)| *at == path))
            .map(|(m, _)| m)
            .collect();
        let response = App::without_database()
            .request("TRACE", path.replace("{id}", "1"))
            .await;
        assert_eq!(
            (response.status(), response.header("allow")),
            (405, methods.join(", ").as_str()),
            "{path}"
        );
    }
}

#[test]
fn every_function_is_deployed() {
    let templates = templates();
    let deployed: BTreeSet<String> = of_type(&templates["prod"], "AWS::Lambda::Function")
        .map(|(name, _)| function_name(name))
        .collect();
    let folder = std::fs::read_dir("../functions").expect("functions/");
    let folders = folder.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    assert_eq!(deployed, folders.collect());
    let listed = FUNCTIONS.iter().map(|function| function.name.to_owned());
    assert_eq!(deployed, listed.collect());
}
