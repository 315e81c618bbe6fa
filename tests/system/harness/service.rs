//! The service under test: the built binary, configured by environment variables alone, in an empty folder.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::eventually::{eventually, within};
use super::topic::Topic;
use super::{json_schema, runtime, services, unique_name};

const START_BOUND: Duration = Duration::from_secs(20);
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);
const LINES_SHOWN_ON_FAILURE: usize = 80;

/// Environment of a service; nothing else of this process's environment reaches it.
#[derive(Clone, Debug)]
pub struct Config {
    command: &'static str,
    variables: BTreeMap<String, String>,
}

impl Config {
    /// Reads `topic` from its own broker, commits for a group of its own, on a free port.
    pub fn new(topic: &Topic) -> Self {
        let mut config = Self { command: "serve", variables: BTreeMap::new() };
        for name in ["PATH", "HOME", "RUST_BACKTRACE", "LLVM_PROFILE_FILE"] {
            if let Ok(value) = std::env::var(name) {
                config.variables.insert(name.to_owned(), value);
            }
        }
        config
            .set("KAFKA_BROKERS", &topic.kafka)
            .set("KAFKA_TOPIC", &topic.name)
            .set("KAFKA_GROUP_ID", unique_name("group"))
            .set("KAFKA_DLQ_TOPIC", format!("{}-dlq", topic.name))
            .set("KAFKA_AUTO_OFFSET_RESET", "earliest")
            // A restarted process is the same member, whatever port it gets.
            .set("KAFKA_GROUP_INSTANCE_ID", unique_name("member"))
            .set("REDIS_URL", services::redis())
            .set("WEBSOCKET_HOST", "127.0.0.1")
            .set("WEBSOCKET_PORT", "0")
            // All clients of a test come from one address.
            .set("WEBSOCKET_MAX_CONNECTIONS_PER_IP", "10000")
            .set("RUST_LOG", "info")
    }

    /// `dashstream quality-exporter` instead of the service, with a group of its own, on a free port.
    pub fn quality_exporter(topic: &Topic) -> Self {
        let config = Self { command: "quality-exporter", ..Self::new(topic) };
        config
            .unset("KAFKA_AUTO_OFFSET_RESET")
            .set("DASHSTREAM_QUALITY_GROUP_ID", unique_name("exporter"))
            .set("METRICS_PORT", "0")
            .set("KAFKA_LAG_CHECK_INTERVAL_SECS", 1)
            .set("DASHSTREAM_QUALITY_COMMIT_INTERVAL_MS", 50)
    }

    pub fn set(mut self, variable: &str, value: impl ToString) -> Self {
        self.variables.insert(variable.to_owned(), value.to_string());
        self
    }

    pub fn unset(mut self, variable: &str) -> Self {
        self.variables.remove(variable);
        self
    }

    pub fn get(&self, variable: &str) -> &str {
        self.variables.get(variable).map_or("", String::as_str)
    }

    /// Actors can be made to fail, and may do so as often as a test wants.
    pub fn sabotaged(self) -> Self {
        self.set("DASHSTREAM_TEST_SABOTAGE", "1")
            .set("DASHSTREAM_SUPERVISOR_MAX_RESTARTS", "1000")
            .set("DASHSTREAM_SUPERVISOR_BACKOFF_BASE_MS", "20")
            .set("DASHSTREAM_SUPERVISOR_BACKOFF_MAX_MS", "100")
            .set("DASHSTREAM_SUPERVISOR_HEARTBEAT_TIMEOUT_SECS", "2")
    }

    /// Everything that is set.
    pub const fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// The consumer group.
    pub fn group(&self) -> &str {
        self.get("KAFKA_GROUP_ID")
    }
}

/// A running (or killed) service. Dropping it kills it; its log is shown when the test fails.
pub struct Service {
    config: Config,
    folder: TempDir,
    child: Child,
    address: String,
}

impl Service {
    /// Starts `dashstream serve` and waits until it listens.
    #[track_caller]
    pub fn start(config: &Config) -> Self {
        let mut service = Self::spawn(config);
        service.wait_until_listening();
        service
    }

