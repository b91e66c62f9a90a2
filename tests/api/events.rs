//! Events that a client can cause, and others: each gets a well-formed response, none is an error
//! of the function.

use proptest::{collection::vec, prelude::*};
use serde_json::{Map, Value, json};
use sqlx::PgPool;

use crate::support::{App, Gateway, Request, Response, events, routes::ROUTES, row, task};

/// A request for every deployed route.
fn every_route(app: &App) -> Vec<Request> {
    let requests = ROUTES.keys().map(|route| {
        let (method, path) = route.split_once(' ').expect("a method and a path");
        let path = path
            .replace("{id}", "1")
            .replace("{asset}", "style.css")
            .replace("{proxy+}", "none");
        app.request(if method == "ANY" { "GET" } else { method }, path)
    });
    requests.collect()
}

fn assert_malformed(response: &Response, is_head: bool) {
    assert_eq!(response.status(), 400, "{response:?}");
    if is_head {
        assert_eq!(response.text(), "");
    } else {
        response.assert_problem(400, "Bad Request");
    }
}

#[tokio::test]
async fn malformed_header_is_400_on_every_route() {
    let app = App::without_database();
    let mut names = Map::new();
    for (name, value) in [
        ("X-Note", "a\u{7f}b"),
        ("X-Note", "\u{1}"),
        ("If-Match", "\"1\"\n"),
        ("Host", "a\0b"),
        ("X Note", "a"),
        ("X-N\u{f6}te", "a"),
        ("", "a"),
    ] {
        for gateway in [Gateway::Rest, Gateway::Http] {
            for request in every_route(&app) {
                let request = request.header(name, value).via(gateway);
                let is_head = request.event().to_string().contains("\"HEAD\"");
                let response = request.await;
                assert_malformed(&response, is_head);
                if !is_head {
                    names.insert(name.to_owned(), response.json()["detail"].clone());
                }
            }
        }
    }
    assert_eq!(
        names["X-Note"],
        "The request is malformed: the header \"X-Note\" has a character that HTTP does not allow."
    );
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn malformed_condition_changes_nothing(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    let before = row(&pool, id).await;
    let change = app.patch(format!("/tasks/{id}"), json!({"title": "new"}));
    for lines in [&["\"9\"\u{7f}"][..], &["\"9\"", "\u{1}"]] {
        let response = change.clone().header_lines("If-Match", lines).await;
        response.assert_problem(400, "Bad Request");
    }
    assert_eq!(row(&pool, id).await, before);
}

#[tokio::test]
async fn host_and_scheme_of_any_text_are_ignored() {
    let app = App::without_database();
    for (name, value) in [
        ("Host", "localhost:99999"),
        ("Host", "a b"),
        ("Host", "[::1"),
        ("Host", ""),
        ("Host", "\u{f6}"),
        ("X-Forwarded-Proto", "ht tp"),
        ("X-Forwarded-Proto", ""),
        ("X-Forwarded-Proto", "1://"),
    ] {
        for gateway in [Gateway::Rest, Gateway::Http] {
            let request = app.get("/").header(name, value).via(gateway);
            assert_eq!(request.await.status(), 200, "{name}: {value}");
        }
    }
    for path in ["/%", "/a b", "/\u{f6}", "/a?b", "/a#b", "/\\", "/[", "/%zz"] {
        for gateway in [Gateway::Rest, Gateway::Http] {
            let mut request = app.get("/none").via(gateway).event();
            for member in ["path", "rawPath"] {
                if request[member].is_string() {
                    request[member] = json!(path);
                }
            }
            request["pathParameters"] = json!({"proxy": path[1..]});
            let response = app.get("/none").via(gateway).send_as(&request).await;
            response.assert_problem(404, "Not Found");
            assert_eq!(response.json()["detail"], format!("Nothing was found at {path}."));
        }
    }
}

#[tokio::test]
async fn event_without_request_is_400() {
    let request = App::without_database().get("/");
    for event in [
        "{}",
        "[]",
        "[1, 2]",
        "null",
        "7",
        "\"text\"",
        r#"{"httpMethod": null}"#,
        r#"{"httpMethod": "G E T", "path": "/"}"#,
        r#"{"httpMethod": ["GET"], "path": "/"}"#,
        r#"{"httpMethod": "GET", "httpMethod": "GET", "path": "/"}"#,
        r#"{"httpMethod": "GET", "path": "\ud800"}"#,
        r#"{"httpMethod": "GET", "requestContext": 7}"#,
        r#"{"requestContext": {"http": {}}}"#,
        r#"{"requestContext": {"http": {"method": ""}}}"#,
        r#"{"Records": [{"messageId": "m1"}]}"#,
    ] {
        request.send_text(event).await.assert_problem(400, "Bad Request");
    }
}

#[tokio::test]
async fn null_and_missing_members_are_ignored() {
    let app = App::without_database();
    for (gateway, event) in [
        (Gateway::Rest, events::rest("GET", "/", None)),
        (Gateway::Http, events::http_sample()),
    ] {
        let request = app.get("/").via(gateway);
        for name in event.as_object().expect("an object").keys() {
            if ["httpMethod", "requestContext"].contains(&name.as_str()) {
                continue;
            }
            for value in [Value::Null, json!({}), json!([]), json!([null]), json!(7), json!(true)] {
                let mut changed = event.clone();
                changed[name] = value;
                let response = request.send_as(&changed).await;
                assert!([200, 404].contains(&response.status()), "{name}: {response:?}");
            }
            let mut changed = event.clone();
            changed.as_object_mut().expect("an object").remove(name);
            let response = request.send_as(&changed).await;
            assert!([200, 404].contains(&response.status()), "{name}: {response:?}");
        }
        for headers in [
            json!({"X-A": null}),
            json!({"X-A": [null]}),
            json!({"X-A": []}),
            json!({"X-A": {}}),
        ] {
            let mut changed = event.clone();
            changed["headers"] = headers.clone();
            changed["multiValueHeaders"] = headers;
            assert_eq!(request.send_as(&changed).await.status(), 200);
        }
    }
}

/// API Gateway sends the last line of a header in `headers` and all of them in `multiValueHeaders`;
/// other senders one of the two.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn header_is_found_in_either_member(pool: PgPool) {
    let app = App::new(&pool);
    let path = format!("/tasks/{}", task(&pool, "t").await);
    for (headers, multi, status) in [
        (json!({"If-None-Match": "\"1\""}), json!(null), 304),
        (json!({"if-none-match": "\"1\""}), json!({}), 304),
        (json!({"If-None-Match": "\"1\""}), json!({"If-None-Match": null}), 304),
        (json!({"If-None-Match": "\"1\""}), json!({"If-None-Match": []}), 304),
        (json!(null), json!({"IF-NONE-MATCH": ["\"2\"", "\"1\""]}), 304),
        (
            json!({"If-None-Match": "\"2\""}),
            json!({"If-None-Match": ["\"1\"", "\"2\""]}),
            304,
        ),
        (
            json!({"If-None-Match": "\"1\""}),
            json!({"if-none-match": ["\"2\""]}),
            200,
        ),
        (
            json!({"If-None-Match": "\"2\"", "if-none-match": "\"1\""}),
            json!(null),
            304,
        ),
        (
            json!({}),
            json!({"If-None-Match": ["\"2\""], "if-none-match": ["\"1\""]}),
            304,
        ),
        (json!({}), json!({"X-If-None-Match": ["\"1\""]}), 200),
    ] {
        let request = app.get(&path);
        let mut event = request.event();
        event["headers"] = headers.clone();
        event["multiValueHeaders"] = multi.clone();
        let response = request.send_as(&event).await;
        assert_eq!(response.status(), status, "{headers} {multi}");
    }
}

