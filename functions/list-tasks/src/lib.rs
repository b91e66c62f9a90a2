//! `GET /tasks`: a page of tasks.

use lambda_http::{
    Body, Request, Response,
    http::{HeaderValue, StatusCode, header},
};
use shared::{
    domain::{Cursor, Page, Start},
    http::{self, ApiError},
    store::{Database, tasks},
};

/// 200 with a bare array; `Link`s to the pages around it; `X-Total-Count` if `?count=true` asks for it; 422.
pub async fn handle(database: &Database, request: Request) -> Result<Response<Body>, ApiError> {
    let query = http::query(&request);
    let page = Page::parse(query.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let page = page.map_err(ApiError::Invalid)?;
    let listed = database.run(&tasks::List(&page)).await?;

    let mut response = http::json(StatusCode::OK, &listed.tasks);
    let headers = response.headers_mut();
    if let Some(links) = links(&page, listed.previous, listed.next) {
        headers.insert(header::LINK, links);
    }
    if let Some(total) = listed.total {
        headers.insert("x-total-count", HeaderValue::from(total));
    }
    Ok(response)
}

/// The pages around this one (RFC 8288), with the same order and filter.
fn links(page: &Page, previous: Option<Cursor>, next: Option<Cursor>) -> Option<HeaderValue> {
    let around = [
        ("first", (page.start != Start::First).then_some(None)),
        ("prev", previous.map(|cursor| Some(("before", cursor)))),
        ("next", next.map(|cursor| Some(("after", cursor)))),
    ];
    let links: Vec<String> = around
        .into_iter()
        .filter_map(|(relation, place)| Some(format!("<?{}>; rel=\"{relation}\"", query(page, place?))))
        .collect();
    let text = (!links.is_empty()).then(|| links.join(", "))?;
    Some(HeaderValue::from_str(&text).expect("percent-encoded text is a header value"))
}

/// The query of a page that begins elsewhere. Alone it is a URL relative to the request's own (RFC 3986, section
/// 5.2), so that it holds behind any stage or domain.
fn query(page: &Page, place: Option<(&str, Cursor)>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some((name, cursor)) = place {
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
