//! `GET /admin/actions`: what operators have done.

use lambda_http::{
    Body, Response,
    http::{HeaderValue, StatusCode, header},
};
use shared::{
    domain,
    http::{self, ApiError, Context, problem},
    store::{
        Database,
        actions::{Action, ListActions},
    },
};

/// 200 with a bare array, and a `Link` to older actions; 422.
#[utoipa::path(
    get,
    path = "/admin/actions",
    operation_id = "listActions",
    tag = "operators",
    summary = "The actions of operators",
    description = "What admins have done, newest first: to single tasks, other than creating them, and to many. \
                   Follow the `Link` header for older actions.",
    params(
        ("before" = Option<i64>, Query, minimum = 1, description = "Only actions that are older than this one."),
    ),
    responses(
        (status = 200, description = "Up to 100 actions.", body = Vec<Action>,
            headers(("Link" = String, description = "The `next` page (RFC 8288), relative to this URL."))),
        (status = 422, response = problem::Invalid),
        (status = 503, response = problem::Unavailable),
    )
)]
pub async fn handle(database: &Database, context: Context) -> Result<Response<Body>, ApiError> {
    context.operator()?;
    let query = http::query(&context.request);
    let before = domain::before(query.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let before = before.map_err(ApiError::Invalid)?;
    let actions = database.run(&ListActions { before }).await?;
    let mut response = http::json(StatusCode::OK, &actions.page);
    if let (true, Some(last)) = (actions.is_more, actions.page.last()) {
        let link = format!("<?before={}>; rel=\"next\"", last.id);
        let link = HeaderValue::from_str(&link).expect("digits are a valid header value");
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}
