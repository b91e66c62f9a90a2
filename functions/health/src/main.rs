//! The Lambda function for `GET /health` and `GET /ready`.

use shared::{
    store::{Database, Login},
    telemetry,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    // Unlike the other functions, it does not connect ahead: /health must not wake the database.
    let database = Database::new(Login::from_env()?);
    shared::http::serve(|context| health::handle(&database, context)).await
}
