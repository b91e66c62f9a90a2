//! The pages of the deployed stack in a browser.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::{
    PAUSING,
    support::{Browser, env, eventually, token},
};

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
async fn dashboard_of_closed_api_requires_operator_token() {
    let mut browser = Browser::start().await;
    browser.set_viewport(1280, 900, false).await;
    browser
        .open(&format!("{}/admin/dashboard", env("CLOSED_API_URL")))
        .await;
    for (scope, signed_in) in [("", false), ("viewer", true)] {
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

/// The titles in the list.
const TITLES: &str = "Array.from(document.querySelectorAll('#task-list .row-title'), (node) => node.textContent)";

/// Inserts completed tasks with these titles, the oldest first, and returns their ids.
async fn insert(titles: &[String], description: &str) -> Vec<i64> {
    let mut database = PgConnection::connect(&env("DATABASE_URL"))
        .await
        .expect("Postgres responds");
    sqlx::query_scalar(
        "with inserted as (
            insert into tasks (title, description, status, result, enqueued_at, settled_at)
            select title, $2::text, 'completed'::task_status, '+done', now(), now()
            from unnest($1::text[]) with ordinality as t (title, n) order by n
            returning id
         ) select id from inserted order by id",
    )
    .bind(titles)
    .bind(description)
    .fetch_all(&mut database)
    .await
    .expect("inserted")
}

#[tokio::test]
async fn dashboard_address_keeps_filter_page_and_task() {
    let word = unique("address");
    let titles: Vec<String> = (1..=25).map(|number| format!("{word} {number:02}")).collect();
    let ids = insert(&titles, "").await;
    let page = |numbers: std::ops::RangeInclusive<usize>| -> String {
        let titles: Vec<&String> = numbers.rev().map(|number| &titles[number - 1]).collect();
        format!("JSON.stringify({TITLES}) === {}", json!(json!(titles).to_string()))
    };
    let (first, second) = (page(6..=25), page(1..=5));
    let opened = format!(
        "document.querySelector('#detail-title')?.textContent === {} && document.querySelector('#detail').open",
        json!(titles[2])
    );
    // A page that is not loaded yet has neither.
    let closed = "document.querySelector('#detail')?.open === false";

    let mut browser = Browser::start().await;
    browser.set_viewport(1280, 900, false).await;
    let url = format!("{}/admin/dashboard", env("API_URL"));
    browser.open(&url).await;
    browser.click("[data-status='completed']").await;
    browser.type_into("#search", &word).await;
    // The tasks may be the only ones, and so on the page before the search as well.
    browser.wait_for(30, "location.search.includes('&q=')").await;
    browser.wait_for(30, &first).await;
    browser.click("#pages [data-rel='next']").await;
    browser.wait_for(30, &second).await;
    browser.click(&format!("#task-list [data-id='{}'] .row", ids[2])).await;
    browser.wait_for(30, &opened).await;
    let address = browser.eval("location.href").await;

    // Another tab, or a colleague.
    let address = address.as_str().expect("a URL").to_owned();
    assert!(
        address.contains("status=completed&q=address+") && address.ends_with(&format!("&task={}", ids[2])),
        "{address}"
    );
    browser.open("about:blank").await;
    browser.open(&address).await;
    for condition in [&opened, &second] {
        browser.wait_for(30, condition).await;
    }
    let controls = "[document.querySelector('#search').value, document.querySelector('#status-filter').value,
        document.querySelector('[aria-pressed=true]').dataset.status]";
    assert_eq!(browser.eval(controls).await, json!([word, "completed", "completed"]));

    browser.eval("history.go(-3)").await;
    for condition in [&format!("{closed} && {second}"), &second] {
        browser.wait_for(30, condition).await;
    }
    browser.eval("history.back()").await;
    browser.wait_for(30, &first).await;
    browser.eval("history.back()").await;
    browser
        .wait_for(30, "document.querySelector('#search')?.value === ''")
        .await;
    assert_eq!(browser.eval("location.search").await, "?status=completed");
    browser.eval("history.back()").await;
    browser
        .wait_for(
            30,
            "document.querySelector('[aria-pressed=true]')?.dataset.status === ''",
        )
        .await;
    browser.eval("history.go(4)").await;
    for condition in [&opened, &second] {
        browser.wait_for(30, condition).await;
    }
    // Closing is a place of its own, to which one can come back from.
    browser.press("Escape").await;
    browser.wait_for(30, "!location.search.includes('task=')").await;
    browser.eval("history.back()").await;
    browser.wait_for(30, &opened).await;

    // What the address cannot mean is left out.
    browser.open("about:blank").await;
    browser
        .open(&format!("{url}?status=none&task=-1&limit=7&other=1"))
        .await;
    browser.wait_for(30, "location.search === ''").await;
    assert_eq!(
        browser
            .eval("document.querySelector('#list-problem').textContent")
            .await,
        ""
    );
    assert_eq!(browser.errors().await, NO_ERRORS);
}

