//! `GET /tasks?skip&limit`: one page of tasks, oldest first.

use lambda_http::{Body, Request, Response, http::StatusCode};
use shared::{
    domain::Page,
    http::{self, ApiError},
    store::{Database, tasks},
};

/// 200 with an array of tasks, empty beyond the end; 422.
pub async fn handle(database: &Database, request: Request) -> Result<Response<Body>, ApiError> {
    let query = http::query(&request);
    let query = query.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let page = Page::parse(query).map_err(ApiError::Invalid)?;
    let tasks = database.run(&tasks::List(page)).await?;
    Ok(http::json(StatusCode::OK, &tasks))
}
