//! `GET /admin/failures`: the failures of the last day, by reason.

use lambda_http::{Body, Response, http::StatusCode};
use shared::{
    http::{self, ApiError, Context, problem},
    store::{
        Database,
        operating::{Failures, GroupFailures},
    },
};

/// 200 with the groups.
#[utoipa::path(
    get,
    path = "/admin/failures",
    operation_id = "getFailures",
    tag = "operators",
    summary = "Failures by reason",
    description = "The tasks that failed in the last 24 hours and still are, by reason: words with digits, like ids, \
                   numbers and times, do not count. To retry a group, `POST /admin/actions` with its `error` and \
                   `since` as `ended_after`.",
    responses(
        (status = 200, description = "The 50 most frequent reasons.", body = Failures),
        (status = 503, response = problem::Unavailable),
    )
)]
pub async fn handle(database: &Database, context: Context) -> Result<Response<Body>, ApiError> {
    context.operator()?;
    let failures = database.run(&GroupFailures).await?;
    Ok(http::json(StatusCode::OK, &failures))
}
