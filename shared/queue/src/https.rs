//! The HTTPS client of the SDK.
//!
//! The SDK's own client, aws-smithy-http-client, cannot be built without HTTP/2, which SQS does not
//! support (226 KB of each function, unzipped), and by default loads every certificate authority of
//! the machine, which is 90% of the instructions of a cold start. This client also uses hyper, with
//! HTTP/1 and Amazon's authorities only.

use std::sync::{Arc, OnceLock};

use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    shared::IntoShared,
};
use aws_smithy_types::body::SdkBody;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

/// The certificate authorities of AWS; see amazon-roots/README.md for their origin.
const AMAZON_ROOTS: &[u8] = include_bytes!("../amazon-roots/amazon-roots.pem");

/// A client that trusts only AWS over HTTPS, and uses plain HTTP if the endpoint's URL does, as in
/// the local stack. Created by its first request, so that it does not slow down init.
pub fn client() -> SharedHttpClient {
    client_trusting(AMAZON_ROOTS)
}

/// A client with other authorities, in PEM; tests use their own.
pub fn client_trusting(authorities: &'static [u8]) -> SharedHttpClient {
    let connector = OnceLock::new();
    http_client_fn(move |_, _| connector.get_or_init(|| connector_trusting(authorities)).clone()).into_shared()
}

fn connector_trusting(authorities: &[u8]) -> SharedHttpConnector {
    let mut tcp = connect::HttpConnector::new();
    tcp.enforce_http(false);
    // Otherwise a request in two segments waits for the acknowledgment of the first.
    tcp.set_nodelay(true);
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls(authorities))
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    // If a pooled connection has died, it is replaced and the request is sent on the new one.
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build(https);
    SharedHttpConnector::new(Connector(client))
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

/// Passes the SDK's requests to hyper. The SDK enforces timeouts, configured in
/// [`crate::TaskQueue`].
#[derive(Debug)]
struct Connector(Client<HttpsConnector<connect::HttpConnector>, SdkBody>);

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x();
            let request = request.map_err(|error| ConnectorError::user(error.into()))?;
            // As an I/O error, so that the SDK retries it.
            let response = client.request(request).await;
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