/// Arbitrary JSON, mostly objects with the names of an event's members.
fn arbitrary_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "GET",
            "HEAD",
            "POST",
            "/",
            "/{proxy+}",
            "/tasks/{id}",
            "a\u{7f}",
            "!!!"
        ])
        .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 8, |inner| {
        let names = prop_oneof![
            prop::sample::select(vec![
                "http",
                "method",
                "authorizer",
                "sub",
                "admin",
                "Host",
                "If-Match",
                "id",
                "proxy"
            ])
            .prop_map(str::to_owned),
            any::<String>(),
        ];
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((names, inner), 0..6).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

/// The members of an event, and of its context.
const MEMBERS: [&str; 17] = [
    "/httpMethod",
    "/resource",
    "/path",
    "/rawPath",
    "/pathParameters",
    "/queryStringParameters",
    "/multiValueQueryStringParameters",
    "/rawQueryString",
    "/headers",
    "/multiValueHeaders",
    "/body",
    "/isBase64Encoded",
    "/requestContext",
    "/requestContext/authorizer",
    "/requestContext/http",
    "/requestContext/http/method",
    "/requestContext/httpMethod",
];

/// An event of API Gateway in which a few members have arbitrary values.
fn arbitrary_event() -> impl Strategy<Value = Value> {
    let samples = vec![
        events::rest("GET", "/", None),
        events::task("PATCH", 7, ""),
        events::http_sample(),
    ];
    let changes = vec((prop::sample::select(MEMBERS.to_vec()), arbitrary_json()), 0..4);
    (prop::sample::select(samples), changes).prop_map(|(mut event, changes)| {
        for (member, value) in changes {
            let (parent, name) = member.rsplit_once('/').expect("a pointer");
            if let Some(Value::Object(parent)) = event.pointer_mut(parent) {
                parent.insert(name.to_owned(), value);
            }
        }
        event
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn arbitrary_event_gets_well_formed_response(
        event in prop_oneof![9 => arbitrary_event(), 1 => arbitrary_json()],
        path in prop::sample::select(vec!["/", "/none", "/docs/style.css", "/tasks", "/tasks/7"]),
        method in prop::sample::select(vec!["GET", "PATCH"]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let request = App::without_database().request(method, path);
        // It has a status, and headers and a body of text.
        let response = runtime.expect("a runtime").block_on(request.send_as(&event));
        prop_assert!((200..=599).contains(&response.status()) && response.status() != 500, "{:?}", response);
        prop_assert!(!response.header("content-type").is_empty() || response.status() == 304, "{:?}", response);
    }
}
