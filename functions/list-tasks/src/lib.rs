//! `GET /tasks`: a page of tasks.

use lambda_http::{
    Body, Request, Response,
    http::{HeaderValue, StatusCode, header},
};
use shared::{
    domain::Page,
    http::{self, ApiError},
    store::{Database, tasks},
};

/// 200 with a bare array, by ascending id; with a `Link` to the next page, if there is one; 422.
pub async fn handle(database: &Database, request: Request) -> Result<Response<Body>, ApiError> {
    let query = http::query(&request);
    let page = Page::parse(query.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let page = page.map_err(ApiError::Invalid)?;
    let listed = database.run(&tasks::List(page)).await?;

    let mut response = http::json(StatusCode::OK, &listed.tasks);
    if let Some(next) = listed.next {
        // Relative to the request's own URL (RFC 3986, section 5.2), so that it holds behind any stage or domain.
        let link = format!("<?after={next}&limit={}>; rel=\"next\"", page.limit);
        let link = HeaderValue::from_str(&link).expect("a cursor and a number are a header value");
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}