#[tokio::test]
async fn dashboard_works_with_keyboard_alone() {
    let title = unique("from the keyboard");
    create(&title).await;
    let mut browser = Browser::start().await;
    browser.set_viewport(1280, 900, false).await;
    browser
        .open(&format!(
            "{}/admin/dashboard?q={}",
            env("API_URL"),
            title.replace(' ', "+")
        ))
        .await;
    let listed = format!("JSON.stringify({TITLES}) === {}", json!(json!([title]).to_string()));
    browser.wait_for(30, &listed).await;
    // The list of failures may change meanwhile.
    browser.click("#pause").await;
    browser.eval("document.activeElement.blur()").await;

    // Every control, in the order of the page, with a visible focus and a name.
    let reachable = "Array.from(document.querySelectorAll('button, input, select, textarea, summary, a[href]')).filter(
        (element) => element.checkVisibility() && !element.closest('dialog'))";
    browser
        .eval(&format!("window.reachable = {reachable}; window.scrollTo(0, 0)"))
        .await;
    let controls = browser.eval("reachable.length").await.as_u64().expect("a number");
    assert!(controls > 15, "{controls} controls");
    browser
        .eval("document.querySelector('h1').tabIndex = -1; document.querySelector('h1').focus()")
        .await;
    for index in 0..controls {
        browser.press("Tab").await;
        let focused = browser
            .eval(
                "(() => {
                    const element = document.activeElement, style = getComputedStyle(element);
                    const name = element.ariaLabel || element.labels?.[0]?.textContent.trim() || element.textContent.trim();
                    return { at: reachable.indexOf(element), outline: parseFloat(style.outlineWidth), style: style.outlineStyle, name };
                })()",
            )
            .await;
        assert_eq!(focused["at"], index, "{focused}");
        assert!(
            focused["style"] == "solid" && focused["outline"].as_f64() >= Some(2.0),
            "{focused}"
        );
        assert!(
            focused["name"].as_str().is_some_and(|name| !name.is_empty()),
            "{focused}"
        );
    }

    let focus = |css: &str| format!("document.activeElement === document.querySelector({})", json!(css));
    browser.eval("document.querySelector('#task-list .row').focus()").await;
    browser.press("Enter").await;
    browser
        .wait_for(30, "!document.querySelector('#detail-body').hidden")
        .await;
    browser.wait_for(30, &focus("#detail [data-close]")).await;
    // The page behind the dialog is not reachable: the focus goes around in it, or to the browser.
    for _ in 0..6 {
        browser.press("Tab").await;
        let inside = "document.activeElement === document.body || document.querySelector('#detail').contains(document.activeElement)";
        assert_eq!(browser.eval(inside).await, true);
    }
    browser.press("Escape").await;
    browser.wait_for(30, "!document.querySelector('#detail').open").await;
    browser.wait_for(30, &focus("#task-list .row")).await;

    browser
        .eval("document.querySelector('.bar [data-open-form]').focus()")
        .await;
    browser.press("Enter").await;
    browser.wait_for(30, &focus("#title")).await;
    browser.press("Escape").await;
    browser.wait_for(30, &focus(".bar [data-open-form]")).await;
    assert_eq!(browser.errors().await, NO_ERRORS);
}

