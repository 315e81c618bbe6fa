//! Every panel of the dashboards shows data of a service under load, every alert rule can be evaluated against it, and the
//! commands of the runbook work. On the in-process broker of `dashstream demo`, with a real Prometheus.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::client::{Client, From};
use crate::harness::eventually::eventually;
use crate::harness::producer::Producer;
use crate::harness::prometheus::Prometheus;
use crate::harness::service::{Config, Service};
use crate::harness::topic::Topic;
use crate::harness::v1_client::V1Client;
use crate::harness::{judgements, runtime, services};

const BOUND: Duration = Duration::from_secs(90);
const DASHBOARDS: [(&str, &str); 2] = [
    ("streaming", include_str!("../../grafana/dashboards/streaming_metrics_dashboard.json")),
    ("quality", include_str!("../../grafana/dashboards/grafana_quality_dashboard.json")),
];
const RUNBOOK: &str = include_str!("../../docs/OBSERVABILITY_RUNBOOK.md");

/// Panels that show nothing in a demo, each with the reason. What counts faults counts from zero, so none needs a fault.
const WITHOUT_DATA_IN_A_DEMO: [(&str, &str); 1] =
    [("Redis latency, 95 %", "the demo has no Redis whose latency there could be")];

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
    let topic = Topic::create(services::kafka(), "judged", 2);
    let exporter = Service::start(&Config::quality_exporter(&topic).set("PROMETHEUS_SESSION_TIMEOUT_SECS", 1));
    let prometheus = Prometheus::scraping_with_exporter(&[&demo.address], exporter.address());
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
    assert!(queries().count() > 95, "the queries are found");
    let mut left: Vec<_> = queries()
        .filter(|(_, (title, _))| !WITHOUT_DATA_IN_A_DEMO.iter().any(|(panel, _)| title.contains(panel)))
        .collect();
    let judge = Producer::new(&topic.kafka);
    let mut round = 0;
    eventually("every panel to show data", BOUND, || {
        round += 1;
        judge.publish(&topic.name, judgements::of_every_kind(round));
        left.retain(|(_, (_, expr))| prometheus.values(expr).expect("a valid query").is_empty());
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });

    eventually("every rule to be evaluated", BOUND, || {
        let rules = prometheus.rules()?;
        let failed: Vec<_> = rules.iter().filter_map(|(_, error)| error.as_ref()).collect();
        if rules.len() > 30 && failed.is_empty() { Ok(()) } else { Err(format!("{failed:?}")) }
    });
    let active = prometheus.active_alerts().expect("an answer");
    for silent in [
        "ServiceDown",
        "ServiceAbsent",
        "InstrumentationMissing",
        "NobodyOwnsPartitions",
        "ActorDown",
        "QualityExporterDown",
    ] {
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

#[test]
fn series_that_vanish_are_told_by_alert_and_panel() {
    let lost = ["websocket_decode_errors_total", "websocket_dlq_sends_total"];
    let demo = Demo::start();
    let prometheus = Prometheus::scraping_without(&[&demo.address], &lost.join("|"), |rules| rules);
    eventually("an alert", BOUND, || match prometheus.active_alerts()? {
        active if active.len() == 1 && active.contains("InstrumentationMissing") => Ok(()),
        active => Err(format!("{active:?}")),
    });
    let mut red = 0;
    for (title, expr) in DASHBOARDS.iter().flat_map(|(_, text)| queries(text)) {
        if title.contains("Instrumentation") {
            let missing = lost.iter().any(|name| expr.contains(name));
            // Nobody scrapes an exporter of quality here.
            let expected = if missing || expr.contains("quality-exporter") { 1.0 } else { 0.0 };
            assert_eq!(prometheus.values(&expr), Ok(vec![expected]), "{expr}");
            red += usize::from(missing);
        }
    }
    assert_eq!(red, 4, "both dashboards show both");
}
