//! What faults are done to, and how they are judged: a service, a real Prometheus with the shipped rules, both asked all
//! the time.
//!
//! The windows and waits of the rules are made as short as seconds, so that the end of a fault is seen as well; the rules
//! as they are shipped are tested in virtual time by promtool. An alert counts as told once its condition holds.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::harness::client::{Client, Options};
use crate::harness::eventually::{eventually, throughout, within};
use crate::harness::producer::Producer;
use crate::harness::prometheus::Prometheus;
use crate::harness::records::{self, Outgoing};
use crate::harness::service::{Config, Service};
use crate::harness::topic::Topic;
use dashstream::torture::proxy::Proxy;

const BOUND: Duration = Duration::from_secs(60);
/// How soon after its cause a fault is told by health, by every metric and by every alert whose condition needs no longer.
const PROMISED: Duration = Duration::from_secs(15);
/// A machine has its moments, in which something else is true as well; what belongs to a fault comes along every time.
const TRIES: u32 = 3;
/// Told on any machine that is busy enough, whatever the fault.
const OF_BUSY_MACHINES: [&str; 2] = ["E2ELatencyHigh", "WebSocketRedisHighLatency"];
/// Reasons that rest on figures over 120 s, or are told for a while after. That they go is shown where time can be made up.
const OF_A_WINDOW: [&str; 7] = [
    "decode_error_rate",
    "payload_missing_rate",
    "dead_letters_lost",
    "offsets_lost",
    "redis_writes_dropped",
    "redis_emptied",
    "actor_restarted",
];
/// By then such a reason has gone.
const OF_A_WINDOW_GONE: Duration = Duration::from_secs(150);
/// Figures of `/health` that a metric counts as well.
const TWO_WAYS_TO_ASK: [(&str, &str); 15] = [
    ("/metrics/kafka_messages_received", "websocket_kafka_messages_total"),
    ("/metrics/decode_errors", "websocket_decode_errors_total"),
    ("/metrics/payload_missing", "websocket_kafka_payload_missing_total"),
    ("/metrics/infrastructure_errors", "websocket_infrastructure_errors_total"),
    ("/metrics/infrastructure_errors", "websocket_kafka_errors_by_type_total"),
    ("/metrics/send_failed", "websocket_send_failed_total"),
    ("/metrics/send_timeout", "websocket_send_timeout_total"),
    ("/metrics/connected_clients", "websocket_connected_clients"),
    ("/metrics/dropped_messages", "websocket_replay_gap_messages_total"),
    ("/replay_buffer/redis_hits", "replay_buffer_redis_hits_total"),
    ("/replay_buffer/redis_misses", "replay_buffer_redis_misses_total"),
    ("/replay_buffer/redis_write_dropped", "replay_buffer_redis_write_dropped_total"),
    ("/replay_buffer/redis_write_failures", "replay_buffer_redis_write_failures_total"),
    ("/replay_buffer/memory_hits", "replay_buffer_memory_hits_total"),
    ("/replay_buffer/memory_buffer_size", "dashstream_replay_window_records"),
];

/// A fault and what must be told of it.
pub struct Fault {
    pub name: &'static str,
    pub cause: fn(&mut Stage),
    pub end: fn(&mut Stage),
    /// The status and one reason of `/health`, when health is concerned: a client's or a producer's trouble is not the
    /// service's.
    pub health: Option<(&'static str, &'static str)>,
    /// Metrics, each with a part of its labels, that differ from before.
    pub metrics: &'static [(&'static str, &'static str)],
    /// Alerts that must be told; `|` stands between those of which one is enough.
    pub alerts: &'static [&'static str],
    /// Reasons and alerts that may come along, since one follows from the other.
    pub may: &'static [&'static str],
}

impl Fault {
    fn explains(&self, told: &str) -> bool {
        let wanted = self.health.is_some_and(|(_, code)| code == told);
        let alert = self.alerts.iter().any(|names| names.split('|').any(|name| name == told));
        wanted || alert || self.may.contains(&told) || OF_BUSY_MACHINES.contains(&told)
    }

    /// Whether what must be told (a reason, a metric, an alert) is told now.
    fn is_told(&self, wanted: &str, now: &Told, before: &BTreeMap<String, f64>) -> bool {
        let moved = |(name, label): &(&str, &str)| {
            *name == wanted && (sum(&now.metrics, name, label) - sum(before, name, label)).abs() > f64::EPSILON
        };
        self.health.is_some_and(|(status, code)| code == wanted && now.status == status && now.codes.contains(code))
            || self.metrics.iter().any(moved)
            || wanted.split('|').any(|alert| now.alerts.contains(alert))
    }
}

pub const NOTHING_TO_END: fn(&mut Stage) = |_| ();

