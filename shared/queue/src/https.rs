//! The HTTPS client of the SDK and of [`crate::EventSourceMapping`].
//!
//! The SDK's own client, aws-smithy-http-client, cannot be built without HTTP/2, which SQS does not
//! support (226 KB of each function, unzipped), and by default loads every certificate authority of
//! the machine, which is 90% of the instructions of a cold start. This client also uses hyper, with
//! HTTP/1 and Amazon's authorities only.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    shared::IntoShared,
};
use aws_smithy_types::body::SdkBody;
use hyper::{Request, Response, body::Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, Client, connect},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

/// The certificate authorities of AWS; see amazon-roots/README.md for their origin.
const AMAZON_ROOTS: &[u8] = include_bytes!("../amazon-roots/amazon-roots.pem");

/// How long a connection may be idle before it is replaced. One that was idle for longer may have
/// died while the execution environment was frozen, without a trace: a request on it gets no
/// response.
const REUSE_WITHIN: Duration = Duration::from_secs(5);

/// A client that trusts only AWS over HTTPS, and uses plain HTTP if the endpoint's URL does, as in
/// the local stack. Created by its first request, so that it does not slow down init.
pub fn client() -> SharedHttpClient {
    client_trusting(AMAZON_ROOTS)
}

/// A client with other authorities, in PEM; tests use their own.
pub fn client_trusting(authorities: &'static [u8]) -> SharedHttpClient {
    client_reusing(authorities, REUSE_WITHIN)
}

/// A client that replaces connections after another idle time; tests cannot wait.
pub fn client_reusing(authorities: &'static [u8], within: Duration) -> SharedHttpClient {
    let connector = OnceLock::new();
    let create = move || SharedHttpConnector::new(Connector(Arc::new(Connections::new(authorities, within))));
    http_client_fn(move |_, _| connector.get_or_init(create).clone()).into_shared()
}

fn https(authorities: &[u8]) -> HttpsConnector<connect::HttpConnector> {
    let mut tcp = connect::HttpConnector::new();
    tcp.enforce_http(false);
    // Otherwise a request in two segments waits for the acknowledgment of the first.
    tcp.set_nodelay(true);
    HttpsConnectorBuilder::new()
        .with_tls_config(tls(authorities))
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp)
}

fn tls(authorities: &[u8]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(authorities) {
        let root = root.expect("the authorities are ours");
        roots.add(root).expect("the authorities are ours");
    }
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A client of hyper with its connection.
type Connection = Client<HttpsConnector<connect::HttpConnector>, SdkBody>;

/// Passes the SDK's requests to hyper. The SDK enforces timeouts, configured in
/// [`crate::TaskQueue`].
#[derive(Debug)]
struct Connector(Arc<Connections>);

/// The idle connection, if any. A request takes it out, and puts it back once it has a response: so
/// a retry after a timeout, which drops the request, connects anew. hyper itself replaces only
/// connections that were closed.
#[derive(Debug)]
pub(crate) struct Connections {
    https: HttpsConnector<connect::HttpConnector>,
    reuse_within: Duration,
    /// With the time of its last response. Wall-clock time: a monotonic clock may stop while the
    /// environment is frozen.
    idle: Mutex<Option<(Connection, SystemTime)>>,
}

impl Default for Connections {
    /// Trusts only AWS.
    fn default() -> Self {
        Self::new(AMAZON_ROOTS, REUSE_WITHIN)
    }
}

impl Connections {
    fn new(authorities: &[u8], reuse_within: Duration) -> Self {
        Self {
            https: https(authorities),
            reuse_within,
            idle: Mutex::new(None),
        }
    }

    /// Sends a request. Without a timeout.
    pub(crate) async fn send(&self, request: Request<SdkBody>) -> Result<Response<Incoming>, legacy::Error> {
        let connection = self.take();
        let response = connection.request(request).await?;
        self.put_back(connection);
        Ok(response)
    }

    fn take(&self) -> Connection {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        let is_fresh = |since: &SystemTime| since.elapsed().is_ok_and(|idle| idle < self.reuse_within);
        match idle {
            Some((connection, since)) if is_fresh(&since) => connection,
            _ => Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .build(self.https.clone()),
        }
    }

    fn put_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        *idle = Some((connection, SystemTime::now()));
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connections = Arc::clone(&self.0);
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x();
            let request = request.map_err(|error| ConnectorError::user(error.into()))?;
            // As an I/O error, so that the SDK retries it.
            let response = connections.send(request).await;
            let response = response.map_err(|error| ConnectorError::io(error.into()))?;
            let response = HttpResponse::try_from(response.map(SdkBody::from_body_1_x));
            response.map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn amazon_roots_match_checksum_and_load() {
        let readme = include_str!("../amazon-roots/README.md");
        let sum = format!("{:x}", Sha256::digest(AMAZON_ROOTS));
        assert!(readme.contains(&sum), "amazon-roots.pem has the sum {sum}");
        tls(AMAZON_ROOTS);
    }
}