#[tokio::test]
async fn dashboard_exports_filtered_tasks_as_csv() {
    let word = unique("csv");
    let titles = [
        format!("=1+1 {word}"),
        format!("\"quoted\", {word}"),
        format!("@plain {word}"),
        format!("\u{200b}-hidden {word}"),
        format!("a=b {word}"),
    ];
    let ids = insert(&titles, "two\nlines").await;
    let other = insert(&[unique("not exported")], "").await;
    let folder = std::env::temp_dir().join(format!("downloads-{:016x}", fastrand::u64(..)));
    fs::create_dir(&folder).expect("a new folder");
    let mut browser = Browser::start().await;
    browser.set_viewport(1280, 900, false).await;
    browser.download_to(&folder).await;
    browser.open(&format!("{}/admin/dashboard", env("API_URL"))).await;
    browser.type_into("#search", &word).await;
    browser.wait_for(30, &format!("{TITLES}.length === 5")).await;

    browser.click("#export").await;
    let csv = downloaded(&folder).await;
    browser
        .wait_for(
            30,
            "document.querySelector('#announcement').textContent === '5 tasks exported.'",
        )
        .await;
    let (header, rows) = csv.split_once("\r\n").expect("a header");
    assert!(
        header.starts_with("id,title,description,status,result,attempts,"),
        "{header}"
    );
    let shown = [
        format!("'=1+1 {word}"),
        format!("\"\"\"quoted\"\", {word}\""),
        format!("'@plain {word}"),
        format!("'\u{200b}-hidden {word}"),
        format!("a=b {word}"),
    ];
    let rows: Vec<&str> = rows.split_terminator("\r\n").collect();
    assert_eq!(rows.len(), 5, "{csv}");
    // The newest first, as in the list.
    for ((id, title), row) in ids.iter().zip(&shown).rev().zip(rows) {
        let begin = format!("{id},{title},\"two\nlines\",completed,'+done,");
        assert!(row.starts_with(&begin), "{row} should begin {begin}");
    }
    assert!(
        !csv.contains(&other[0].to_string()) || !csv.contains("not exported"),
        "{csv}"
    );

    // At most a thousand.
    let many = unique("many");
    insert(
        &(0..1001).map(|number| format!("{many} {number}")).collect::<Vec<_>>(),
        "",
    )
    .await;
    browser.type_into("#search", &many).await;
    browser
        .wait_for(30, &format!("{TITLES}[0] === {}", json!(format!("{many} 1000"))))
        .await;
    browser.click("#export").await;
    let csv = downloaded(&folder).await;
    assert_eq!(csv.matches(&many).count(), 1000);
    browser
        .wait_for(
            30,
            "document.querySelector('#announcement').textContent === 'The newest 1,000 tasks exported.'",
        )
        .await;
    fs::remove_dir_all(&folder).expect("removed");
    assert_eq!(browser.errors().await, NO_ERRORS);
}

/// The complete download, which is removed: Chromium would overwrite it with the next one.
async fn downloaded(folder: &Path) -> String {
    let file = folder.join("tasks.csv");
    let text = eventually(30, "the download is complete", async || {
        fs::read_to_string(&file).ok().filter(|text| text.ends_with("\r\n"))
    });
    let text = text.await;
    fs::remove_file(file).expect("removed");
    text
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
    // On an open stack every caller is the same admin.
    let recorded = format!(
        "Array.from(document.querySelectorAll('#actions li > span'), (item) => item.textContent)
             .includes('anonymous cancelled task {}')",
        found[0]["id"]
    );
    browser.wait_for(30, &recorded).await;
    assert_eq!(browser.errors().await, NO_ERRORS);
}

/// In the closed stack no other test needs processing.
#[tokio::test]
async fn dashboard_of_closed_api_pauses_processing() {
    let _alone = PAUSING.lock().await;
    let mut browser = Browser::start().await;
    browser.set_viewport(1280, 900, false).await;
    browser
        .open(&format!("{}/admin/dashboard", env("CLOSED_API_URL")))
        .await;
    browser.wait_for(30, "document.querySelector('#sign-in').open").await;
    browser.type_into("#token", &token("alice", "admin")).await;
    browser.click("#sign-in .primary").await;
    let can_pause = "document.querySelector('#pause-processing').ariaDisabled === 'false'";
    browser.wait_for(30, can_pause).await;
    assert_eq!(browser.eval("document.querySelector('#paused').hidden").await, true);

    // With the keyboard alone.
    let focus = |css: &str| format!("document.querySelector({}).focus()", json!(css));
    browser.eval(&focus("#pause-processing")).await;
    browser.press("Enter").await;
    browser.wait_for(30, "document.querySelector('#confirm').open").await;
    browser.press("Tab").await;
    browser.press("Enter").await;
    let banner = "document.querySelector('#paused').checkVisibility()
        && document.querySelector('#paused p').textContent.startsWith('alice paused it ')";
    browser.wait_for(30, banner).await;
    assert_eq!(browser.eval("document.querySelector('#confirm').open").await, false);
    // Red, or its light shade in a dark page.
    let red = "/^rgb\\((178, 53, 41|242, 141, 130)\\)$/.test(getComputedStyle(document.querySelector('#paused')).backgroundColor)";
    assert_eq!(browser.eval(red).await, true);
    assert_fits(&mut browser, "document.documentElement").await;
    assert_eq!(browser.eval(&format!("{can_pause} === false")).await, true);

    browser.eval(&focus("#resume-processing")).await;
    browser.press("Enter").await;
    let resumed = format!("document.querySelector('#paused').hidden && {can_pause}");
    browser.wait_for(30, &resumed).await;
    let focused = browser.eval("document.activeElement.id").await;
    assert_eq!(focused, "pause-processing");
    let recorded = "Array.from(document.querySelectorAll('#actions li > span'), (item) => item.textContent)
        .filter((text) => text.endsWith(' processing')).slice(0, 2)";
    let both = format!("JSON.stringify({recorded}) === '[\"alice resumed processing\",\"alice paused processing\"]'");
    browser.wait_for(30, &both).await;
    // Of the requests before signing in.
    let errors = browser.errors().await;
    assert!(errors.iter().all(|error| error.contains("401")), "{errors:?}");
}

