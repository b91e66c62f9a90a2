//! `GET /tasks`: a page of the caller's tasks.

use lambda_http::{
    Body, Response,
    http::{HeaderValue, StatusCode, header},
};
use shared::{
    domain::{Cursor, Page, Sort, Start, Status, Task},
    http::{self, ApiError, Context, problem},
    store::{
        Database,
        tasks::{self, Listed},
    },
};

/// 200 with a bare array, `Link`s to the neighboring pages and, for `?count=true`, `X-Total-Count`; 422.
#[utoipa::path(
    get,
    path = "/tasks",
    operation_id = "listTasks",
    tag = "tasks",
    summary = "List tasks",
    description = "A page of the caller's tasks; admins see the tasks of all users. Follow the `Link` header: \
                   pages stay stable while tasks are created and deleted. A page of very long tasks may have \
                   fewer than `limit`. With `q` or `status` a page may end early, even without a task, \
                   where few tasks match: follow `next` until there is none.",
    params(
        ("after" = Option<String>, Query, format = "cursor",
            description = "Start after this cursor, taken from a `Link` header. Cannot be combined with `before`."),
        ("before" = Option<String>, Query, format = "cursor",
            description = "End before this cursor, taken from a `Link` header. Cannot be combined with `after`."),
        ("skip" = Option<i64>, Query, minimum = 0, maximum = 10000,
            description = "How many tasks to skip from there. To go further, follow the `Link` header."),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100,
            description = "How many tasks to return; 100 by default."),
        ("sort" = inline(Option<Sort>), Query,
            description = "`id`: oldest first (the default). `-id`: newest first."),
        ("status" = inline(Option<Status>), Query, description = "Only tasks with this status."),
        ("q" = Option<String>, Query, max_length = 255, pattern = "^[^\\u0000]*$",
            description = "Only tasks whose title contains this text, ignoring case."),
        ("count" = Option<bool>, Query, 
            description = "`true`: return the number of all matching tasks in `X-Total-Count`. At most the newest \
                           10,000 tasks are counted: `X-Total-Count-Relation` tells whether there may be more."),
    ),
    responses(
        (status = 200, description = "A page of tasks.", body = Vec<Task>,
            headers(
                ("Link" = String,
                    description = "The `first`, `prev` and `next` pages (RFC 8288), relative to this URL."),
                ("X-Total-Count" = i64,
                    description = "The number of matching tasks; only with `count=true`."),
                ("X-Total-Count-Relation" = String,
                    description = "`eq` if `X-Total-Count` is exact, `gte` if there are at least as many tasks: the caller \
                                   has more than 10,000 tasks (with that `status`), and only the newest 10,000 were \
                                   counted. Only with `count=true`."),
            )),
        (status = 422, response = problem::Invalid),
        (status = 503, response = problem::Unavailable),
    )
)]
pub async fn handle(database: &Database, context: Context) -> Result<Response<Body>, ApiError> {
    let caller = context.caller()?;
    let query = http::query(&context.request);
    let page = Page::parse(query.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let page = page.map_err(ApiError::Invalid)?;
    let list = tasks::List {
        page: &page,
        access: caller.access(),
    };
    let mut listed = database.run(&list).await?;
    let mut body = http::to_json(&listed.tasks);
    // The first comparison is enough for nearly all pages.
    if body.len() > http::MAX_RESPONSE / 2 && http::bytes_in_response(&body) > http::MAX_RESPONSE {
        shorten(&mut listed, page.start);
        body = http::to_json(&listed.tasks);
    }

    let mut response = http::json_text(StatusCode::OK, body);
    let headers = response.headers_mut();
    if let Some(links) = links(&page, listed.previous, listed.next) {
        headers.insert(header::LINK, links);
    }
    if let Some(total) = listed.total {
        headers.insert("x-total-count", HeaderValue::from(total.count));
        let relation = if total.is_exact { "eq" } else { "gte" };
        headers.insert("x-total-count-relation", HeaderValue::from_static(relation));
    }
    Ok(response)
}

/// Drops the tasks that do not fit into a response; the neighboring page begins with them. One task
/// always fits.
fn shorten(listed: &mut Listed, start: Start) {
    let mut left = http::MAX_RESPONSE;
    let mut fits = |task: &Task| {
        // With its comma, or a bracket.
        let bytes = http::bytes_in_response(&http::to_json(task)) + 1;
        let fits = bytes < left;
        left = left.saturating_sub(bytes);
        fits
    };
    let tasks = &mut listed.tasks;
    if let Start::Before(_) = start {
        // This page ends at the cursor.
        let kept = tasks.iter().rev().take_while(|task| fits(task)).count();
        tasks.drain(..tasks.len() - kept.max(1));
        listed.previous = tasks.first().map(|task| Cursor(task.id));
    } else {
        let kept = tasks.iter().take_while(|task| fits(task)).count();
        tasks.truncate(kept.max(1));
        listed.next = tasks.last().map(|task| Cursor(task.id));
    }
}

/// Links to the first, previous and next page (RFC 8288), with the same order and filter.
fn links(page: &Page, previous: Option<Cursor>, next: Option<Cursor>) -> Option<HeaderValue> {
    let neighbors = [
        ("first", (page.start != Start::First).then_some(None)),
        ("prev", previous.map(|cursor| Some(("before", cursor)))),
        ("next", next.map(|cursor| Some(("after", cursor)))),
    ];
    let links: Vec<String> = neighbors
        .into_iter()
        .filter_map(|(relation, start)| Some(format!("<?{}>; rel=\"{relation}\"", query(page, start?))))
        .collect();
    let text = (!links.is_empty()).then(|| links.join(", "))?;
    Some(HeaderValue::from_str(&text).expect("percent-encoded text is a valid header value"))
}

/// The query string of a page with another start. By itself it is a URL relative to the request's
/// (RFC 3986, section 5.2), which works behind any stage or domain.
fn query(page: &Page, start: Option<(&str, Cursor)>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some((name, cursor)) = start {
        query.append_pair(name, &cursor.to_string());
    }
    query.append_pair("limit", &page.limit.to_string());
    query.append_pair("sort", page.sort.as_str());
    if let Some(status) = page.filter.status {
        query.append_pair("status", status.as_str());
    }
    if let Some(title) = &page.filter.title {
        query.append_pair("q", title);
    }
    if page.count {
        query.append_pair("count", "true");
    }
    query.finish()
}