/// What faults are done to.
pub struct Stage {
    pub topic: Topic,
    pub letters: Topic,
    pub producer: Producer,
    pub service: Service,
    pub clients: Vec<Client>,
    pub kafka: Option<Proxy>,
    pub redis: Option<Proxy>,
    prometheus: Prometheus,
    /// Every sample of the last scrape.
    last: RefCell<BTreeMap<String, f64>>,
}

/// What is true right now.
struct Told {
    status: String,
    codes: BTreeSet<String>,
    alerts: BTreeSet<String>,
    metrics: BTreeMap<String, f64>,
}

impl Stage {
    /// A service that reads two partitions of a topic on `kafka`, with the settings that `set` makes.
    pub fn new(kafka: &str, set: impl FnOnce(Config) -> Config) -> Self {
        let topic = Topic::create(kafka, "fault", 2);
        let letters = topic.beside("dlq", 1);
        let config = Config::new(&topic)
            .set("KAFKA_LAG_CHECK_INTERVAL_SECS", 1)
            .set("DLQ_SEND_TIMEOUT_SECS", 2)
            // A history that is nearly full is a fault of its own.
            .set("REDIS_MAX_SEQUENCES", 10_000_000);
        let service = Service::start(&set(config));
        service.wait_until_healthy(BOUND);
        eventually("redis to be up", BOUND, || match service.metric("dashstream_redis_up", &[]) {
            1.0 => Ok(()),
            up => Err(up.to_string()),
        });
        let prometheus = Prometheus::scraping(&[service.address()], shortened);
        eventually("a scrape, and rules that are evaluated on it", BOUND, || {
            let (targets, active) = (prometheus.values("up == 1")?.len(), prometheus.active_alerts()?);
            if targets == 1 && active.is_empty() { Ok(()) } else { Err(format!("{targets} targets, {active:?}")) }
        });
        let producer = Producer::new(kafka);
        Self {
            topic,
            letters,
            producer,
            service,
            clients: Vec::new(),
            kafka: None,
            redis: None,
            prometheus,
            last: RefCell::default(),
        }
    }

    pub fn publish(&self, records: impl IntoIterator<Item = Outgoing>) {
        self.producer.publish(&self.topic.name, records);
    }

    /// Good records of 1 KB over both partitions.
    pub fn good(&self, count: usize) {
        self.publish((0..count).map(|index| {
            records::good_of_size("run-good", 0, 1_000).on_partition(i32::try_from(index % 2).expect("0 or 1"))
        }));
    }

    /// A client whose socket holds little.
    pub fn connect(&mut self, reports_applied: bool) -> &Client {
        let options = Options { reports_applied, receive_buffer: Some(4_096), ..Options::default() };
        self.clients.push(Client::connect(self.service.address(), options));
        self.clients.last().expect("there is one")
    }

    /// Fails the actor so often that it counts as a loop.
    pub fn crash_again_and_again(&self, actor: &str) {
        for _ in 0..4 {
            let generation = || self.service.metric("dashstream_actor_generation", &[actor]);
            let before = generation();
            self.service.sabotage(actor, "panic");
            eventually("another generation", BOUND, || match generation() {
                now if now > before => Ok(()),
                now => Err(now.to_string()),
            });
        }
    }

