//! The service as a child process: its release binary, configured by variables alone.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Result;
use super::figures::{cpu_seconds, rss_kib};
use super::kafka::Kafka;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running service; it is killed when this is dropped.
pub struct Service {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its consumer group.
    pub group: String,
}

impl Service {
    /// Starts the service on a topic, on a group of its own, and waits until it answers.
    pub fn start(kafka: &Kafka, topic: &str, reset: &str) -> Result<Self> {
        Self::start_with(kafka, topic, reset, &[])
    }

    /// The same, with variables that are not at their defaults.
    pub fn start_with(kafka: &Kafka, topic: &str, reset: &str, variables: &[(&str, &str)]) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let group = format!("{topic}-group");
        // The log goes to a file, so that printing costs what it costs in production and no terminal.
        let log = std::fs::File::create(format!("{}/{topic}.log", env!("CARGO_TARGET_TMPDIR")))?;
        let child = Command::new(env!("CARGO_BIN_EXE_dashstream"))
            .arg("serve")
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .envs([
                ("KAFKA_BROKERS", kafka.brokers.as_str()),
                ("KAFKA_TOPIC", topic),
                ("KAFKA_GROUP_ID", &group),
                ("KAFKA_AUTO_OFFSET_RESET", reset),
                ("WEBSOCKET_HOST", "127.0.0.1"),
                ("WEBSOCKET_PORT", &port.to_string()),
                ("WEBSOCKET_MAX_CONNECTIONS_PER_IP", "100000"),
                ("RUST_LOG", "warn"),
            ])
            .envs(variables.iter().copied())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .spawn()?;
        let mut service = Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)), group };
        service.wait_until_it_answers()?;
        Ok(service)
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while self.get("/live").is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the service ended with {status}; see {}", env!("CARGO_TARGET_TMPDIR")).into());
            }
            if Instant::now() > deadline {
                return Err("the service does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Waits until it says that it is ready.
    pub fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while self.get("/ready").is_err() {
            if Instant::now() > deadline {
                return Err("the service does not get ready".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The body of an answer with status 200.
    pub fn get(&self, path: &str) -> Result<String> {
        let mut response = ureq::get(format!("http://{}{path}", self.address)).call()?;
        Ok(response.body_mut().read_to_string()?)
    }

    /// The sum over all series of a metric.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = self.get("/metrics")?;
        let value = |line: &str| -> Option<f64> {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit_once(' ')?.1.parse().ok()).flatten()
        };
        Ok(text.lines().filter_map(value).sum())
    }

    /// CPU seconds used so far.
    pub fn cpu(&self) -> Result<f64> {
        cpu_seconds(self.child.id())
    }

    /// Resident memory, in KiB.
    pub fn rss(&self) -> Result<f64> {
        rss_kib(self.child.id())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
