//! `GET /admin/processing`, `PUT /admin/processing`, and `paused` in `GET /admin/status`

use std::time::{Duration, Instant};

use harness::HttpResponse;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::net::TcpListener;

use crate::support::{
    App, LogLines, mapping,
    mapping::{MappingLog, body, mapping_at, refusing_mapping, scripted_mapping},
};

const PATH: &str = "/admin/processing";

/// The recorded actions, newest first: operator and action.
async fn actions(app: &App) -> Vec<Value> {
    let actions = app.get("/admin/actions").await.json();
    let actions = actions.as_array().expect("a list").iter();
    actions
        .map(|action| json!([action["operator"], action["action"], action["count"]]))
        .collect()
}

/// The methods of the requests to Lambda.
fn methods(requests: &MappingLog) -> Vec<String> {
    let requests = requests.lock().expect("not poisoned");
    requests.iter().map(|request| request.method().to_string()).collect()
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn processing_is_paused_and_resumed(pool: PgPool) {
    let app = App::new(&pool).with_mapping(mapping::mapping().await.0);
    let is = async |paused: bool, state: &str| {
        let response = app.get(PATH).await;
        let expected = json!({"paused": paused, "state": state});
        assert_eq!((response.status(), response.json()), (200, expected));
        let status = app.get("/admin/status").await.json();
        assert_eq!((&status["paused"], &status["problems"]), (&json!(paused), &json!([])));
    };
    is(false, "Enabled").await;
    for (paused, changing, state) in [
        (true, "Disabling", "Disabled"),
        // Nothing changes.
        (true, "Disabling", "Disabled"),
        (false, "Enabling", "Enabled"),
    ] {
        let response = app.put(PATH, json!({"paused": paused})).await;
        let expected = json!({"paused": paused, "state": changing});
        assert_eq!((response.status(), response.json()), (200, expected));
        is(paused, state).await;
    }
    let recorded = |action: &str| json!(["tester", action, null]);
    assert_eq!(actions(&app).await, ["resume", "pause", "pause"].map(recorded));
}

/// Also before Lambda has stopped, and before it has started.
#[tokio::test]
async fn states_of_mapping_are_told_apart() {
    for (state, paused) in [
        ("Creating", false),
        ("Enabling", false),
        ("Enabled", false),
        ("Updating", false),
        ("Disabling", true),
        ("Disabled", true),
    ] {
        let (mapping, _) = scripted_mapping(move |_| HttpResponse::new(json!({"State": state}).to_string())).await;
        let app = App::without_database().with_mapping(mapping);
        let expected = json!({"paused": paused, "state": state});
        assert_eq!(app.get(PATH).await.json(), expected);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn requests_to_lambda_are_signed(pool: PgPool) {
    let (mapping, requests) = mapping::mapping().await;
    let app = App::new(&pool).with_mapping(mapping);
    app.get(PATH).await;
    app.put(PATH, json!({"paused": true})).await;
    let requests = requests.lock().expect("not poisoned");
    assert_eq!(requests.len(), 2);
    for request in requests.iter() {
        assert_eq!(request.uri().path(), "/2015-03-31/event-source-mappings/a1b2");
        let header = |name: &str| request.headers()[name].to_str().expect("text");
        let authorization = header("authorization");
        assert!(
            authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"),
            "{authorization}"
        );
        assert!(
            authorization.contains("/eu-central-1/lambda/aws4_request, "),
            "{authorization}"
        );
        assert_eq!(header("x-amz-security-token"), "a token");
        assert_eq!(request.headers().get_all("host").iter().count(), 1);
    }
    assert_eq!(requests[0].body().len(), 0);
    assert_eq!(body(&requests[1]), json!({"Enabled": false}));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn only_admin_pauses_processing(pool: PgPool) {
    let (mapping, requests) = mapping::mapping().await;
    let app = App::new(&pool).with_mapping(mapping);
    assert_eq!(app.as_viewer().get(PATH).await.status(), 200);
    let pause = json!({"paused": true});
    for request in [
        app.as_viewer().put(PATH, pause.clone()),
        app.as_user("bob").put(PATH, pause),
        app.as_user("bob").get(PATH),
    ] {
        request.await.assert_problem(403, "Forbidden");
    }
    assert_eq!(methods(&requests), ["GET"]);
    assert_eq!(actions(&app).await, [Value::Null; 0]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn invalid_request_pauses_nothing(pool: PgPool) {
    let (mapping, requests) = mapping::mapping().await;
    let app = App::new(&pool).with_mapping(mapping);
    for invalid in [json!({}), json!({"paused": "yes"}), json!({"paused": true, "for": 7})] {
        let response = app.put(PATH, invalid).await;
        response.assert_problem(422, "Unprocessable Entity");
    }
    let response = app.request("PUT", PATH).body("paused").await;
    response.assert_problem(400, "Bad Request");
    assert_eq!((methods(&requests).len(), actions(&app).await.len()), (0, 0));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn pausing_while_mapping_changes_is_409(pool: PgPool) {
    for (status, code) in [(400, "ResourceInUseException"), (409, "ResourceConflictException")] {
        let app = App::new(&pool).with_mapping(refusing_mapping(status, code).await.0);
        let response = app.put(PATH, json!({"paused": true})).await;
        response.assert_problem(409, "Conflict");
        assert_eq!(response.header("retry-after"), "2");
    }
}

/// Recorded before the request, since its effect may remain unknown.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn pause_with_lost_response_is_recorded(pool: PgPool) {
    let hanging = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", hanging.local_addr().expect("an address"));
    let app = App::new(&pool).with_mapping(mapping_at(&url));
    let started = Instant::now();
    let response = app.put(PATH, json!({"paused": true})).await;
    response.assert_problem(503, "Service Unavailable");
    assert_eq!(response.header("retry-after"), "2");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert_eq!(actions(&app).await, [json!(["tester", "pause", null])]);
}

#[tokio::test]
async fn unrecorded_pause_is_refused() {
    let (mapping, requests) = mapping::mapping().await;
    let app = App::without_database().with_mapping(mapping);
    let response = app.put(PATH, json!({"paused": true})).await;
    response.assert_problem(503, "Service Unavailable");
    assert_eq!(methods(&requests), [""; 0]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn refusal_of_lambda_is_503_and_logged(pool: PgPool) {
    let (lines, _guard) = LogLines::start();
    let app = App::new(&pool).with_mapping(refusing_mapping(403, "AccessDeniedException").await.0);
    for request in [app.get(PATH), app.put(PATH, json!({"paused": true}))] {
        let response = request.await;
        response.assert_problem(503, "Service Unavailable");
        assert_eq!(response.json()["detail"], "Lambda is unavailable. Please try again.");
        let errors: Vec<Value> = lines
            .take()
            .into_iter()
            .filter(|line| line["level"] == "ERROR")
            .collect();
        let cause = errors[0]["error"].as_str().expect("a cause");
        assert!(
            errors.len() == 1 && cause.contains("403 Forbidden AccessDeniedException"),
            "{errors:?}"
        );
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn status_without_lambda_is_partial(pool: PgPool) {
    let hanging = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let hanging = format!("http://{}", hanging.local_addr().expect("an address"));
    for mapping in [
        mapping_at(&hanging),
        mapping_at("http://127.0.0.1:1"),
        refusing_mapping(500, "ServiceException").await.0,
    ] {
        let app = App::new(&pool).with_mapping(mapping);
        let started = Instant::now();
        let response = app.get("/admin/status").await;
        let status = response.json();
        assert_eq!((response.status(), &status["paused"]), (200, &Value::Null));
        let problem = "Whether processing is paused is unknown: Lambda did not report it.";
        assert_eq!(status["problems"], json!([problem]));
        assert_eq!(status["tasks"]["total"], 0);
        // As with SQS.
        assert!(
            started.elapsed() < Duration::from_millis(2500),
            "{:?}",
            started.elapsed()
        );
    }
}

/// Under `cargo lambda watch` and `sam local`.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn processing_without_mapping_is_501(pool: PgPool) {
    let app = App::new(&pool);
    for request in [app.get(PATH), app.put(PATH, json!({"paused": true}))] {
        let response = request.await;
        response.assert_problem(501, "Not Implemented");
        let detail = "Processing can be neither paused nor resumed here: there is no event source mapping.";
        assert_eq!(response.json()["detail"], detail);
    }
    assert_eq!(actions(&app).await, [Value::Null; 0]);
    let status = app.get("/admin/status").await.json();
    assert_eq!((&status["paused"], &status["problems"]), (&Value::Null, &json!([])));
}
