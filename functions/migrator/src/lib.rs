//! Brings the database to what the code expects, while a stack is deployed: as a custom resource of CloudFormation.
//!
//! Whatever happens, CloudFormation is told: without an answer the stack would wait until its own timeout. So a
//! migration that fails fails the deployment with Postgres's own words, and nothing else of it is rolled out.

mod migrate;
mod response;

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, SystemTime},
};

use futures::FutureExt;
use serde::Deserialize;
use shared::telemetry;
use tokio::time::timeout;

pub use migrate::{MIGRATIONS, MigratorError, PATIENCE, ROLES, migrate};
pub use response::ResponseError;

/// The part of the invocation that is kept free at its end, to answer CloudFormation.
const RESERVE: Duration = Duration::from_secs(15);

/// What CloudFormation wants (AWS CloudFormation User Guide, "Custom resource request objects"). Not `Debug`: who
/// knows the URL can answer for us.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Request {
    request_type: RequestType,
    #[serde(rename = "ResponseURL")]
    response_url: String,
    stack_id: String,
    request_id: String,
    logical_resource_id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum RequestType {
    Create,
    Update,
    Delete,
}

/// Does the work that a request asks for, and answers it: in time, and whether the work succeeds, fails, panics or
/// takes too long. `work` is [`migrate`], or what a test puts in its place; it returns the name of the database.
///
/// When the stack is deleted there is nothing to do: the data goes, or stays, with the cluster.
pub async fn handle(
    request: &Request,
    deadline: SystemTime,
    work: impl AsyncFnOnce() -> Result<String, MigratorError>,
) -> Result<(), ResponseError> {
    let what = request.request_type;
    tracing::info!(?what, "asked by CloudFormation");
    if what == RequestType::Delete {
        return response::send(request, Ok(None)).await;
    }
    let left = deadline.duration_since(SystemTime::now()).unwrap_or_default();
    let work = AssertUnwindSafe(async { work().await }).catch_unwind();
    let outcome = match timeout(left.saturating_sub(RESERVE), work).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(MigratorError::Panicked),
        Err(_) => Err(MigratorError::TimedOut),
    };
    match &outcome {
        Ok(database) => tracing::info!(database, "the database is ready"),
        Err(error) => telemetry::log_error(error, "the database is not ready"),
    }
    response::send(request, outcome.map(Some)).await
}
