//! Real Kafka and Redis, started once per test binary through `scripts/services`.
//!
//! The script holds the recipe. It ends, with its children, when its standard input closes; the kernel closes that when
//! this process dies, however it dies. `DASHSTREAM_TEST_KAFKA` and `DASHSTREAM_TEST_REDIS` name services to use instead;
//! with `DASHSTREAM_TEST_KEEP` set the logs stay.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use dashstream::torture::proxy::Proxy;

/// The shared broker, `host:port`. Starts it at the first call.
pub fn kafka() -> &'static str {
    // Never dropped: the script notices the end of this process by its standard input.
    static SHARED: OnceLock<Running> = OnceLock::new();
    SHARED.get_or_init(|| Running::start(&["--only", "kafka"])).address("DASHSTREAM_TEST_KAFKA")
}

/// The shared Redis, `redis://host:port`. Starts it at the first call.
pub fn redis() -> &'static str {
    static SHARED: OnceLock<Running> = OnceLock::new();
    SHARED.get_or_init(|| Running::start(&["--only", "redis"])).address("DASHSTREAM_TEST_REDIS")
}

/// A broker of its own, reached in two ways: directly, and through a proxy that it also advertises, so that a client
/// that came through the proxy stays behind it.
pub struct KafkaBehindProxy {
    /// Past the proxy: for the producer and for looking at positions.
    pub direct: String,
    /// What the service under test is given: [`Proxy::address`] is its bootstrap address.
    pub proxy: Proxy,
    /// Where the broker keeps its logs.
    data: PathBuf,
    _running: Running,
}

impl KafkaBehindProxy {
    /// Lets a partition of a topic that does not exist yet begin at this offset, as if retention had taken all before it: the
    /// broker finds an empty segment that is named so.
    pub fn begin_at(&self, topic: &str, partition: i32, offset: i64) {
        let log = self.data.join(format!("{topic}-{partition}"));
        std::fs::create_dir(&log).expect("a topic that does not exist yet");
        std::fs::write(log.join(format!("{offset:020}.log")), []).expect("the broker's folder is ours");
    }
}

/// Starts a broker behind a fault proxy. It ends when the value is dropped.
pub fn kafka_behind_proxy() -> KafkaBehindProxy {
    kafka_behind(Proxy::start().expect("a free port"))
}

/// Starts a broker behind a proxy that was made for it.
pub fn kafka_behind(proxy: Proxy) -> KafkaBehindProxy {
    let running = Running::start(&["--only", "kafka", "--advertise", &proxy.address()]);
    proxy.forward_to(running.address("DASHSTREAM_TEST_KAFKA_PROXIED"));
    let direct = running.address("DASHSTREAM_TEST_KAFKA").to_owned();
    let data = PathBuf::from(running.address("DASHSTREAM_TEST_KAFKA_DATA"));
    KafkaBehindProxy { direct, proxy, data, _running: running }
}

/// A broker of its own with encrypted and authenticated listeners besides.
pub struct SecureKafka {
    /// For the producer and for looking at positions: neither encrypted nor authenticated.
    pub direct: String,
    pub ssl: String,
    /// TLS where the client must show a certificate.
    pub mtls: String,
    pub sasl_plaintext: String,
    pub sasl_ssl: String,
    _running: Running,
}

/// Starts a broker with the key, certificate and authority that lie in `folder`, see `scripts/services`.
pub fn secure_kafka(folder: &std::path::Path) -> SecureKafka {
    let running = Running::start(&["--only", "kafka", "--secure", folder.to_str().expect("a readable path")]);
    let address = |name: &str| running.address(&format!("DASHSTREAM_TEST_KAFKA{name}")).to_owned();
    SecureKafka {
        direct: address(""),
        ssl: address("_SSL"),
        mtls: address("_MTLS"),
        sasl_plaintext: address("_SASL_PLAINTEXT"),
        sasl_ssl: address("_SASL_SSL"),
        _running: running,
    }
}

/// The shared Redis behind a fault proxy of its own.
pub struct RedisBehindProxy {
    /// `redis://` address of the proxy.
    pub url: String,
    pub proxy: Proxy,
}

pub fn redis_behind_proxy() -> RedisBehindProxy {
    let upstream = redis().strip_prefix("redis://").expect("DASHSTREAM_TEST_REDIS is redis://host:port");
    let proxy = Proxy::start().expect("a free port");
    proxy.forward_to(upstream);
    RedisBehindProxy { url: format!("redis://{}", proxy.address()), proxy }
}

struct Running {
    addresses: HashMap<String, String>,
    script: Child,
    // Closing it ends the script.
    stdin: Option<ChildStdin>,
    // Open as long as the script may write: a closed pipe would end it.
    _stdout: BufReader<ChildStdout>,
}

impl Running {
    fn start(options: &[&str]) -> Self {
        let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services"))
            .args(["up", "--until-stdin-closes"])
            .args(options)
            .args(std::env::var_os("DASHSTREAM_TEST_KEEP").map(|_| "--keep"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/services can be run");
        let stdin = script.stdin.take();
        let mut stdout = BufReader::new(script.stdout.take().expect("its output is a pipe"));
        let mut line = String::new();
        while !line.starts_with("export ") {
            line.clear();
            if !matches!(stdout.read_line(&mut line), Ok(1..)) {
                let status = script.wait();
                panic!(
                    "Kafka and Redis did not start ({status:?}), see above; `scripts/setup` installs what they need"
                );
            }
        }
        Self { addresses: parse_exports(&line), script, stdin, _stdout: stdout }
    }

    fn address(&self, name: &str) -> &str {
        self.addresses.get(name).unwrap_or_else(|| panic!("scripts/services printed no {name}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // Only reaps: the script ends within milliseconds, and nothing depends on how.
        let _ = self.script.wait();
    }
}

fn parse_exports(line: &str) -> HashMap<String, String> {
    line.strip_prefix("export ")
        .unwrap_or_else(|| panic!("scripts/services printed no addresses but: {line}"))
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
