//! Runs a handler under the Lambda runtime.

use std::{future::Future, pin::Pin};

use lambda_http::{
    Body, Error, LambdaEvent, RequestExt, Response,
    http::{HeaderMap, HeaderValue, Method, header},
    service_fn,
    tower::{Layer, ServiceExt},
};
use serde::Serialize;
use serde_json::value::RawValue;
use tower_http::cors::CorsLayer;
use tracing::{Instrument, field::Empty};

use super::{
    ApiError, Context, cors,
    event::{self, ProxyResponse, Received},
};
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

/// Handles one event of API Gateway. The return value serializes to the response format of API
/// Gateway.
pub async fn respond<'a, H, F>(
    handler: &'a H,
    auth: Auth,
    cors: Option<&CorsLayer>,
    event: LambdaEvent<Box<RawValue>>,
) -> Result<impl Serialize, Error>
where
    H: Fn(Context) -> F + Sync,
    F: Future<Output = Result<Response<Body>, ApiError>> + Send + 'a,
{
    respond_to(&|context| Box::pin(handler(context)), auth, cors, event).await
}

/// Takes the event as it is: one that cannot be parsed would be an error of the function.
async fn respond_to(
    handler: &Handler<'_>,
    auth: Auth,
    cors: Option<&CorsLayer>,
    event: LambdaEvent<Box<RawValue>>,
) -> Result<ProxyResponse, Error> {
    let Received {
        request,
        mut refusal,
        format,
    } = event::receive(&event.payload);
    let request = request.with_lambda_context(event.context);
    let service = service_fn(move |request| {
        let refusal = refusal.take();
        async move {
            let response = serve_request(handler, Context::new(request, auth), refusal).await;
            Ok::<_, Error>(response)
        }
    });
    let response = match cors {
        Some(cors) => cors.layer(service).oneshot(request).await?,
        None => service.oneshot(request).await?,
    };
    Ok(ProxyResponse::new(format, response))
}

async fn serve_request(handler: &Handler<'_>, context: Context, refusal: Option<ApiError>) -> Response<Body> {
    // The path without the stage, and without the query, which may contain sensitive data.
    let span = tracing::info_span!(
        "request",
        method = %context.request.method(),
        path = context.request.raw_http_path(),
        taskId = Empty,
        traceId = context.trace().map(TraceHeader::trace_id),
    );
    async move {
        let is_head = context.request.method() == Method::HEAD;
        let outcome = match refusal {
            Some(refusal) => Err(refusal),
            None => handler(context).await,
        };
        let mut response = outcome.unwrap_or_else(|error| {
            if error.status().is_server_error() {
                tracing::error!(error = chain(&error), "the request failed");
            }
            error.into_response()
        });
        add_security_headers(response.headers_mut());
        // As for GET, but without the body (RFC 9110, section 9.3.2).
        if is_head {
            *response.body_mut() = Body::Empty;
        }
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
