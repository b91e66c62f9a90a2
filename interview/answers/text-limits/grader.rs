//! text-limits: titles and descriptions are accepted, refused and stored as documented.
// functions: create-task, update-task

use grading::{Function, Response, TestEnvironment, events};
use serde_json::{Value, json};

/// A character of one, two, three and four bytes.
const CHARACTERS: [&str; 4] = ["x", "é", "界", "🚀"];

async fn create(function: &mut Function, body: &Value) -> Response {
    let event = events::with_body(events::rest("POST", "/tasks", None), body);
    function.call(&event).await
}

async fn change(function: &mut Function, id: i64, body: &Value) -> Response {
    let event = events::with_body(events::task("PATCH", id, ""), body);
    function.call(&event).await
}

/// The mistakes that a 422 reports, as pairs of pointer and detail, sorted.
fn mistakes(response: &Response, what: &str) -> Vec<(String, String)> {
    assert_eq!(response.status, 422, "the status of {what}");
    let errors = response.json()["errors"].clone();
    let errors = errors
        .as_array()
        .unwrap_or_else(|| panic!("the 422 of {what} has no errors"));
    let text = |error: &Value, member: &str| error[member].as_str().unwrap_or_default().to_owned();
    let mut mistakes: Vec<(String, String)> = errors
        .iter()
        .map(|error| (text(error, "pointer"), text(error, "detail")))
        .collect();
    mistakes.sort();
    mistakes
}

fn pointers(response: &Response, what: &str) -> Vec<String> {
    let mistakes = mistakes(response, what);
    mistakes.into_iter().map(|(pointer, _)| pointer).collect()
}

#[tokio::test]
async fn valid_tasks_are_created_and_changed() {
    let environment = TestEnvironment::new().await;
    let mut creator = environment.function("create-task").start().await;
    let body = json!({"title": "Welcome mail", "description": "Dear new user"});
    let response = create(&mut creator, &body).await;
    assert_eq!(response.status, 201, "the status of a valid task");
    let task = response.json();
    assert_eq!(
        json!({"title": task["title"], "description": task["description"]}),
        body,
        "the task"
    );
    let id = task["id"].as_i64().expect("an id");
    let mut updater = environment.function("update-task").start().await;
    let response = change(&mut updater, id, &json!({"title": "Hello"})).await;
    assert_eq!(response.status, 200, "the status of a valid change");
    let row = environment.row(id).await;
    assert_eq!(
        (&row["title"], &row["description"]),
        (&json!("Hello"), &json!("Dear new user")),
        "title and description after a change of the title"
    );
}

#[tokio::test]
async fn title_of_255_characters_of_any_script_is_the_longest() {
    let environment = TestEnvironment::new().await;
    let mut creator = environment.function("create-task").start().await;
    for character in CHARACTERS {
        let title = character.repeat(255);
        let response = create(&mut creator, &json!({"title": title})).await;
        assert_eq!(response.status, 201, "the status of a title of 255 times {character}");
        let id = response.json()["id"].as_i64().expect("an id");
        assert_eq!(environment.row(id).await["title"], json!(title), "the stored title");

        let response = create(&mut creator, &json!({"title": character.repeat(256)})).await;
        let what = format!("a title of 256 times {character}");
        let [(pointer, detail)] = &mistakes(&response, &what)[..] else {
            panic!("{what} is not one mistake: {}", response.body);
        };
        assert_eq!(pointer, "#/title", "the pointer of {what}");
        assert!(
            detail.contains("255") && detail.contains("256"),
            "the detail of {what} has not both numbers: {detail}"
        );
    }
    // A reader sees 255 characters, and Rust and Postgres count 256.
    let response = create(&mut creator, &json!({"title": format!("{}e\u{301}", "x".repeat(254))})).await;
    let what = "a title of 256 characters, of which one is a combining mark";
    assert_eq!(pointers(&response, what), ["#/title"], "the pointers of {what}");
}