#[tokio::test]
async fn dashboard_schedules_task_and_runs_it_now() {
    let title = unique("later");
    let mut browser = Browser::start().await;
    browser.set_viewport(1280, 900, false).await;
    browser.open(&format!("{}/admin/dashboard", env("API_URL"))).await;
    // As a person picks it, in their own time zone.
    let fill = |field: &str, hours: u32| {
        format!(
            "(() => {{
                const time = new Date(Date.now() + {hours} * 3_600_000);
                const local = new Date(time - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
                document.querySelector('{field}').value = local;
                return `${{new Date(local).toISOString().slice(0, 19)}}Z`;
            }})()"
        )
    };
    browser.click(".bar [data-open-form]").await;
    browser.type_into("#title", &title).await;
    let run_at = browser.eval(&fill("#run_at", 2)).await;
    browser.click("#create-submit").await;
    browser.wait_for(30, "!document.querySelector('#create').open").await;
    search_dashboard(&mut browser, &title).await;
    let scheduled = get(&format!("/tasks?status=scheduled&q={title}")).await;
    assert_eq!(scheduled[0]["run_at"], run_at);

    browser.click("#task-list .row").await;
    let shown = |run_at: &Value| {
        format!(
            "document.querySelector('#detail-run-at').dateTime === {run_at} && document.querySelector('#process').textContent === 'Run now'"
        )
    };
    browser.wait_for(30, &shown(&run_at)).await;
    let later = browser.eval(&fill("#schedule-at", 5)).await;
    browser.click("#schedule").await;
    browser.wait_for(30, &shown(&later)).await;
    let time = browser
        .eval("document.querySelector('#detail-run-at').textContent")
        .await;
    assert!(time.as_str().is_some_and(|time| time.starts_with("in ")), "{time}");

    browser.click("#process").await;
    let completed = "document.querySelector('#detail-status').className === 'status completed'
        && document.querySelector('#process').textContent === 'Process again'
        && document.querySelector('#detail-scheduled').hidden";
    browser.wait_for(30, completed).await;
    assert_eq!(browser.errors().await, NO_ERRORS);
}

#[tokio::test]
async fn dashboard_retries_failures_of_one_reason() {
    let title = unique("failed");
    // A reason of letters alone, which no other test has.
    let reason: String = (0..12).map(|_| fastrand::lowercase()).collect();
    let mut database = PgConnection::connect(&env("DATABASE_URL"))
        .await
        .expect("Postgres responds");
    sqlx::query(
        "insert into tasks (title, status, result, enqueued_at, settled_at)
         select $1, 'failed', 'order ' || n || ': ' || $2, now(), now() from generate_series(1, 3) as n",
    )
    .bind(&title)
    .bind(&reason)
    .execute(&mut database)
    .await
    .expect("inserted");
    let mut browser = Browser::start().await;
    browser.set_viewport(1280, 900, false).await;
    browser.open(&format!("{}/admin/dashboard", env("API_URL"))).await;
    let group = format!(
        "Array.from(document.querySelectorAll('#reasons > li'))
             .find((item) => item.textContent.startsWith('3 × order #: {reason}'))"
    );
    browser.wait_for(30, &format!("{group} !== undefined")).await;
    browser
        .eval(&format!("{group}.querySelector('button:last-child').click()"))
        .await;
    let note = "document.querySelector('#bulk-note').textContent";
    let counted = format!("{note} === '3 tasks match. Nothing was changed.'");
    browser.wait_for(30, &counted).await;
    browser.click("#bulk-run").await;
    browser.wait_for(30, &format!("{note} === '3 tasks retried.'")).await;
    assert_eq!(get(&format!("/tasks?status=failed&q={title}")).await, json!([]));
    assert_eq!(browser.errors().await, NO_ERRORS);
}

