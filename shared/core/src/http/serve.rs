//! Runs a handler under the Lambda runtime.

use std::{
    future::{Future, ready},
    pin::Pin,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use lambda_http::{
    Adapter, Body, Error, IntoResponse, LambdaEvent, RequestExt, Response,
    http::{HeaderMap, HeaderValue, header},
    request::LambdaRequest,
    service_fn,
    tower::{Layer, ServiceExt},
};
use serde::Serialize;
use tower_http::cors::CorsLayer;
use tracing::{Instrument, field::Empty};

use super::{ApiError, Context, cors};
use crate::{
    config::{self, Auth, AuthConfig},
    telemetry::chain,
    trace::TraceHeader,
};

/// A type-erased handler, so that the code below is compiled once, here, and not in every function.
type Handler<'a> = dyn Fn(Context) -> BoxFuture<'a> + Sync + 'a;

type BoxFuture<'a> = Pin<Box<dyn Future<Output = Result<Response<Body>, ApiError>> + Send + 'a>>;

/// Serves requests until Lambda shuts down the execution environment.
pub async fn serve<'a, H, F>(handler: H) -> Result<(), Error>
where
    H: Fn(Context) -> F + Sync + 'a,
    F: Future<Output = Result<Response<Body>, ApiError>> + Send + 'a,
{
    run(&|context| Box::pin(handler(context))).await
}

async fn run(handler: &Handler<'_>) -> Result<(), Error> {
    let auth = config::from_env::<AuthConfig>()?.auth;
    let cors = &cors::from_env()?;
    lambda_http::lambda_runtime::run(service_fn(|event| respond_to(handler, auth, cors.as_ref(), event))).await
}

/// Handles one API Gateway event. The return value serializes to the response format of API
/// Gateway.
pub async fn respond<'a, H, F>(
    handler: &'a H,
    auth: Auth,
    cors: Option<&CorsLayer>,
    event: LambdaEvent<LambdaRequest>,
) -> Result<impl Serialize, Error>
where
    H: Fn(Context) -> F + Sync,
    F: Future<Output = Result<Response<Body>, ApiError>> + Send + 'a,
{
    respond_to(&|context| Box::pin(handler(context)), auth, cors, event).await
}

async fn respond_to(
    handler: &Handler<'_>,
    auth: Auth,
    cors: Option<&CorsLayer>,
    mut event: LambdaEvent<LambdaRequest>,
) -> Result<impl Serialize + use<>, Error> {
    if let Some(reason) = take_malformed_base64(&mut event.payload) {
        let refuse = |_| -> BoxFuture<'_> { Box::pin(ready(Err(ApiError::NotJson(reason.clone())))) };
        return adapt(&refuse, auth, cors, event).await;
    }
    adapt(handler, auth, cors, event).await
}

/// Converts the event to a request, calls the handler and converts its response.
async fn adapt(
    handler: &Handler<'_>,
    auth: Auth,
    cors: Option<&CorsLayer>,
    event: LambdaEvent<LambdaRequest>,
) -> Result<impl Serialize + use<>, Error> {
    let service = service_fn(move |request| async move {
        let response = serve_request(handler, Context::new(request, auth)).await;
        Ok::<_, Error>(response)
    });
    match cors {
        Some(cors) => {
            Adapter::from(cors.layer(service).map_response(Ready))
                .oneshot(event)
                .await
        }
        None => Adapter::from(service.map_response(Ready)).oneshot(event).await,
    }
}

/// A response whose body is already text or bytes. For other types `lambda_http` guesses which from
/// the content type and decodes the body with the character set tables of the web: 154 KB of each
/// function, unzipped.
struct Ready(Response<Body>);

impl IntoResponse for Ready {
    fn into_response(self) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        Box::pin(ready(self.0))
    }
}

async fn serve_request(handler: &Handler<'_>, context: Context) -> Response<Body> {
    // The path as the client sent it: the URI may begin with the stage. Without the query, which
    // may contain sensitive data.
    let span = tracing::info_span!(
        "request",
        method = %context.request.method(),
        path = context.request.raw_http_path(),
        taskId = Empty,
        traceId = context.trace().map(TraceHeader::trace_id),
    );
    async move {
        let outcome = handler(context).await;
        let mut response = outcome.unwrap_or_else(|error| {
            if error.status().is_server_error() {
                tracing::error!(error = chain(&error), "the request failed");
            }
            error.into_response()
        });
        add_security_headers(response.headers_mut());
        tracing::info!(status = response.status().as_u16(), "request served");
        response
    }
    .instrument(span)
    .await
}

/// Adds security headers, except those that the handler has set (OWASP, "REST Security Cheat
/// Sheet", "Security Headers").
fn add_security_headers(headers: &mut HeaderMap) {
    for (name, value) in [
        // Responses may change at any time; clients revalidate with the ETag.
        (header::CACHE_CONTROL, "no-cache"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// Removes a body that is marked as base64 but is malformed, and returns the reason: `lambda_http`
/// would panic on it.
fn take_malformed_base64(event: &mut LambdaRequest) -> Option<String> {
    let body = match event {
        LambdaRequest::ApiGatewayV1(event) if event.is_base64_encoded => &mut event.body,
        LambdaRequest::ApiGatewayV2(event) if event.is_base64_encoded => &mut event.body,
        _ => return None,
    };
    let reason = STANDARD.decode(body.as_deref()?).err()?;
    *body = None;
    Some(format!("not valid base64: {reason}"))
}
