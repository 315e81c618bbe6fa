//! Redis servers of a test's own, and a tier in front of them.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashstream::board::{Board, Epoch};
use dashstream::config::secret::{Secret, SecretUrl};
use dashstream::metrics::Metrics;
use dashstream::pipeline::page::{Page, PageRequest, TierError};
use dashstream::pipeline::retention::Bounds;
use dashstream::pipeline::window::{Chunk, ItemRef};
use dashstream::redis::fault::Failure;
use dashstream::redis::keys::Keys;
use dashstream::redis::reader::{RedisTier, TierBounds};
use dashstream::redis::settings::{RedisSettings, Topology};
use dashstream::redis::state::RedisState;
use dashstream::redis::writer::{Batch, Writer};
use dashstream::wire::stream_frame::FrameBuilder;
use deadpool_redis::redis::{Client, Commands as _, Connection, Value, cmd};
use tempfile::TempDir;

/// Guards against hanging; nothing here takes as long.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const EPOCH: &str = "cluster/topic/id1";
pub const WIDE: Bounds = Bounds { offsets: 1 << 40, bytes: 1 << 40, age_ms: 600_000 };

#[track_caller]
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A server of this test alone. It ends with the test's thread, however that ends.
pub struct Server {
    pub port: u16,
    child: Child,
    folder: TempDir,
    options: Vec<String>,
}

impl Server {
    pub fn start(options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let port = free_port();
            if let Some(child) = launch(port, folder.path(), &options) {
                return Self { port, child, folder, options };
            }
        }
        panic!("no redis-server could be started; `scripts/setup` installs it");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A connection that has nothing to do with the code under test.
    pub fn client(&self) -> Connection {
        eventually("a connection", || Client::open(self.url()).ok()?.get_connection().ok())
    }

    pub fn ask(&self, words: &[&str]) -> Value {
        let mut command = cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query(&mut self.client()).unwrap()
    }

    /// Calls of a command since the last `CONFIG RESETSTAT`.
    pub fn calls(&self, command: &str) -> u64 {
        let info: String = cmd("INFO").arg("commandstats").query(&mut self.client()).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    }

    /// Bytes that it has answered, to anybody.
    pub fn bytes_sent(&self) -> u64 {
        let info: String = cmd("INFO").arg("stats").query(&mut self.client()).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
        line.unwrap().trim().parse().unwrap()
    }

