//! SQS over HTTPS, as on AWS: the emulator's, behind a TLS proxy.

use std::{fs, path::PathBuf, sync::Arc};

use aws_sdk_sqs::{
    Client,
    config::{Builder, retry::RetryConfig},
};
use queue::https;
use shared::telemetry::chain;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::support::{TestQueue, client_config, env, make_certificates};

/// A test's certificates, deleted with it.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Serves the emulator's SQS over TLS as `localhost`; returns the URL and the certificate
/// authority.
async fn sqs_over_tls() -> (String, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let folder = Folder(std::env::temp_dir().join(format!("tls-sqs-{}-{port}", std::process::id())));
    fs::create_dir(&folder.0).expect("a new folder");
    make_certificates(&folder.0);
    let read = |file: &str| fs::read(folder.0.join(file)).expect("a certificate or a key");
    let certificate = CertificateDer::from_pem_slice(&read("server.crt")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(&read("server.key")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the versions of ring")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a matching key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let upstream = env("AWS_ENDPOINT_URL").replace("http://", "");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            // Fails if the client does not trust the certificate.
            if let Ok(mut client) = acceptor.accept(client).await {
                let mut server = TcpStream::connect(&upstream).await.expect("SQS is running");
                tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
            }
        }
    });
    (format!("https://localhost:{port}"), read("ca.crt"))
}

/// A client without retries, which these tests do not cover.
fn client(config: Builder, url: &str) -> Client {
    let config = config.endpoint_url(url).retry_config(RetryConfig::disabled());
    Client::from_conf(config.build())
}

#[tokio::test]
async fn trusted_server_receives_message_over_tls() {
    let (url, authority) = sqs_over_tls().await;
    let queue = TestQueue::create().await;
    let trusting = client_config().http_client(https::client_trusting(authority.leak()));
    let client = client(trusting, &url);
    // The second message reuses the connection.
    for body in ["1", "2"] {
        let request = client.send_message().queue_url(queue.url()).message_body(body);
        request.send().await.expect("the message is sent");
    }
    assert_eq!(queue.bodies().await, ["1", "2"]);
}

#[tokio::test]
async fn untrusted_server_receives_no_message() {
    let (url, _) = sqs_over_tls().await;
    let queue = TestQueue::create().await;
    let client = client(client_config(), &url);
    let request = client.send_message().queue_url(queue.url()).message_body("1");
    let error = request.send().await.expect_err("the authority is unknown");
    let error = chain(&error);
    assert!(error.contains("UnknownIssuer"), "{error}");
    assert_eq!(queue.bodies().await, [""; 0]);
}
