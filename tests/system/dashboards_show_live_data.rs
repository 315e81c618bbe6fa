//! Every panel of the dashboards shows data of a service under load, every alert rule can be evaluated against it, and the
//! commands of the runbook work. On the in-process broker of `dashstream demo`, with a real Prometheus.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::client::{Client, From};
use crate::harness::eventually::eventually;
use crate::harness::prometheus::Prometheus;
use crate::harness::runtime;
use crate::harness::v1_client::V1Client;

const BOUND: Duration = Duration::from_secs(90);
const DASHBOARDS: [(&str, &str); 2] = [
    ("streaming", include_str!("../../grafana/dashboards/streaming_metrics_dashboard.json")),
    ("quality", include_str!("../../grafana/dashboards/grafana_quality_dashboard.json")),
];
const RUNBOOK: &str = include_str!("../../docs/OBSERVABILITY_RUNBOOK.md");

/// Queries that show nothing while all is well, each with the reason. There is none: what counts faults counts from zero.
const NEED_A_FAULT: [(&str, &str); 0] = [];

/// `dashstream demo`, with records that cannot be processed, on any free port.
struct Demo {
    child: Child,
    address: String,
}

impl Demo {
    fn start() -> Self {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_dashstream"), "demo", "--port", "0"])
            .args(["--rate", "200", "--garbage", "0.004"])
            .env_clear()
            .env("WEBSOCKET_MAX_CONNECTIONS_PER_IP", "100")
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let spawned = runtime().block_on(async { runtime().spawn(async move { command.spawn() }).await });
        let mut child = spawned.expect("a thread").expect("the binary can be run");
        let stdout = child.stdout.take().expect("a pipe");
        let line = BufReader::new(stdout).lines().map_while(Result::ok).find(|line| line.starts_with("listening on "));
        let address = line.expect("an address").replace("listening on http://", "");
        Self { child, address }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Title and query of every target, as Grafana would send it.
fn queries(dashboard: &str) -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(dashboard).expect("a dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut queries = Vec::new();
    for panel in panels {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = target["expr"].as_str().expect("a query");
            let expr = expr.replace("$instance", ".*").replace("$__rate_interval", "1m");
            assert!(!expr.contains('$'), "an unknown variable: {expr}");
            queries.push((panel["title"].to_string(), expr));
        }
    }
    queries
}

/// The commands of the runbook: its `sh` blocks.
fn commands() -> Vec<&'static str> {
    RUNBOOK.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn every_panel_shows_data_every_rule_is_evaluated_and_the_runbooks_commands_work() {
    let demo = Demo::start();
    let prometheus = Prometheus::scraping(&[&demo.address], |rules| rules);
    // A counter that moved before its first scrape shows no rate.
    eventually("a first scrape", BOUND, || match prometheus.values("up{job=\"dashstream\"} == 1")?.len() {
        1 => Ok(()),
        targets => Err(format!("{targets} targets")),
    });
    let _live = Client::from(&demo.address, From::Earliest);
    let resume = json!({ "type": "resume", "mode": "partition", "from": "earliest", "lastOffsetsByPartition": {} });
    let _v1 = V1Client::connect(&demo.address, Some(&resume));

    let queries =
        || DASHBOARDS.iter().flat_map(|(name, text)| queries(text).into_iter().map(move |query| (name, query)));
    assert!(queries().count() > 80, "the queries are found");
    let mut left: Vec<_> =
        queries().filter(|(_, (title, _))| !NEED_A_FAULT.iter().any(|(panel, _)| panel == title)).collect();
    eventually("every panel to show data", BOUND, || {
        left.retain(|(_, (_, expr))| prometheus.values(expr).expect("a valid query").is_empty());
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });

    eventually("every rule to be evaluated", BOUND, || {
        let rules = prometheus.rules()?;
        let failed: Vec<_> = rules.iter().filter_map(|(_, error)| error.as_ref()).collect();
        if rules.len() > 30 && failed.is_empty() { Ok(()) } else { Err(format!("{failed:?}")) }
    });
    let active = prometheus.active_alerts().expect("an answer");
    for silent in ["ServiceDown", "ServiceAbsent", "InstrumentationMissing", "NobodyOwnsPartitions", "ActorDown"] {
        assert!(!active.contains(silent), "{active:?}");
    }

    let commands = commands();
    assert!(commands.len() > 10, "the commands are found");
    for command in commands {
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", command])
            .env("URL", format!("http://{}", demo.address))
            .output()
            .expect("bash can be run");
        assert!(output.status.success() && !output.stdout.is_empty(), "{command}: {output:?}");
    }
}
