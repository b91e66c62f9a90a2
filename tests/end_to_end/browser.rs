//! The pages of the deployed stack in a browser.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Browser, env, token};

const NO_ERRORS: [&str; 0] = [];

/// A title that no other task has.
fn unique(title: &str) -> String {
    format!("{title} {:016x}", fastrand::u64(..))
}

async fn get(path: &str) -> Value {
    let response = reqwest::get(format!("{}{path}", env("API_URL"))).await;
    let response = response
        .expect("the stack responds")
        .error_for_status()
        .expect("a success");
    response.json().await.expect("a JSON body")
}

async fn create(title: &str) {
    create_from(json!({"title": title})).await;
}

async fn create_from(task: Value) {
    let request = reqwest::Client::new().post(format!("{}/tasks", env("API_URL")));
    let response = request.json(&task).send().await;
    assert_eq!(response.expect("the stack responds").status(), 201);
}

/// Searches for the title until the dashboard lists only that task.
async fn search_dashboard(browser: &mut Browser, title: &str) {
    browser.type_into("#search", title).await;
    let titles = "Array.from(document.querySelectorAll('#task-list .row-title'), (node) => node.textContent)";
    let found = format!("JSON.stringify({titles}) === JSON.stringify([{}])", json!(title));
    browser.wait_for(30, &found).await;
}

async fn assert_fits(browser: &mut Browser, element: &str) {
    let overflow = format!("{element}.scrollWidth - {element}.clientWidth");
    assert_eq!(browser.eval(&overflow).await, 0, "{element} scrolls sideways");
}

#[tokio::test]
async fn dashboard_creates_task_and_shows_completion() {
    let mut browser = Browser::start().await;
    browser.set_viewport(1280, 900, false).await;
    browser.open(&format!("{}/admin/dashboard", env("API_URL"))).await;
    let loaded = browser.eval("performance.timeOrigin").await;

    let title = unique("from the dashboard");
    browser.click(".bar [data-open-form]").await;
    browser.type_into("#title", &title).await;
    browser.type_into("#description", "Count these words").await;
    browser.click("#create-submit").await;
    browser.wait_for(30, "!document.querySelector('#create').open").await;

    search_dashboard(&mut browser, &title).await;
    let completed = "document.querySelector('#task-list .status.completed') !== null";
    browser.wait_for(30, completed).await;

    browser.click("#task-list .row").await;
    // Sorted: create-task and task-processor record times independently, so that their order may
    // vary.
    let events = "Array.from(document.querySelectorAll('#detail-timeline li'), (item) => item.className).toSorted()";
    let settled = format!("{events}.includes('completed') && {events}");
    let all = json!(["claimed", "completed", "created", "enqueued"]);
    assert_eq!(browser.wait_for(30, &settled).await, all);
    let result = browser
        .eval("document.querySelector('#detail-result').textContent")
        .await;
    assert_eq!(result, format!("Processed \"{title}\": 3 words, 17 characters"));

    assert_eq!(
        browser.eval("performance.timeOrigin").await,
        loaded,
        "the page was reloaded"
    );
    assert_eq!(browser.errors().await, NO_ERRORS);
}

#[tokio::test]
async fn dashboard_of_closed_api_requires_admin_token() {
    let mut browser = Browser::start().await;
    browser.set_viewport(1280, 900, false).await;
    browser
        .open(&format!("{}/admin/dashboard", env("CLOSED_API_URL")))
        .await;
    for (scope, signed_in) in [("", false), ("admin", true)] {
        browser.wait_for(30, "document.querySelector('#sign-in').open").await;
        browser.type_into("#token", &token("alice", scope)).await;
        browser.click("#sign-in .primary").await;
        let outcome = if signed_in {
            "document.querySelector('#freshness').dataset.mode === 'live'"
        } else {
            "document.querySelector('#sign-in-problem').textContent.startsWith('Forbidden (403)')"
        };
        browser.wait_for(30, outcome).await;
    }
    assert_eq!(browser.eval("document.querySelector('#sign-in').open").await, false);
}

