//! Migrates the database during a deployment, as a CloudFormation custom resource.
//!
//! CloudFormation gets a response in every case: without one, the stack would wait until its own
//! timeout. A failed migration fails the deployment with the error message of Postgres, before any
//! function is updated.

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

pub use migrate::{CONNECT_TIMEOUT, MIGRATIONS, MigratorError, ROLES, migrate, migrate_with};
pub use response::ResponseError;

/// Reserved at the end of the invocation for the response to CloudFormation.
const RESPONSE_TIME: Duration = Duration::from_secs(15);

/// A request from CloudFormation (AWS CloudFormation User Guide, "Custom resource request
/// objects"). Not `Debug`: the response URL is a secret, as it allows a response in our place.
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

/// Does the work and sends the response in time, whether the work succeeds, fails, panics or times
/// out. `work` is [`migrate()`], or a substitute in tests; it returns the name of the database.
///
/// When the stack is deleted there is nothing to do: the data is deleted or retained with the
/// cluster.
pub async fn handle(
    request: &Request,
    deadline: SystemTime,
    work: impl AsyncFnOnce() -> Result<String, MigratorError>,
) -> Result<(), ResponseError> {
    let request_type = request.request_type;
    tracing::info!(?request_type, "CloudFormation request received");
    if request_type == RequestType::Delete {
        return response::send(request, Ok(None)).await;
    }
    let left = deadline.duration_since(SystemTime::now()).unwrap_or_default();
    let work = AssertUnwindSafe(async { work().await }).catch_unwind();
    let outcome = match timeout(left.saturating_sub(RESPONSE_TIME), work).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(MigratorError::Panicked),
        Err(_) => Err(MigratorError::TimedOut),
    };
    match &outcome {
        Ok(database) => tracing::info!(database, "database ready"),
        Err(error) => telemetry::log_error(error, "database not ready"),
    }
    response::send(request, outcome.map(Some)).await
}
