//! A real Prometheus that scrapes services under test every second and evaluates the shipped alert rules.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::eventually::eventually;
use super::runtime;

const START_BOUND: Duration = Duration::from_secs(30);
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
const RULES: &str = "monitoring/alert_rules.yml";

/// A running Prometheus; dropping it ends it.
pub struct Prometheus {
    folder: TempDir,
    child: Child,
    address: String,
}

impl Prometheus {
    /// Scrapes services at `targets` (`host:port`) as the job `dashstream`. `edit` may change the rules, for example make
    /// their windows shorter.
    #[track_caller]
    pub fn scraping(targets: &[&str], edit: impl FnOnce(String) -> String) -> Self {
        Self::scraping_without(targets, "", edit)
    }

    /// As [`Prometheus::scraping`], and besides the exporter of quality at `exporter`, as the job that is called after it.
    #[track_caller]
    pub fn scraping_with_exporter(targets: &[&str], exporter: &str) -> Self {
        Self::scraping_jobs(&[("dashstream", targets), ("dashstream-quality-exporter", &[exporter])], "", |rules| rules)
    }

    /// As [`Prometheus::scraping`], without the series whose whole name the regular expression `lost` matches.
    #[track_caller]
    pub fn scraping_without(targets: &[&str], lost: &str, edit: impl FnOnce(String) -> String) -> Self {
        Self::scraping_jobs(&[("dashstream", targets)], lost, edit)
    }

    #[track_caller]
    fn scraping_jobs(jobs: &[(&str, &[&str])], lost: &str, edit: impl FnOnce(String) -> String) -> Self {
        let folder = tempfile::Builder::new().prefix("dashstream-prometheus-").tempdir().expect("a temporary folder");
        let rules = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(RULES)).expect("the rules");
        std::fs::write(folder.path().join("rules.yml"), edit(rules)).expect("a writable folder");
        let job = |(name, targets): &(&str, &[&str])| {
            let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
            format!(
                "- job_name: {name}\n  static_configs: [{{targets: [{}]}}]\n  \
                 metric_relabel_configs: [{{source_labels: [__name__], regex: '{lost}', action: drop}}]\n",
                targets.join(", ")
            )
        };
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\nscrape_configs:\n{}",
            jobs.iter().map(job).collect::<String>()
        );
        std::fs::write(folder.path().join("prometheus.yml"), config).expect("a writable folder");
        let child = spawn(folder.path());
        let mut prometheus = Self { folder, child, address: String::new() };
        prometheus.wait_until_listening();
        prometheus
    }

    fn wait_until_listening(&mut self) {
        self.address = eventually("Prometheus to listen", START_BOUND, || {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("Prometheus ended with {status}: {log}");
            }
            let line = log.lines().find_map(|line| line.split_once("msg=\"Listening on\" address="));
            line.map(|(_, address)| address.trim().to_owned()).ok_or(log)
        });
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("prometheus.log")
    }

    fn ask(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, String> {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().timeout_global(Some(HTTP_TIMEOUT)).http_status_as_error(false).build().into();
        let request = agent.get(format!("http://{}/api/v1/{path}", self.address));
        let request = query.iter().fold(request, |request, (name, value)| request.query(*name, *value));
        let mut response = request.call().map_err(|error| error.to_string())?;
        let answer: Value = response.body_mut().read_json().map_err(|error| error.to_string())?;
        if answer["status"] == "success" { Ok(answer["data"].clone()) } else { Err(answer.to_string()) }
    }

    /// The values of an expression now; a value that is no number is left out.
    pub fn values(&self, expr: &str) -> Result<Vec<f64>, String> {
        let data = self.ask("query", &[("query", expr)])?;
        let samples = data["result"].as_array().ok_or_else(|| data.to_string())?;
        let value = |sample: &Value| sample["value"][1].as_str().and_then(|text| text.parse::<f64>().ok());
        Ok(samples.iter().filter_map(value).filter(|value| !value.is_nan()).collect())
    }

    /// Alerts whose condition holds now, whether or not they have to wait before they fire.
    pub fn active_alerts(&self) -> Result<BTreeSet<String>, String> {
        let data = self.ask("alerts", &[])?;
        let alerts = data["alerts"].as_array().into_iter().flatten();
        Ok(alerts.filter_map(|alert| alert["labels"]["alertname"].as_str().map(str::to_owned)).collect())
    }

    /// Names of rules, each with the error of its last evaluation, if there was one; rules that were not evaluated yet are
    /// an error as well.
    pub fn rules(&self) -> Result<Vec<(String, Option<String>)>, String> {
        let data = self.ask("rules", &[])?;
        let groups = data["groups"].as_array().into_iter().flatten();
        let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
        let error = |rule: &Value| (rule["health"] != "ok").then(|| rule.to_string());
        Ok(rules.map(|rule| (rule["name"].as_str().unwrap_or_default().to_owned(), error(rule))).collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &Path) -> Child {
    let log = File::create(folder.join("prometheus.log")).expect("a writable folder");
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "prometheus", "--web.listen-address=127.0.0.1:0"])
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log);
    // As the service: the kernel ends it with the thread that started it.
    let spawned = runtime().block_on(async { runtime().spawn(async move { command.spawn() }).await });
    spawned.expect("a thread").expect("Prometheus can be run; `scripts/setup` installs it")
}
