//! The Lambda function for `GET` and `PUT /admin/processing`.

use queue::EventSourceMapping;
use shared::{store::Database, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let (database, mapping) = (Database::from_env()?, EventSourceMapping::from_env()?);
    shared::http::serve(|context| admin_processing::handle(&database, mapping.as_ref(), context)).await
}
