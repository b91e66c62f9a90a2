//! A TCP proxy in front of Postgres that counts round trips and injects faults.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use shared::store::Database;
use sqlx::{ConnectOptions, PgPool, postgres::PgConnectOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// The proxy. A round trip begins when the client sends after the server has sent.
pub struct Proxy {
    port: u16,
    round_trips: Arc<AtomicUsize>,
    condition: watch::Sender<Condition>,
}

/// The state of the proxy and its connections.
#[derive(Clone, Copy)]
struct Condition {
    mode: Mode,
    /// How many connections were accepted, have ended, and must end.
    connections: usize,
    ended: usize,
    to_end: usize,
    /// How many of the first connections hang.
    stranded: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Open,
    Frozen,
    Down,
}

impl Proxy {
    /// Starts a proxy in front of the test's Postgres.
    pub async fn start(pool: &PgPool) -> Self {
        let options = pool.connect_options();
        let upstream = (options.get_host().to_owned(), options.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let round_trips = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&round_trips);
        let (condition, observed) = watch::channel(Condition {
            mode: Mode::Open,
            connections: 0,
            ended: 0,
            to_end: 0,
            stranded: 0,
        });
        let count = condition.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if observed.borrow().mode == Mode::Down {
                    continue;
                }
                let server = TcpStream::connect(&upstream)
                    .await
                    .expect("Postgres accepts connections");
                let number = count.borrow().connections;
                count.send_modify(|condition| condition.connections += 1);
                let link = Link {
                    number,
                    condition: observed.clone(),
                };
                let (counter, count) = (Arc::clone(&counter), count.clone());
                tokio::spawn(async move {
                    link.forward(client, server, counter).await;
                    count.send_modify(|condition| condition.ended += 1);
                });
            }
        });
        Self {
            port,
            round_trips,
            condition,
        }
    }

    /// A database connection through the proxy.
    pub fn database(&self, pool: &PgPool) -> Database {
        Database::new((*pool.connect_options()).clone().host("127.0.0.1").port(self.port))
    }

    /// A URL with these options that leads through the proxy, for a process.
    pub fn url(&self, options: &PgConnectOptions) -> String {
        let options = options.clone().host("127.0.0.1").port(self.port);
        options.to_url_lossy().into()
    }

    /// The number of connections so far, including ended ones.
    pub fn connections(&self) -> usize {
        self.condition.borrow().connections
    }

    /// The number of open connections.
    pub fn open_connections(&self) -> usize {
        let condition = self.condition.borrow();
        condition.connections - condition.ended
    }

    /// The number of round trips so far.
    pub fn round_trips(&self) -> usize {
        self.round_trips.load(Ordering::SeqCst)
    }

    /// Accepts connections but forwards nothing, like a paused Postgres or host.
    pub fn freeze(&self) {
        self.set(Mode::Frozen);
    }

    /// Closes all connections, and each new one immediately, like a stopped Postgres.
    pub async fn take_down(&self) {
        self.set(Mode::Down);
        self.condition
            .send_modify(|condition| condition.to_end = condition.connections);
        let mut condition = self.condition.subscribe();
        let ended = condition
            .wait_for(|condition| condition.ended == condition.connections)
            .await;
        ended.expect("the proxy is running");
    }

    /// Forwards again.
    pub fn open(&self) {
        self.set(Mode::Open);
    }

    /// Lets the current connections hang, as if their host had disappeared. New ones work.
    pub fn strand(&self) {
        self.condition
            .send_modify(|condition| condition.stranded = condition.connections);
    }

    fn set(&self, mode: Mode) {
        self.condition.send_modify(|condition| condition.mode = mode);
    }
}

/// One connection.
#[derive(Clone)]
struct Link {
    number: usize,
    condition: watch::Receiver<Condition>,
}

impl Link {
    async fn forward(self, client: TcpStream, server: TcpStream, round_trips: Arc<AtomicUsize>) {
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let server_spoke = AtomicBool::new(true);
        let requested = || {
            if server_spoke.swap(false, Ordering::SeqCst) {
                round_trips.fetch_add(1, Ordering::SeqCst);
            }
        };
        let responded = || server_spoke.store(true, Ordering::SeqCst);
        let mut condition = self.condition.clone();
        tokio::select! {
            () = self.clone().copy(from_client, to_server, requested) => {}
            () = self.clone().copy(from_server, to_client, responded) => {}
            _ = condition.wait_for(|condition| self.number < condition.to_end) => {}
        }
    }

    async fn copy(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, seen: impl Fn()) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let works = |now: &Condition| now.mode == Mode::Open && self.number >= now.stranded;
            if self.condition.wait_for(works).await.is_err() {
                return;
            }
            seen();
            if to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    }
}
