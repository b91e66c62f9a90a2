//! Login with a token, to a separate Postgres that requires TLS and a password.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use shared::{
    config::AwsCredentials,
    store::{Database, Login, StoreError, auth_token},
};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, postgres::PgConnectOptions};
use time::OffsetDateTime;
use tokio::{net::TcpListener, time::sleep};

use crate::support::make_certificates;

/// A server with a certificate for `localhost`, signed by its own authority. Stopped at the end of
/// the test.
struct TlsServer {
    home: PathBuf,
    programs: PathBuf,
    /// The user and group that run it: `postgres` refuses to run as root.
    owner: (u32, u32),
    port: u16,
}

impl TlsServer {
    /// Starts one, with the programs and the owner of the server that all tests share.
    async fn start(pool: &PgPool) -> Self {
        let sql = "select (select setting from pg_config where name = 'BINDIR'), current_setting('data_directory')";
        let (programs, data): (String, String) = sqlx::query_as(sql).fetch_one(pool).await.expect("a superuser");
        let data = fs::metadata(data).expect("the server is on this machine");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let server = Self {
            home: std::env::temp_dir().join(format!("tls-postgres-{}-{port}", std::process::id())),
            programs: programs.into(),
            owner: (data.uid(), data.gid()),
            port,
        };
        fs::create_dir(&server.home).expect("a new folder");
        chown(&server.home, Some(server.owner.0), Some(server.owner.1)).expect("the owner is changed");
        make_certificates(&server.home);
        for file in fs::read_dir(&server.home).expect("the folder") {
            let file = file.expect("a certificate or a key").path();
            chown(file, Some(server.owner.0), Some(server.owner.1)).expect("the owner is changed");
        }
        let (home, data) = (server.home.display(), server.home.join("data"));
        server.run(
            "initdb",
            &["--username=postgres", "--auth=trust", "--no-sync", "--pgdata=data"],
        );
        // The test itself connects through the socket; every other connection needs TLS and the
        // password.
        let rules = "local all postgres trust\nhostssl all all 127.0.0.1/32 password\n";
        fs::write(data.join("pg_hba.conf"), rules).expect("it can be written");
        let options = format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} -c fsync=off -c ssl=on \
             -c ssl_cert_file={home}/server.crt -c ssl_key_file={home}/server.key"
        );
        server.run(
            "pg_ctl",
            &[
                "start",
                "--wait",
                "--silent",
                "--pgdata=data",
                "--log=log",
                "-o",
                &options,
            ],
        );
        server
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        self.execute(Command::new(self.programs.join(program)).args(arguments));
    }

    fn command<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if nix::unistd::geteuid().is_root() {
            command.uid(self.owner.0).gid(self.owner.1);
        }
        command.current_dir(&self.home)
    }

    fn execute(&self, command: &mut Command) {
        let output = self.home.join("output");
        let command = self.command(command);
        // A file, not a pipe, which the server would keep open.
        let file = fs::File::create(&output).expect("it can be written");
        let both = file.try_clone().expect("a second handle");
        let status = command.stdout(file).stderr(both).status().expect("it can be run");
        let printed = || fs::read_to_string(&output).unwrap_or_default();
        assert!(status.success(), "{command:?}: {}", printed());
    }

    fn authority(&self) -> Vec<u8> {
        fs::read(self.home.join("ca.crt")).expect("the certificate")
    }

    /// Connects as the superuser, without a password.
    async fn administrate(&self) -> PgConnection {
        let options = PgConnectOptions::new_without_pgpass()
            .port(self.port)
            .username("postgres");
        let options = options.socket(Path::new(&self.home)).database("postgres");
        options.connect().await.expect("the server is running")
    }

    /// The login of a function.
    fn login(&self, host: &str, role: &str) -> Login {
        let url = format!("postgres://{host}:{}/postgres", self.port);
        let options: PgConnectOptions = url.parse().expect("a URL");
        Login::as_role(options, role.to_owned(), identity())
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        // Errors are ignored: the test may already be panicking.
        let stop = ["stop", "--mode=immediate", "--silent", "--pgdata=data"];
        let _ = self
            .command(Command::new(self.programs.join("pg_ctl")).args(stop))
            .status();
        let _ = fs::remove_dir_all(&self.home);
    }
}

fn identity() -> AwsCredentials {
    AwsCredentials {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: "secret".to_owned(),
        session_token: Some("session/token".repeat(60)),
        region: "eu-central-1".to_owned(),
    }
}