#[tokio::test]
async fn description_of_10000_characters_is_accepted_and_not_one_more() {
    let environment = TestEnvironment::new().await;
    let id = environment.task("t", "").await;
    let mut updater = environment.function("update-task").start().await;
    for character in ["x", "é", "🚀"] {
        let description = character.repeat(10_000);
        let response = change(&mut updater, id, &json!({"description": description})).await;
        assert_eq!(
            response.status, 200,
            "the status of a description of 10,000 times {character}"
        );
        assert_eq!(
            environment.row(id).await["description"],
            json!(description),
            "the stored description"
        );

        let response = change(&mut updater, id, &json!({"description": character.repeat(10_001)})).await;
        let what = format!("a description of 10,001 times {character}");
        let [(pointer, detail)] = &mistakes(&response, &what)[..] else {
            panic!("{what} is not one mistake: {}", response.body);
        };
        assert_eq!(pointer, "#/description", "the pointer of {what}");
        // Perhaps with a separator of thousands.
        let digits: String = detail.chars().filter(char::is_ascii_digit).collect();
        assert!(
            digits.contains("10000") && digits.contains("10001"),
            "the detail of {what} has not both numbers: {detail}"
        );
    }
}

#[tokio::test]
async fn nul_is_refused_in_both_texts_and_stores_nothing() {
    let environment = TestEnvironment::new().await;
    let mut creator = environment.function("create-task").start().await;
    for (body, pointer) in [
        (json!({"title": "a\0b"}), "#/title"),
        (json!({"title": "t", "description": "a\0b"}), "#/description"),
        (json!({"title": "t", "description": "\0"}), "#/description"),
    ] {
        let response = create(&mut creator, &body).await;
        let what = body.to_string();
        assert_eq!(pointers(&response, &what), [pointer], "the pointers of {what}");
    }
    let rows = environment.rows("select id from tasks").await;
    assert_eq!(rows.len(), 0, "stored tasks");

    let id = environment.task("t", "d").await;
    let before = environment.row(id).await;
    let mut updater = environment.function("update-task").start().await;
    for (body, pointer) in [
        (json!({"title": "a\0b"}), "#/title"),
        (json!({"description": "\0"}), "#/description"),
    ] {
        let response = change(&mut updater, id, &body).await;
        let what = format!("a change to {body}");
        assert_eq!(pointers(&response, &what), [pointer], "the pointers of {what}");
    }
    assert_eq!(environment.row(id).await, before, "the row");
}

#[tokio::test]
async fn null_removes_the_description_and_absence_keeps_it() {
    let environment = TestEnvironment::new().await;
    let id = environment.task("t", "old").await;
    let mut updater = environment.function("update-task").start().await;
    let response = change(&mut updater, id, &json!({"title": "u"})).await;
    assert_eq!(response.status, 200, "the status of a change of the title");
    assert_eq!(
        environment.row(id).await["description"],
        "old",
        "the description, which was not sent"
    );
    let response = change(&mut updater, id, &json!({"description": ""})).await;
    assert_eq!(response.json()["description"], "", "the description, sent as empty");
    let response = change(&mut updater, id, &json!({"description": null})).await;
    assert_eq!(response.status, 200, "the status of a change to null");
    assert_eq!(
        response.json()["description"],
        Value::Null,
        "the description, sent as null"
    );
    assert_eq!(
        environment.row(id).await["description"],
        Value::Null,
        "the stored description, sent as null"
    );

    let mut creator = environment.function("create-task").start().await;
    let response = create(&mut creator, &json!({"title": "t", "description": null})).await;
    assert_eq!(
        response.status, 201,
        "the status of a new task whose description is null"
    );
    assert_eq!(response.json()["description"], Value::Null, "its description");
}

