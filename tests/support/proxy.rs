//! A TCP proxy in front of Postgres that counts round trips.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use shared::store::Database;
use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The proxy: a round trip is a change of direction, client after server.
pub struct Proxy {
    port: u16,
    round_trips: Arc<AtomicUsize>,
}

impl Proxy {
    /// Listens, in front of the test's Postgres.
    pub async fn start(pool: &PgPool) -> Self {
        let options = pool.connect_options();
        let upstream = (options.get_host().to_owned(), options.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let round_trips = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&round_trips);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&upstream).await.expect("Postgres is there");
                tokio::spawn(forward(client, server, Arc::clone(&counter)));
            }
        });
        Self { port, round_trips }
    }

    /// A database connection through the proxy.
    pub fn database(&self, pool: &PgPool) -> Database {
        Database::new((*pool.connect_options()).clone().host("127.0.0.1").port(self.port))
    }

    /// The round trips so far.
    pub fn round_trips(&self) -> usize {
        self.round_trips.load(Ordering::SeqCst)
    }
}

async fn forward(client: TcpStream, server: TcpStream, round_trips: Arc<AtomicUsize>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let server_spoke = Arc::new(AtomicBool::new(true));
    let client_speaks = Arc::clone(&server_spoke);
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
            if client_speaks.swap(false, Ordering::SeqCst) {
                round_trips.fetch_add(1, Ordering::SeqCst);
            }
            if to_server.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
        server_spoke.store(true, Ordering::SeqCst);
        if to_client.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
}
