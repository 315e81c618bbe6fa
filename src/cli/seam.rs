//! Where the command line meets the program: plain settings in, an exit code out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Exit, demo, generate, print};
use crate::actors::topology::EDGES;
use crate::app::{self, Ended, Options};
pub(super) use crate::app::{connection, judge_settings, redis_settings};
use crate::config::Config;
use crate::config::load::Loaded;
use crate::generate::GeneratorSettings;
use crate::generate::defects::Defects;
use crate::generate::flat::FlatSettings;
use crate::generate::records::Source;
use crate::kafka::demo_broker::DemoBroker;
use crate::kafka::load_producer::{self, LoadReport, LoadSettings, Pace};

const PROGRESS: Duration = Duration::from_secs(5);
/// Records of the demo that a producer "loses", so that the page has a finding to show now and then.
const DEMO_GAPS: f64 = 0.0005;
const OVERSIZED_BYTES: usize = 11 * 1024 * 1024;

/// Runs the service until it is told to stop.
pub(super) fn serve(config: &Config, options: Options) -> anyhow::Result<Exit> {
    exit(app::serve(config, options)?)
}

/// Runs the exporter of quality until it is told to stop.
pub(super) fn quality_exporter(config: &Config) -> anyhow::Result<Exit> {
    exit(app::quality::export(config)?)
}

fn exit(ended: Ended) -> anyhow::Result<Exit> {
    match ended {
        Ended::Stopped => Ok(Exit::Success),
        Ended::Escalated(reason) => {
            tracing::error!(reason, "the supervisor gave up");
            Ok(Exit::Escalated)
        }
        Ended::Refused(reason) => anyhow::bail!(reason),
    }
}

/// Runs the demo until it is told to stop: a broker in this process, a producer, and the service.
pub(super) fn demo(options: &demo::Args, mut config: Config) -> anyhow::Result<Exit> {
    let broker = DemoBroker::start(&config.kafka.topic, options.partitions, &config.dlq_topic())
        .context("cannot start the broker of the demo")?;
    broker.bootstrap().clone_into(&mut config.kafka.brokers);
    let source = Source::Runs {
        generator: GeneratorSettings {
            seed: options.seed,
            tenants: options.tenants,
            failure_rate: options.failure_rate,
            concurrent_runs: concurrent_runs(options.rate),
            ..GeneratorSettings::default()
        },
        defects: Defects { gap: DEMO_GAPS, garbage: options.garbage, ..Defects::default() },
    };
    let load = LoadSettings {
        connection: connection(&config, "dashstream-demo"),
        topic: config.kafka.topic.clone(),
        create_partitions: None,
        source,
        pace: Pace::Rate(options.rate),
        count: None,
        progress_interval: PROGRESS,
    };
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let producer = std::thread::Builder::new()
        .name("demo-producer".into())
        .spawn(move || {
            if let Err(error) = load_producer::run(&load, &stopped, &mut |_| ()) {
                tracing::error!(%error, "the producer of the demo ended");
            }
        })
        .context("cannot start the producer of the demo")?;
    tracing::info!("demo: all data is in memory and gone at the end; stop with Ctrl-C");
    let exit = serve(&config, Options { without_topic_ids: true, ..Options::default() });
    stop.cancel();
    if producer.join().is_err() {
        tracing::error!("the producer of the demo panicked");
    }
    // It ends with the process: clients that are still being closed would complain that it is gone.
    Box::leak(Box::new(broker));
    exit
}

/// As many runs at a time as make about this rate: each makes nine records per second of its own time.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates, then it is clamped")]
fn concurrent_runs(rate: f64) -> u32 {
    ((rate / 9.0).ceil() as u32).clamp(2, 1_000)
}

/// Writes generated records until done or told to stop.
pub(super) fn generate(options: &generate::Options, config: &Config) -> anyhow::Result<Exit> {
    let source = match options.flat {
        Some(size) => Source::Flat(FlatSettings {
            seed: options.seed,
            threads: options.threads,
            size: size as usize,
            compressed: options.compress,
            thread_prefix: "flat".into(),
        }),
        None => Source::Runs {
            generator: GeneratorSettings {
                seed: options.seed,
                tenants: options.tenants,
                concurrent_runs: options.concurrent_runs,
                failure_rate: options.failure_rate,
                ..GeneratorSettings::default()
            },
            defects: Defects {
                gap: options.gap,
                duplicate: options.duplicate,
                reorder: options.reorder,
                garbage: options.garbage,
                oversized: options.oversized,
                null: options.null,
                oversized_bytes: OVERSIZED_BYTES,
            },
        },
    };
    let load = LoadSettings {
        connection: connection(config, "dashstream-generate"),
        topic: config.kafka.topic.clone(),
        create_partitions: options.partitions,
        source,
        pace: if options.unlimited { Pace::Unlimited } else { Pace::Rate(options.rate) },
        count: options.count,
        progress_interval: PROGRESS,
    };
    let stop = CancellationToken::new();
    cancel_on_signal(stop.clone())?;
    let report = load_producer::run(&load, &stop, &mut |report| {
        let LoadReport { records, bytes, failed, .. } = report;
        tracing::info!(records, bytes, failed, "progress");
    })?;
    let text = if options.json {
        format!("{}\n", serde_json::to_string(&report)?)
    } else {
        let rate = report.records as f64 / report.seconds.max(0.001);
        format!(
            "{} records, {} bytes in {:.1} s ({rate:.0} records/s), {} failed\n",
            report.records, report.bytes, report.seconds, report.failed
        )
    };
    print(text)?;
    match (report.failed, report.last_error) {
        (0, _) => Ok(Exit::Success),
        (failed, error) => anyhow::bail!("{failed} records failed: {}", error.unwrap_or_default()),
    }
}

/// Cancels on SIGINT and SIGTERM, from a thread of its own.
pub(super) fn cancel_on_signal(stop: CancellationToken) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async move {
            if let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
                tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
                stop.cancel();
            }
        });
    })?;
    Ok(())
}

/// Actors, edges and bounds, as text or as JSON, with the values of the settings that the bounds name.
pub(super) fn topology(loaded: &Loaded, as_json: bool) -> String {
    let settings: Vec<_> = loaded
        .effective()
        .into_iter()
        .filter(|setting| EDGES.iter().any(|edge| edge.bound.contains(setting.key)))
        .collect();
    if as_json {
        let edges: Vec<_> = EDGES
            .iter()
            .map(|edge| json!({"from": edge.from, "to": edge.to, "message": edge.message, "bound": edge.bound}))
            .collect();
        let values: serde_json::Map<_, _> =
            settings.into_iter().map(|setting| (setting.key.to_owned(), setting.value)).collect();
        return format!("{}\n", json!({"edges": edges, "settings": values}));
    }
    let mut text = String::new();
    for edge in EDGES {
        text.push_str(&format!("{:<16} → {:<16} {:<17} {}\n", edge.from, edge.to, edge.message, edge.bound));
    }
    text.push('\n');
    for setting in settings {
        text.push_str(&format!("{} = {}\n", setting.key, setting.value));
    }
    text
}

/// The time, in Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
