//! A Redis server of one's own, for tests: on a Unix socket in a folder that goes away with it.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;

use super::{
    client::{Client, Options},
    keys::Keyspace,
};

pub(crate) struct TestRedis {
    server: Child,
    folder: TempDir,
}

impl TestRedis {
    /// Starts a server that keeps nothing on disk, and waits until it answers.
    pub(crate) async fn start() -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let server = spawn(&folder);
        let this = Self { server, folder };
        this.wait_until_ready().await;
        this
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    pub(crate) fn keyspace(&self) -> Keyspace {
        Keyspace::new("korvet").expect("a legal keyspace")
    }

    /// The broker's own client.
    pub(crate) async fn client(&self) -> Arc<Client> {
        Client::connect(self.options()).await.expect("the server is up")
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            url: self.url(),
            keyspace: self.keyspace(),
            readers: 4,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(5),
        }
    }

    /// A bare connection, to look at what is there and to meddle with it.
    pub(crate) async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("a legal URL");
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(20)));
        client.get_multiplexed_async_connection_with_config(&patient).await.expect("the server is up")
    }

    /// What somebody else with `redis-cli` would do.
    pub(crate) async fn command(&self, words: &[&str]) -> redis::Value {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        let mut connection = self.connection().await;
        command.query_async(&mut connection).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.server.id()
    }

    /// Kills the server and starts it anew, with what it had saved.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        let _ = std::fs::remove_file(self.socket());
        self.server = spawn(&self.folder);
        self.wait_until_ready().await;
    }

    /// Kills the server.
    pub(crate) fn kill(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    async fn wait_until_ready(&self) {
        let client = redis::Client::open(self.url()).expect("a legal URL");
        let ready = async {
            loop {
                if let Ok(mut connection) = client.get_multiplexed_async_connection().await
                    && redis::cmd("PING").exec_async(&mut connection).await.is_ok()
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ready).await.expect("redis-server answers within 20 s");
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `scripts/test` runs the storage's tests on a newer server too.
fn program() -> String {
    std::env::var("WEIR_TEST_REDIS").unwrap_or_else(|_| "redis-server".to_owned())
}

fn spawn(folder: &TempDir) -> Child {
    Command::new(program())
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket", "redis.sock", "--dir"])
        .arg(folder.path())
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed (make test installs it)")
}