    /// Every key with its time to live in milliseconds; negative when it has none.
    pub fn keys(&self) -> Vec<(String, i64)> {
        let mut client = self.client();
        let keys: Vec<String> = client.keys("*").unwrap();
        keys.into_iter().map(|key| (key.clone(), client.pttl(key).unwrap_or(-9))).collect()
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same port, empty.
    pub fn restart(&mut self) {
        self.child = eventually("the port to be free again", || launch(self.port, self.folder.path(), &self.options));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn free_port() -> u16 {
    // A cluster needs the port above by ten thousand, too.
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

/// `None` when it ends at once: the port was taken.
fn launch(port: u16, folder: &std::path::Path, options: &[String]) -> Option<Child> {
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--port", &port.to_string(), "--dir", &folder.display().to_string()])
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server can be run; `scripts/setup` installs it");
    let client = Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        // Any answer will do: a node of a cluster that is not complete answers with an error.
        if client.get_connection_with_timeout(Duration::from_secs(1)).is_ok() {
            return Some(child);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = (child.kill(), child.wait());
    panic!("redis-server does not answer");
}

pub fn settings(url: &str) -> RedisSettings {
    RedisSettings {
        url: SecretUrl::new(url),
        topology: Topology::Standalone,
        nodes: Vec::new(),
        key_prefix: "test".into(),
        connect_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(5),
        pool_size: 4,
        bounds: WIDE,
    }
}

pub fn with_bounds(url: &str, bounds: Bounds) -> RedisSettings {
    RedisSettings { bounds, ..settings(url) }
}

pub fn no_password() -> Secret {
    Secret::new("")
}

/// One process: a writer and a reader, and what they report.
pub struct Process {
    pub writer: Writer,
    pub tier: RedisTier,
    pub board: Board,
    pub state: RedisState,
    pub metrics: Arc<Metrics>,
    pub keys: Keys,
}

impl Process {
    pub fn new(settings: &RedisSettings) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let board = Board::new();
        board.open_epoch(Epoch { number: 1, name: EPOCH.into() });
        let state = RedisState::new(Arc::clone(&metrics));
        let keys = Keys::new(&settings.key_prefix);
        let writer = Writer::new(settings.clone(), state.clone(), Arc::clone(&metrics)).unwrap();
        let tier = RedisTier::new(settings, keys.clone(), board.clone(), state.clone(), Arc::clone(&metrics)).unwrap();
        Self { writer, tier, board, state, metrics, keys }
    }

    pub fn key(&self, partition: i32) -> String {
        self.keys.stream(1, EPOCH, partition).unwrap()
    }

    pub async fn write(&mut self, chunks: Vec<Chunk>) -> Result<(), Failure> {
        self.write_within(chunks, PATIENCE).await
    }

    pub async fn write_within(&mut self, chunks: Vec<Chunk>, deadline: Duration) -> Result<(), Failure> {
        let partition = chunks[0].partition;
        let chunks = chunks.into_iter().map(Arc::new).collect();
        let batch = Batch { key: self.key(partition), partition, chunks };
        self.writer.write(&[batch], Instant::now() + deadline).await.remove(0)
    }

    pub async fn page(&self, from: i64) -> Result<Page, TierError> {
        self.page_of(&request(from), PATIENCE).await
    }

    pub async fn page_of(&self, request: &PageRequest, deadline: Duration) -> Result<Page, TierError> {
        self.tier.page(request, Instant::now() + deadline).await
    }

    pub async fn bounds(&self) -> Option<TierBounds> {
        self.tier.bounds(1, EPOCH, 0, Instant::now() + PATIENCE).await.unwrap()
    }
}

pub fn request(from: i64) -> PageRequest {
    PageRequest {
        epoch: 1,
        epoch_name: EPOCH.into(),
        partition: 0,
        from,
        until: i64::MAX,
        max_records: 1_000,
        max_bytes: 8 << 20,
    }
}

/// `[first, next)` of partition 0, each offset a record that holds its own offset.
pub fn chunk(first: i64, next: i64) -> Chunk {
    chunk_of(0, first, next, 0)
}

pub fn chunk_of(partition: i32, first: i64, next: i64, padding: usize) -> Chunk {
    let mut builder = FrameBuilder::new();
    for offset in first..next {
        let mut value = offset.to_be_bytes().to_vec();
        value.resize(8 + padding, 7);
        builder.record(offset, 1, &value, &[]);
    }
    let records = u32::try_from(next - first).unwrap();
    Chunk::new(partition, first, next, records, builder.seal(partition, first, next))
}

/// `[first, next)` in chunks of `size`.
pub fn chunks(first: i64, next: i64, size: i64) -> Vec<Chunk> {
    let firsts = (first..next).step_by(usize::try_from(size).unwrap());
    firsts.map(|first| chunk(first, first.saturating_add(size).min(next))).collect()
}

/// The offsets of a page from `cursor` on, each of them checked to lie where it says.
pub fn offsets(page: &Page, cursor: i64) -> Vec<i64> {
    let mut position = page.low.unwrap_or(cursor);
    let mut found = Vec::new();
    for chunk in &page.chunks {
        for (first, next, item) in chunk.items_from(position) {
            assert_eq!(first, position, "a hole, or an offset that comes again");
            let ItemRef::Record(value) = item else { panic!("{item:?}") };
            assert_eq!(value[..8], first.to_be_bytes());
            found.push(first);
            position = next;
        }
        assert_eq!(position, chunk.next);
    }
    found
}

pub fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}