    /// As [`Service::start`], and waits until `/health` says `healthy`.
    #[track_caller]
    pub fn start_healthy(config: &Config) -> Self {
        let service = Self::start(config);
        service.wait_until_healthy(START_BOUND);
        service
    }

    /// Starts it without waiting for anything: for starts that must fail.
    pub fn spawn(config: &Config) -> Self {
        let folder = tempfile::Builder::new().prefix("dashstream-test-").tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("empty")).expect("a folder");
        let child = spawn(config, &folder).expect("the binary can be run");
        Self { config: config.clone(), folder, child, address: String::new() }
    }

    /// Starts it again with the same configuration. It listens at another address then.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill_nine();
        let _ = std::fs::rename(self.log_path(), self.folder.path().join("service.before.log"));
        self.child = spawn(&self.config, &self.folder).expect("the binary can be run");
        self.wait_until_listening();
    }

    /// Waits for the address that it prints.
    #[track_caller]
    pub fn wait_until_listening(&mut self) {
        let address = eventually("the service to listen", START_BOUND, || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the service ended with {status} before it listened");
            }
            let log = self.log();
            let line = log.lines().find_map(|line| line.strip_prefix("listening on http"));
            let line = line.map(|rest| rest.trim_start_matches('s').trim_start_matches("://"));
            line.map(|address| address.trim().to_owned()).ok_or_else(|| "no `listening on` line".to_owned())
        });
        self.address = address;
    }

    #[track_caller]
    pub fn wait_until_healthy(&self, bound: Duration) {
        eventually("/health to say healthy", bound, || match self.try_health() {
            Ok(health) if health["status"] == "healthy" => Ok(()),
            Ok(health) => Err(health.to_string()),
            Err(error) => Err(error),
        });
    }

    /// `host:port`, for clients.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `host:port` of the listener for operators.
    #[track_caller]
    pub fn operators_address(&self) -> String {
        let log = self.log();
        let line = log.lines().find_map(|line| line.strip_prefix("listening for operators on http://"));
        line.expect("a listener for operators").trim().to_owned()
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Status and body of a GET, whatever the status.
    pub fn get(&self, path: &str) -> Result<(u16, String), String> {
        self.get_with::<&str>(path, &[])
    }

    /// As [`Service::get`], with more headers.
    pub fn get_with<T: AsRef<str>>(&self, path: &str, headers: &[(&str, T)]) -> Result<(u16, String), String> {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().timeout_global(Some(HTTP_TIMEOUT)).http_status_as_error(false).build().into();
        let request = agent.get(format!("http://{}{path}", self.address));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value.as_ref()));
        let mut response = request.call().map_err(|error| error.to_string())?;
        let body = response.body_mut().read_to_string().map_err(|error| error.to_string())?;
        Ok((response.status().as_u16(), body))
    }

    /// Status and body of a POST, whatever the status.
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Result<(u16, String), String> {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().timeout_global(Some(HTTP_TIMEOUT)).http_status_as_error(false).build().into();
        let request = agent.post(format!("http://{}{path}", self.address));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let mut response = request.send(body).map_err(|error| error.to_string())?;
        let body = response.body_mut().read_to_string().map_err(|error| error.to_string())?;
        Ok((response.status().as_u16(), body))
    }

    /// Makes an actor suffer a fault (`panic`, `hang`, `stop`). The service must have been started with [`Config::sabotaged`].
    #[track_caller]
    pub fn sabotage(&self, actor: &str, fault: &str) {
        eventually(&format!("{actor} to be struck by {fault}"), START_BOUND, || {
            let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(HTTP_TIMEOUT)).build().into();
            let url = format!("http://{}/test/sabotage/{actor}/{fault}", self.address);
            agent.post(url).send_empty().map(drop).map_err(|error| error.to_string())
        });
    }

    /// Status and reason codes of `/health`.
    pub fn verdict(&self) -> Result<(String, Vec<String>), String> {
        let health = self.try_health()?;
        let codes = health["reasons"].as_array().into_iter().flatten().map(|reason| reason["code"].to_string());
        let text = |code: String| code.trim_matches('"').to_owned();
        Ok((text(health["status"].to_string()), codes.map(text).collect()))
    }

    /// Reason codes of `/health`, without those that are about bad records: tests publish them on purpose.
    pub fn faults(&self) -> Result<Vec<String>, String> {
        let (_, mut codes) = self.verdict()?;
        codes.retain(|code| code != "payload_missing_rate" && code != "decode_error_rate");
        Ok(codes)
    }

    /// Waits until `/health` has this status and, among its reasons, this code.
    #[track_caller]
    pub fn wait_for_verdict(&self, status: &str, code: &str, bound: Duration) {
        within(&format!("/health to say {status} for {code}"), bound, || match self.verdict()? {
            (found, codes) if found == status && codes.iter().any(|found| found == code) => Ok(()),
            found => Err(format!("{found:?}")),
        });
    }

    /// The name of the epoch, from `/version`.
    #[track_caller]
    pub fn epoch(&self) -> String {
        let (_, body) = self.get("/version").expect("/version answers");
        let version: Value = serde_json::from_str(&body).expect("/version is JSON");
        version["epoch"].as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub fn health(&self) -> Value {
        self.try_health().expect("/health answers")
    }

    /// What `/health` says. Every answer, in whatever state the service is, is held against the schema.
    #[track_caller]
    pub fn try_health(&self) -> Result<Value, String> {
        static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
            serde_json::from_str(include_str!("../../../docs/health.schema.json")).expect("the schema is JSON")
        });
        let (_, body) = self.get("/health")?;
        let health = serde_json::from_str(&body).map_err(|error| format!("/health is no JSON ({error}): {body}"))?;
        if let Err(difference) = json_schema::check(&SCHEMA, &health) {
            panic!("/health is not as docs/health.schema.json says: {difference}");
        }
        Ok(health)
    }

    /// All samples of `/metrics`: name with labels, as printed, to value.
    #[track_caller]
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let (status, body) = self.get("/metrics").expect("/metrics answers");
        assert_eq!(status, 200, "/metrics: {body}");
        body.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| {
                (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no sample: {name} {value}")))
            })
            .collect()
    }

    /// Sum of all samples of a metric whose labels contain all of `labels`, such as `status="error"`; 0 if there is none.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        self.metrics()
            .iter()
            .filter(|(sample, _)| sample.split('{').next() == Some(name))
            .filter(|(sample, _)| labels.iter().all(|label| sample.contains(label)))
            .map(|(_, value)| value)
            .sum()
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().map_or(0, |kib| kib * 1024)
    }

    /// Time of processors that it has used so far, in user and kernel mode.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        // Behind the name, which may hold anything: fields 14 and 15 of the whole line.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        // Linux counts in hundredths of a second on every architecture that this runs on.
        Duration::from_millis(fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10)
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("process ids fit");
        let _ = kill(Pid::from_raw(pid), signal);
    }

    /// kill -9, and waits until it is gone.
    pub fn kill_nine(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end; `bound` is a promise and is not stretched on slow machines.
    #[track_caller]
    pub fn wait_for_exit(&mut self, bound: Duration) -> ExitStatus {
        within("the service to end", bound, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("running".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }

    /// All that it has printed since its last start.
    pub fn log(&self) -> String {
        std::fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("service.log")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill_nine();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = lines.len().saturating_sub(LINES_SHOWN_ON_FAILURE);
            self.folder.disable_cleanup(true);
            let path = self.log_path();
            eprintln!("--- the last lines of {} ({}):", path.display(), self.address);
            eprintln!("{}\n---", lines[shown..].join("\n"));
        }
    }
}

fn spawn(config: &Config, folder: &TempDir) -> io::Result<Child> {
    let log: File = OpenOptions::new().create(true).append(true).open(folder.path().join("service.log"))?;
    // The kernel kills the service when the thread that started it ends. Threads of the harness runtime end with the
    // process, however it ends; a test's own thread would do as well, but not one that a test starts for a moment.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_dashstream"), config.command])
        .env_clear()
        .envs(&config.variables)
        .current_dir(folder.path().join("empty"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    runtime().block_on(async { runtime().spawn(async move { command.spawn() }).await }).map_err(io::Error::other)?
}
