//! A stub HTTP server in place of a service that functions call.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Serves requests on a free port until the runtime ends; returns the server's URL.
pub async fn serve(respond: impl Fn(Request<Bytes>) -> Response<String> + Send + Sync + 'static) -> String {
    serve_after(Duration::ZERO, respond).await
}

/// The same, with responses that take this long.
pub async fn serve_after(
    time: Duration,
    respond: impl Fn(Request<Bytes>) -> Response<String> + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let respond = Arc::new(respond);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let respond = Arc::clone(&respond);
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let respond = Arc::clone(&respond);
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.expect("the client sends its body").to_bytes();
                        tokio::time::sleep(time).await;
                        let response = respond(Request::from_parts(head, body));
                        Ok::<_, Infallible>(response.map(Full::<Bytes>::from))
                    }
                });
                // Ends when the client disconnects.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    url
}