#[tokio::test]
async fn dashboard_cancels_task() {
    let title = unique("to be cancelled");
    // Retried with backoff, so there is time.
    create_from(json!({"title": title, "description": "retry: no connection"})).await;
    let mut browser = Browser::start().await;
    browser.set_viewport(1280, 900, false).await;
    browser.open(&format!("{}/admin/dashboard", env("API_URL"))).await;
    search_dashboard(&mut browser, &title).await;
    browser.click("#task-list .row").await;
    let is_enabled = "document.querySelector('#cancel').ariaDisabled === 'false'";
    browser.wait_for(30, is_enabled).await;
    browser.click("#cancel").await;
    let is_cancelled = "document.querySelector('#detail-status').className === 'status cancelled'
        && document.querySelector('#cancel').ariaDisabled === 'true'";
    browser.wait_for(30, is_cancelled).await;
    let found = get(&format!("/tasks?status=cancelled&q={title}")).await;
    assert_eq!(found[0]["title"], title);
    assert_eq!(browser.errors().await, NO_ERRORS);
}

#[tokio::test]
async fn dashboard_fits_phone_width() {
    let title = unique(&"x".repeat(200));
    create(&title).await;
    let mut browser = Browser::start().await;
    browser.set_viewport(390, 844, true).await;
    browser.open(&format!("{}/admin/dashboard", env("API_URL"))).await;
    search_dashboard(&mut browser, &title).await;
    assert_fits(&mut browser, "document.documentElement").await;

    browser.click("#task-list .row").await;
    browser
        .wait_for(30, "!document.querySelector('#detail-body').hidden")
        .await;
    assert_fits(&mut browser, "document.querySelector('#detail')").await;
    assert_eq!(browser.errors().await, NO_ERRORS);
}

#[tokio::test]
async fn docs_show_every_operation_and_execute_one() {
    let document = get("/openapi.json").await;
    let methods = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        let operations = methods.iter().filter(|method| item.get(method).is_some());
        documented.extend(operations.map(|method| format!("{method} {path}")));
    }
    assert!(documented.contains("post /tasks"), "{documented:?}");

    let mut browser = Browser::start().await;
    browser.set_viewport(1280, 900, false).await;
    browser.open(&format!("{}/docs", env("API_URL"))).await;
    let count = format!("document.querySelectorAll('.opblock').length >= {}", documented.len());
    browser.wait_for(30, &count).await;
    let shown = browser
        .eval(
            "Array.from(document.querySelectorAll('.opblock'), (block) => {
                const method = block.querySelector('.opblock-summary-method').textContent.toLowerCase();
                return `${method} ${block.querySelector('.opblock-summary-path').dataset.path}`;
            })",
        )
        .await;
    let shown: BTreeSet<String> = serde_json::from_value(shown).expect("texts");
    assert_eq!(shown, documented);

    let operation = ".opblock-post:has([data-path='/tasks'])";
    browser.click(&format!("{operation} .opblock-summary")).await;
    // Twice: an example value that the page sends by default, such as an Idempotency-Key, would
    // work only once.
    for title in [unique("from the docs"), unique("again from the docs")] {
        let body = json!({"title": title}).to_string();
        browser
            .type_into(&format!("{operation} .body-param__text"), &body)
            .await;
        browser.click(&format!("{operation} .execute")).await;
        let response = json!(format!("{operation} .live-responses-table .response"));
        let text = format!("document.querySelector({response})?.textContent ?? ''");
        let created = format!("/^201.*{title}/s.test({text})");
        browser.wait_for(30, &created).await;
        let found = get(&format!("/tasks?q={title}")).await;
        assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
        assert_eq!(found[0]["title"], title);
    }
    assert_eq!(browser.errors().await, NO_ERRORS);
}

#[tokio::test]
async fn browser_reports_page_errors() {
    let mut browser = Browser::start().await;
    let policy =
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; script-src 'unsafe-inline'\">";
    let script = "<script>console.error('logged'); setTimeout(() => { throw new Error('thrown') })</script>";
    let page = format!("data:text/html,{policy}{script}<img src='http://localhost:1/forbidden'>");
    browser.open(&page).await;
    // The page's own timer runs before this one.
    browser.eval("new Promise((resolve) => setTimeout(resolve))").await;
    let errors = browser.errors().await;
    assert_eq!(errors.len(), 3, "{errors:#?}");
    for text in ["logged", "thrown", "Content Security Policy"] {
        assert!(errors.iter().any(|error| error.contains(text)), "{text}: {errors:#?}");
    }
}
