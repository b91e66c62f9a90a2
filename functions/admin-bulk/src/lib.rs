//! `POST /admin/actions`: retries, cancels or deletes all tasks that match a filter, or counts them.
//! `POST /admin/actions/{id}/continue`: carries out its next step.

use lambda_http::{Body, RequestExt, Response, http::StatusCode};
use serde::Serialize;
use shared::{
    domain::BulkRequest,
    http::{self, ApiError, Context, problem},
    store::{
        Database,
        actions::Action,
        bulk::{ContinueAction, CountMatching, StartAction},
    },
};
use utoipa::ToSchema;

/// The number of tasks that an action would change.
#[derive(Serialize, ToSchema)]
pub struct DryRun {
    /// How many tasks match.
    #[schema(minimum = 0)]
    count: i64,
    /// False if it is an estimate: more than 10,000 tasks would have to be examined.
    is_exact: bool,
}

/// Dispatches by path.
pub async fn handle(database: &Database, context: Context) -> Result<Response<Body>, ApiError> {
    match context.request.path_parameters().first("id") {
        None => start(database, context).await,
        Some(_) => resume(database, context).await,
    }
}

/// 200 with the number of tasks for a dry run; 202 with the action and its first step; 400, 413, 415,
/// 422.
#[utoipa::path(
    post,
    path = "/admin/actions",
    operation_id = "startAction",
    tag = "operators",
    summary = "Retry, cancel or delete all tasks that match",
    description = "Without `\"dry_run\": false` the tasks are only counted. Otherwise up to 1,000 are changed, newest \
                   first; `POST /admin/actions/{id}/continue` changes the next ones, until `is_complete`. Tasks that \
                   are created meanwhile are not changed. Messages of retried tasks are sent within a minute or two.",
    request_body = BulkRequest,
    responses(
        (status = 200, description = "The number of tasks that match: nothing was changed.", body = DryRun),
        (status = 202, description = "The action; more steps follow unless it is complete.", body = Action,
            links(("continueAction" = (operation_id = "continueAction", parameters(("id" = "$response.body#/id")))))),
        (status = 400, response = problem::NotJson),
        (status = 413, response = problem::TooLarge),
        (status = 415, response = problem::UnsupportedMediaType),
        (status = 422, response = problem::Invalid),
        (status = 503, response = problem::Unavailable),
    )
)]
pub async fn start(database: &Database, context: Context) -> Result<Response<Body>, ApiError> {
    let operator = &context.operator()?.subject;
    let request: BulkRequest = http::json_body(&context.request)?;
    let (action, filter) = (request.action, &request.filter());
    if request.dry_run {
        let total = database.run(&CountMatching { action, filter }).await?;
        let body = DryRun {
            count: total.count,
            is_exact: total.is_exact,
        };
        return Ok(http::json(StatusCode::OK, &body));
    }
    let start = StartAction {
        operator,
        action,
        filter,
    };
    let id = database.run(&start).await?;
    step(database, id, StatusCode::ACCEPTED).await
}

/// 200 with the action after its next step; 404, 422.
#[utoipa::path(
    post,
    path = "/admin/actions/{id}/continue",
    operation_id = "continueAction",
    tag = "operators",
    summary = "Continue an action about many tasks",
    description = "Changes up to 1,000 tasks more. To be repeated until `is_complete`, by any admin; a complete action \
                   remains as it is.",
    params(("id" = i64, Path, minimum = 1, description = "The action's id.")),
    responses(
        (status = 200, description = "The action; more steps follow unless it is complete.", body = Action,
            links(("continueAction" = (operation_id = "continueAction", parameters(("id" = "$response.body#/id")))))),
        (status = 404, response = problem::NoSuchAction),
        (status = 422, response = problem::Invalid),
        (status = 503, response = problem::Unavailable),
    )
)]
pub async fn resume(database: &Database, context: Context) -> Result<Response<Body>, ApiError> {
    context.operator()?;
    let id = http::action_id(&context.request)?;
    step(database, id, StatusCode::OK).await
}

async fn step(database: &Database, id: i64, status: StatusCode) -> Result<Response<Body>, ApiError> {
    let action = database.run(&ContinueAction(id)).await?;
    let action = action.ok_or(ApiError::NoSuchAction(id))?;
    Ok(http::json(status, &action))
}