#[tokio::test]
async fn null_title_and_status_are_reported_and_change_nothing() {
    let environment = TestEnvironment::new().await;
    let id = environment.task("t", "d").await;
    let before = environment.row(id).await;
    let mut updater = environment.function("update-task").start().await;
    for (body, expected) in [
        (json!({"title": null}), &["#/title"][..]),
        (json!({"status": null}), &["#/status"][..]),
        (
            json!({"title": null, "status": null, "description": "e"}),
            &["#/status", "#/title"][..],
        ),
    ] {
        let response = change(&mut updater, id, &body).await;
        let what = format!("a change to {body}");
        assert_eq!(pointers(&response, &what), expected, "the pointers of {what}");
    }
    assert_eq!(environment.row(id).await, before, "the row");

    let mut creator = environment.function("create-task").start().await;
    let response = create(&mut creator, &json!({"title": null})).await;
    assert_eq!(
        pointers(&response, "a new task whose title is null"),
        ["#/title"],
        "the pointers of a new task whose title is null"
    );
}

#[tokio::test]
async fn title_is_stored_exactly_as_sent_unless_it_is_blank() {
    let environment = TestEnvironment::new().await;
    let mut creator = environment.function("create-task").start().await;
    let titles = [" Ship it 🚀 ", "  - indented", "ends with a line break\n", "\u{a0}x"];
    for title in titles {
        let response = create(&mut creator, &json!({"title": title})).await;
        assert_eq!(response.status, 201, "the status of the title {title:?}");
        let task = response.json();
        assert_eq!(task["title"], title, "the title in the response");
        let id = task["id"].as_i64().expect("an id");
        assert_eq!(environment.row(id).await["title"], title, "the stored title");
    }
    let description = " - indented\r\n\n";
    let response = create(&mut creator, &json!({"title": "t", "description": description})).await;
    assert_eq!(
        response.status, 201,
        "the status of a description with blanks around it"
    );
    let id = response.json()["id"].as_i64().expect("an id");
    assert_eq!(
        environment.row(id).await["description"],
        description,
        "the stored description"
    );
    let blanks = ["", " ", "\t\r\n", "\u{2003}\u{a0}"];
    for title in blanks {
        let response = create(&mut creator, &json!({"title": title})).await;
        let what = format!("the title {title:?}");
        assert_eq!(pointers(&response, &what), ["#/title"], "the pointers of {what}");
    }

    // A change stores its texts as exactly.
    let mut updater = environment.function("update-task").start().await;
    for title in titles {
        let response = change(&mut updater, id, &json!({"title": title})).await;
        assert_eq!(response.status, 200, "the status of a change to the title {title:?}");
        assert_eq!(environment.row(id).await["title"], title, "the stored title");
    }
    let description = "\t- changed\n";
    let response = change(&mut updater, id, &json!({"description": description})).await;
    assert_eq!(
        response.status, 200,
        "the status of a change to a description with blanks around it"
    );
    let before = environment.row(id).await;
    assert_eq!(before["description"], description, "the stored description");
    for title in blanks {
        let response = change(&mut updater, id, &json!({"title": title})).await;
        let what = format!("a change to the title {title:?}");
        assert_eq!(pointers(&response, &what), ["#/title"], "the pointers of {what}");
    }
    assert_eq!(environment.row(id).await, before, "the row");
}

#[tokio::test]
async fn every_mistake_of_a_body_is_reported_at_once() {
    let environment = TestEnvironment::new().await;
    let mut creator = environment.function("create-task").start().await;
    let body = json!({"title": null, "description": "a\0b", "priority": 1});
    let response = create(&mut creator, &body).await;
    assert_eq!(
        pointers(&response, "three mistakes"),
        ["#/description", "#/priority", "#/title"],
        "the pointers of three mistakes"
    );
    let body = json!({"title": "é".repeat(256), "description": "é".repeat(10_001)});
    let response = create(&mut creator, &body).await;
    assert_eq!(
        pointers(&response, "two texts that are too long"),
        ["#/description", "#/title"],
        "the pointers of two texts that are too long"
    );
}