/// Makes the token of the next second the password, as if IAM accepted only that one, and waits for
/// that second.
async fn expect_next_token(server: &TlsServer, administrator: &mut PgConnection, role: &str) {
    let next = accept_next_token(server, administrator, role).await;
    sleep((next - OffsetDateTime::now_utc()).unsigned_abs()).await;
}

/// Makes the token of the next second the password, and returns that second.
async fn accept_next_token(server: &TlsServer, administrator: &mut PgConnection, role: &str) -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    let next = now.replace_nanosecond(0).expect("a time") + Duration::from_secs(1);
    let token = auth_token(&identity(), "localhost", server.port, role, next);
    let alter = format!("alter role {role} password '{token}'");
    sqlx::raw_sql(&alter).execute(administrator).await.expect("a role");
    next
}

fn refusal<T>(outcome: Result<T, sqlx::Error>) -> String {
    match outcome {
        Ok(_) => panic!("the connection is open"),
        Err(error) => error.to_string(),
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn each_connection_signs_token_for_verified_server(pool: PgPool) {
    let tls = "select setting like '%ssl%' from pg_config where name = 'CONFIGURE'";
    if !sqlx::query_scalar::<_, bool>(tls)
        .fetch_one(&pool)
        .await
        .expect("the build options")
    {
        // Postgres from a Python package is built without TLS; those of Linux distributions and
        // container images have it.
        return eprintln!("skipped: this Postgres was built without TLS");
    }
    let server = TlsServer::start(&pool).await;
    let mut administrator = server.administrate().await;
    sqlx::raw_sql(
        "create table tasks (status text, result text, attempts int, fencing_token int, lease_expires_at int,
                       requested_at int, started_at int, settled_at int, version int, updated_at int,
                       earlier_attempts int);
                   create table operator_actions (count int, below int, ended_at int);
                   create table _sqlx_migrations ()",
    )
    .execute(&mut administrator)
    .await
    .expect("the tables that the roles need");
    sqlx::raw_sql(migrator::ROLES)
        .execute(&mut administrator)
        .await
        .expect("the roles are set up");

    let login = server.login("localhost", "reader").trusting(&server.authority());
    for _ in 0..2 {
        expect_next_token(&server, &mut administrator, "reader").await;
        let mut connection = login.connect().await.expect("the token is the password");
        let sql = "select current_user::text, ssl, version from pg_stat_ssl where pid = pg_backend_pid()";
        let session: (String, bool, String) = sqlx::query_as(sql).fetch_one(&mut connection).await.expect("a row");
        assert_eq!(session, ("reader".to_owned(), true, "TLSv1.3".to_owned()));
        connection.close().await.expect("the connection ends");
    }
    // Through `Database`, as a function connects.
    expect_next_token(&server, &mut administrator, "reader").await;
    Database::new(login.clone())
        .ping()
        .await
        .expect("the database is reachable");
    // A refused token is replaced by a new one, within the same call.
    accept_next_token(&server, &mut administrator, "reader").await;
    Database::new(login.clone())
        .ping()
        .await
        .expect("a later attempt has the right token");

    // The server would still accept the old token: a refusal proves that each connection signs a
    // new one.
    sleep(Duration::from_secs(1)).await;
    let refused = refusal(login.connect().await);
    assert!(refused.contains("password authentication failed"), "{refused}");
    let outcome = Database::new(login).ping().await;
    // On a busy machine the time is up before the last attempt. Both are a 503.
    assert!(
        matches!(outcome, Err(StoreError::Unavailable(_) | StoreError::TimedOut)),
        "{outcome:?}"
    );

    // A certificate that no authority of RDS has signed; then one for another host name.
    let refused = refusal(server.login("localhost", "reader").connect().await);
    assert!(refused.contains("UnknownIssuer"), "{refused}");
    let elsewhere = server.login("127.0.0.1", "reader").trusting(&server.authority());
    let refused = refusal(elsewhere.connect().await);
    assert!(
        refused.contains("not valid for name") || refused.contains("NotValidForName"),
        "{refused}"
    );
    // A server without TLS gets no token.
    let plain = pool.connect_options();
    let options = PgConnectOptions::new_without_pgpass()
        .host(plain.get_host())
        .port(plain.get_port());
    let login = Login::as_role(options, "reader".to_owned(), identity());
    let refused = refusal(login.connect().await);
    assert!(refused.contains("server does not support TLS"), "{refused}");
}