#[tokio::test]
async fn dashboard_deletes_all_matching_tasks_in_steps() {
    let title = unique("to be deleted");
    insert(&vec![title.clone(); 1100], "").await;
    let mut browser = Browser::start().await;
    browser.set_viewport(1280, 900, false).await;
    browser
        .open(&format!(
            "{}/admin/dashboard?q={}",
            env("API_URL"),
            title.replace(' ', "+")
        ))
        .await;
    browser
        .wait_for(30, &format!("{TITLES}.includes({})", json!(title)))
        .await;
    browser.click("#open-bulk").await;
    browser
        .eval("document.querySelector('#bulk-action').value = 'delete'")
        .await;
    browser.click("#bulk-count").await;
    let note = "document.querySelector('#bulk-note').textContent";
    let counted = format!("{note} === '1,100 tasks match. Nothing was changed.'");
    browser.wait_for(30, &counted).await;
    let found = get(&format!("/tasks?q={title}&limit=100")).await;
    assert_eq!(found.as_array().map(Vec::len), Some(100));
    browser.click("#bulk-run").await;
    browser
        .wait_for(60, &format!("{note} === '1,100 tasks deleted.'"))
        .await;
    assert_eq!(get(&format!("/tasks?q={title}")).await, json!([]));
    let recorded = format!(
        "Array.from(document.querySelectorAll('#actions li > span'), (item) => item.textContent)
             .includes('anonymous deleted 1,100 tasksq: {title}')"
    );
    browser.wait_for(30, &recorded).await;
    // Another filter has not been counted yet.
    browser.type_into("#bulk-q", "another").await;
    let is_hidden = format!("document.querySelector('#bulk-run').hidden && {note} === ''");
    browser.wait_for(30, &is_hidden).await;
    assert_eq!(browser.errors().await, NO_ERRORS);
}

#[tokio::test]
async fn dashboard_fits_phone_width() {
    let title = unique(&"x".repeat(200));
    create(&title).await;
    let mut browser = Browser::start().await;
    browser.set_viewport(375, 812, true).await;
    browser.open(&format!("{}/admin/dashboard", env("API_URL"))).await;
    search_dashboard(&mut browser, &title).await;
    assert_fits(&mut browser, "document.documentElement").await;

    browser.click("#task-list .row").await;
    browser
        .wait_for(30, "!document.querySelector('#detail-body').hidden")
        .await;
    assert_fits(&mut browser, "document.querySelector('#detail')").await;
    browser.press("Escape").await;
    browser.click(".bar [data-open-form]").await;
    assert_fits(&mut browser, "document.querySelector('#create')").await;
    // No control is cut off, or too small for a finger.
    browser.press("Escape").await;
    let cut = "Array.from(document.querySelectorAll('button, input, select'))
        .filter((element) => element.checkVisibility())
        .map((element) => [element.id || element.className, element.getBoundingClientRect()])
        .filter(([, { left, right, height }]) => left < 0 || right > 375 || height < 38)
        .map(([name]) => name)";
    assert_eq!(browser.eval(cut).await, json!([]));
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

#[tokio::test]
async fn browser_follows_button_that_moves() {
    let mut browser = Browser::start().await;
    let page = "data:text/html,<button id=first>First</button><button id=second>Second</button>";
    browser.open(page).await;
    let move_once = "window.clicked = [];
        for (const id of ['first', 'second']) {
            document.getElementById(id).addEventListener('click', () => window.clicked.push(id));
        }
        addEventListener('mousedown', () => document.body.prepend(document.getElementById('second')), { once: true });";
    browser.eval(move_once).await;
    browser.click("#first").await;
    browser.click("#second").await;
    assert_eq!(browser.eval("window.clicked").await, json!(["first", "second"]));
}