    pub fn set_aside(&self) {
        let headers = [("Content-Type", "application/json")];
        let answer = self.service.post("/admin/ingest/continue", &headers, r#"{"action":"set_aside"}"#);
        let (status, body) = answer.expect("the service answers");
        assert_eq!(status, 200, "{body}");
    }

    /// Causes each fault in turn.
    pub fn suffer(&mut self, faults: &[Fault]) {
        let mut lasting = BTreeSet::new();
        for fault in faults {
            for attempt in 1..=TRIES {
                let strange = self.one(fault, &lasting);
                lasting.extend(self.told().expect("an answer").codes);
                if strange.is_empty() {
                    break;
                }
                println!("{}: besides, {strange:?} were told", fault.name);
                assert!(attempt < TRIES, "{}: each time something else is told as well, now {strange:?}", fault.name);
            }
            // They are asked one after the other, so something may happen in between.
            eventually("health and metrics to agree", BOUND, || self.health_and_metrics_agree());
        }
    }

    fn told(&self) -> Result<Told, String> {
        // Often enough, without being the fault itself.
        throughout("between two looks", Duration::from_millis(200), || Ok(()));
        let (status, codes) = self.service.verdict()?;
        let alerts = self.prometheus.active_alerts()?;
        Ok(Told { status, codes: codes.into_iter().collect(), alerts, metrics: self.scrape() })
    }

    /// What is counted never becomes less, whatever happens.
    fn scrape(&self) -> BTreeMap<String, f64> {
        let metrics = self.service.metrics();
        let before = self.last.replace(metrics.clone());
        for (sample, value) in before {
            let name = sample.split('{').next().unwrap_or_default();
            let counts = ["_total", "_count", "_bucket"].iter().any(|end| name.ends_with(end));
            let now = metrics.get(&sample).copied();
            assert!(!counts || now.is_some_and(|now| now >= value), "{sample} was {value} and is {now:?}");
        }
        metrics
    }

    /// One fault until it is told everywhere, its end until all is quiet. Answers what else was told.
    fn one(&mut self, fault: &Fault, lasting: &BTreeSet<String>) -> BTreeSet<String> {
        // What still tells of the fault before would pass for telling of this one.
        eventually("nobody to tell of it yet", OF_A_WINDOW_GONE, || match self.told()? {
            told if fault.health.is_some_and(|(_, code)| told.codes.contains(code)) => Err(format!("{:?}", told.codes)),
            _ => Ok(()),
        });
        let before = self.scrape();
        (fault.cause)(self);
        let began = Instant::now();
        let mut missing: BTreeSet<&str> = fault.alerts.iter().copied().collect();
        missing.extend(fault.metrics.iter().map(|(name, _)| *name));
        missing.extend(fault.health.map(|(_, code)| code));
        let mut strange = BTreeSet::new();
        within(&format!("{} to be told everywhere", fault.name), PROMISED, || {
            let told = self.told()?;
            let all = told.codes.iter().filter(|code| !lasting.contains(*code)).chain(&told.alerts);
            strange.extend(all.filter(|told| !fault.explains(told)).cloned());
            missing.retain(|wanted| {
                let is_told = fault.is_told(wanted, &told, &before);
                if is_told {
                    println!("{}: {wanted} after {:.1?}", fault.name, began.elapsed());
                }
                !is_told
            });
            match missing.is_empty() {
                true => Ok(()),
                false => Err(format!("without {missing:?}: {} {:?} {:?}", told.status, told.codes, told.alerts)),
            }
        });
        (fault.end)(self);
        eventually(&format!("all to be quiet after {}", fault.name), BOUND, || {
            let told = self.told()?;
            let left: Vec<_> = told.codes.iter().filter(|code| !OF_A_WINDOW.contains(&code.as_str())).collect();
            let alerts: Vec<_> = told.alerts.iter().filter(|name| !OF_BUSY_MACHINES.contains(&name.as_str())).collect();
            if left.is_empty() && alerts.is_empty() { Ok(()) } else { Err(format!("{left:?} {alerts:?}")) }
        });
        strange
    }

    /// Two ways to ask must give one answer, and a part is never more than the whole.
    fn health_and_metrics_agree(&self) -> Result<(), String> {
        let (health, metrics) = (self.service.health(), self.service.metrics());
        let figure = |place: &str| {
            health.pointer(place).and_then(serde_json::Value::as_f64).unwrap_or_else(|| panic!("no {place}: {health}"))
        };
        for (place, name) in TWO_WAYS_TO_ASK {
            let counted = sum(&metrics, name, "");
            if (figure(place) - counted).abs() > 0.5 {
                return Err(format!("{place} is {}, {name} {counted}", figure(place)));
            }
        }
        for (part, whole) in [
            ("decode_errors", "kafka_errors"),
            ("kafka_errors", "kafka_messages_received"),
            ("payload_missing", "decode_errors"),
            ("decode_errors_last_120s", "messages_last_120s"),
            ("payload_missing_last_120s", "decode_errors_last_120s"),
        ] {
            let (of_part, of_whole) = (figure(&format!("/metrics/{part}")), figure(&format!("/metrics/{whole}")));
            assert!(of_part <= of_whole, "{part} is {of_part}, {whole} {of_whole}");
        }
        Ok(())
    }
}

/// Sum of the samples of a metric whose labels contain the text.
fn sum(metrics: &BTreeMap<String, f64>, name: &str, label: &str) -> f64 {
    let samples = metrics.iter().filter(|(sample, _)| sample.split('{').next() == Some(name));
    samples.filter(|(sample, _)| sample.contains(label)).map(|(_, value)| value).sum()
}

/// The shipped rules, with windows and times of seconds.
fn shortened(rules: String) -> String {
    [
        ("[5m]", "[6s]"),
        // Some restarts in a row take a moment.
        ("[10m]", "[20s]"),
        ("[15m]", "[6s]"),
        ("offset_age_seconds) > 120", "offset_age_seconds) > 4"),
        ("offset_age_seconds) > 300", "offset_age_seconds) > 8"),
        ("apply_lag_seconds) > 30", "apply_lag_seconds) > 2"),
    ]
    .iter()
    .fold(rules, |rules, (long, short)| {
        assert!(rules.contains(long), "no rule holds {long}");
        rules.replace(long, short)
    })
}
