//! How the SDK's requests reach AWS.
//!
//! The SDK's own client, aws-smithy-http-client, cannot be built without HTTP/2, which SQS does not speak (226 KB of each
//! function, not zipped), and by default reads every certificate authority of the machine, which is nine tenths of what a
//! function computes in its cold start. This is the same hyper, with HTTP/1 and the authorities of Amazon.

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

/// Who signs the certificates of AWS: amazon-roots/README.md says where they come from.
const AMAZON_ROOTS: &[u8] = include_bytes!("../amazon-roots/amazon-roots.pem");

/// Speaks HTTPS with AWS, and with nobody else; HTTP where an endpoint says so, as a local one does. Set up by its first
/// request: a function's init must not wait for that.
pub fn client() -> SharedHttpClient {
    client_trusting(AMAZON_ROOTS)
}

/// The same with other authorities, in PEM; a test is its own.
pub fn client_trusting(authorities: &'static [u8]) -> SharedHttpClient {
    let connector = OnceLock::new();
    http_client_fn(move |_, _| connector.get_or_init(|| connector_trusting(authorities)).clone()).into_shared()
}

fn connector_trusting(authorities: &[u8]) -> SharedHttpConnector {
    let mut tcp = connect::HttpConnector::new();
    tcp.enforce_http(false);
    // Otherwise a request in two segments waits for the acknowledgement of the first.
    tcp.set_nodelay(true);
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls(authorities))
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    // A kept connection that has died meanwhile is replaced, and the request goes to the new one.
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

/// Hands the SDK's requests to hyper. How long they may take is the SDK's own business: [`crate::TaskQueue`] says so.
#[derive(Debug)]
struct Connector(Client<HttpsConnector<connect::HttpConnector>, SdkBody>);

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x();
            let request = request.map_err(|error| ConnectorError::user(error.into()))?;
            // Whatever happens on the way may be gone at the next attempt.
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
    fn the_authorities_are_those_that_their_readme_names_and_rustls_takes_them() {
        let readme = include_str!("../amazon-roots/README.md");
        let sum = format!("{:x}", Sha256::digest(AMAZON_ROOTS));
        assert!(readme.contains(&sum), "amazon-roots.pem has the sum {sum}");
        tls(AMAZON_ROOTS);
    }
}
