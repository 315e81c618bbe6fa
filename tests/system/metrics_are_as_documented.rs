//! What `docs/METRICS.md` says is what a scrape shows, in both directions, and every family moves when what it counts
//! happens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dashstream::wire::telemetry::dash_stream_message::Message;
use dashstream::wire::telemetry::{DashStreamMessage, Event, EventBatch, Header};
use prost::Message as _;
use serde_json::json;

use crate::harness::client::{Client, From, Options, Reading, SUBPROTOCOL};
use crate::harness::contract::Judged as _;
use crate::harness::eventually::eventually;
use crate::harness::producer::Producer;
use crate::harness::records::{self, Expect, Outgoing};
use crate::harness::service::{Config, Service};
use crate::harness::topic::Topic;
use crate::harness::v1_client::V1Client;
use crate::harness::{runtime, services, socket};

const PAGE: &str = include_str!("../../docs/METRICS.md");
const BOUND: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 2;

/// Families that this test does not move, each with the test that does, or with why nothing can.
const MOVED_ELSEWHERE: &[(&str, &str)] = &[
    ("dashstream_build_info", "constant by its nature"),
    (
        "websocket_replay_gaps_total",
        "tests/system/history.rs::a_cursor_that_retention_has_passed_names_the_loss_and_gets_what_is_kept",
    ),
    (
        "websocket_replay_gap_messages_total",
        "tests/system/history.rs::a_cursor_that_retention_has_passed_names_the_loss_and_gets_what_is_kept",
    ),
    (
        "dashstream_replay_capped_total",
        "tests/system/history.rs::a_backlog_of_exactly_the_limit_is_complete_and_one_more_is_capped",
    ),
    (
        "websocket_replay_timeouts_total",
        "tests/system/history.rs::a_topic_that_does_not_answer_is_told_within_the_budget_and_the_cursor_still_works",
    ),
    ("dashstream_redis_up", "tests/redis_tier/faults.rs::a_server_that_is_gone_is_told_at_once_and_found_again"),
    ("dashstream_websocket_redis_errors_total", "tests/redis_tier/faults.rs::each_refusal_has_a_name"),
    ("dashstream_redis_errors_by_type_total", "tests/redis_tier/faults.rs::each_refusal_has_a_name"),
    ("replay_buffer_redis_write_failures_total", "tests/redis_tier/faults.rs::each_refusal_has_a_name"),
    ("dashstream_redis_emptied_total", "tests/redis_tier/coverage.rs::a_flushed_server_is_empty_and_goes_on"),
    (
        "dashstream_redis_timeouts_total",
        "tests/redis_tier/faults.rs::a_server_that_hangs_costs_its_deadline_and_nothing_else",
    ),
    ("dashstream_redis_page_records", "tests/redis_tier/coverage.rs::page_sizes_hits_and_misses_are_counted"),
    ("replay_buffer_redis_hits_total", "tests/redis_tier/coverage.rs::page_sizes_hits_and_misses_are_counted"),
    ("replay_buffer_redis_misses_total", "tests/redis_tier/coverage.rs::page_sizes_hits_and_misses_are_counted"),
    (
        "replay_buffer_redis_write_dropped_total",
        "src/actors/redis_queue/tests.rs::a_full_queue_drops_the_oldest_and_counts_its_records",
    ),
    // What waits for milliseconds is easily missed by a scrape.
    (
        "dashstream_redis_queued_blocks",
        "src/actors/redis_queue/tests.rs::a_full_queue_drops_the_oldest_and_counts_its_records",
    ),
    ("dashstream_redis_queued_bytes", "src/actors/redis_queue/tests.rs::bytes_are_bounded_too"),
    (
        "dashstream_filtered_sessions",
        "tests/system/filters.rs::a_client_gets_exactly_what_its_filter_names_live_and_replayed",
    ),
    (
        "dashstream_jwks_reads_total",
        "tests/system/web_doors.rs::public_keys_come_from_an_address_over_tls_and_new_ones_are_found",
    ),
    (
        "dashstream_tls_renewals_total",
        "tests/system/web_doors.rs::the_listener_speaks_tls_and_takes_a_renewed_certificate_without_a_restart",
    ),
    (
        "dashstream_redacted_records_total",
        "tests/system/redaction.rs::what_is_blacked_out_is_so_live_in_history_and_in_redis",
    ),
    ("dashstream_spans_total", "tests/system/spans.rs::a_collector_hears_of_bad_records_and_resumes_in_their_traces"),
    ("dashstream_store_misaligned_total", "only a defect of the service moves it"),
    (
        // Letters that fail at once are in flight too shortly for a scrape.
        "dashstream_dlq_in_flight",
        "src/actors/dlq_publisher.rs::what_a_publisher_leaves_behind_is_sent_by_the_next_one",
    ),
    (
        "dashstream_dlq_queued",
        "src/actors/letter_queue/tests.rs::with_best_effort_a_letter_settles_its_record_once_however_it_ends",
    ),
    (
        "dashstream_dlq_queued_bytes",
        "src/actors/letter_queue/tests.rs::with_best_effort_a_letter_settles_its_record_once_however_it_ends",
    ),
    (
        "dashstream_paused_partitions",
        "tests/system/unprocessable_records.rs::a_pause_stands_still_at_every_kind_also_after_a_restart_until_an_operator_decides",
    ),
    (
        "dashstream_dlq_blocked_letters",
        "tests/system/unprocessable_records.rs::fail_closed_holds_while_letters_cannot_be_written_and_goes_on_by_itself",
    ),
    (
        "dashstream_sequence_pruned_total",
        "src/actors/sequence_tracker/tests.rs::pruning_is_counted_and_logged_once_a_minute_with_memory_figures",
    ),
    (
        "dashstream_sequence_overlooked_total",
        "src/actors/sequence_tracker/tests.rs::findings_of_a_record_that_has_thousands_are_counted_and_few_of_them_ride_along",
    ),
    (
        "dashstream_dlq_retries_total",
        "src/actors/dlq_publisher.rs::a_passing_error_is_retried_a_bounded_number_of_times",
    ),
    (
        "dashstream_history_pages_total",
        "tests/system/kafka_history.rs::a_cluster_that_does_not_answer_costs_the_deadline_and_no_more",
    ),
    ("dashstream_history_page_records", "tests/system/kafka_history.rs::a_page_ends_with_its_bytes"),
    ("dashstream_history_page_seconds", "tests/system/kafka_history.rs::a_page_ends_with_its_bytes"),
    (
        "dashstream_history_open_questions",
        "tests/system/kafka_history.rs::a_cluster_that_does_not_answer_costs_the_deadline_and_no_more",
    ),
    (
        "dashstream_history_cache_lookups_total",
        "tests/system/kafka_history.rs::many_clients_that_page_over_the_same_range_share_one_reading",
    ),
    (
        "dashstream_history_cache_bytes",
        "tests/system/kafka_history.rs::many_clients_that_page_over_the_same_range_share_one_reading",
    ),
    (
        "dashstream_lost_offsets_total",
        "tests/kafka_ingest/main.rs::what_retention_took_is_told_as_lost_and_reading_goes_on",
    ),
];

/// A family as the page describes it.
#[derive(Debug, PartialEq, Eq)]
struct Family {
    kind: String,
    help: String,
    /// Label to its closed set of values, empty for an open one.
    labels: BTreeMap<String, BTreeSet<String>>,
}

fn documented() -> BTreeMap<String, Family> {
    let mut families = BTreeMap::new();
    for line in PAGE.lines() {
        let Some(row) = line.strip_prefix("| `").and_then(|row| row.strip_suffix(" |")) else { continue };
        let mut cells = row.split(" | ");
        let mut next = || cells.next().unwrap_or_else(|| panic!("too few cells: {line}")).trim().to_owned();
        let (name, kind, labels, help) = (next(), next(), next(), next());
        let of_label = |label: &str| {
            let (name, values) = label.split_once(':').expect("label: values");
            let values = values.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            (name.trim_matches([' ', '`']).to_owned(), values)
        };
        let labels = labels.split("; ").filter(|label| !label.is_empty()).map(of_label).collect();
        families.insert(name.trim_end_matches('`').to_owned(), Family { kind, help, labels });
    }
    families
}

/// The family that a sample belongs to.
fn family_of<'a>(sample: &str, families: &'a BTreeMap<String, Family>) -> Option<&'a str> {
    let name = sample.split('{').next().unwrap_or(sample);
    let of_histogram = || ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
    let found = families.get_key_value(name).or_else(|| families.get_key_value(of_histogram()?));
    found.map(|(name, _)| name.as_str())
}

/// The labels of a sample: `name{a="b",c="d"}`.
fn labels_of(sample: &str) -> Vec<(String, String)> {
    let inside = sample.split_once('{').map_or("", |(_, rest)| rest.trim_end_matches('}'));
    let pairs = inside.split("\",").filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (label, value) = pair.split_once("=\"").expect("label=\"value\"");
            (label.to_owned(), value.trim_end_matches('"').to_owned())
        })
        .filter(|(label, _)| label != "le")
        .collect()
}

/// Compares the page with what is scraped, family by family and label by label.
fn compare(service: &Service, families: &BTreeMap<String, Family>) {
    let (_, text) = service.get("/metrics").expect("a scrape");
    let described = |what: &str| -> BTreeMap<String, String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(what));
        lines.filter_map(|line| line.split_once(' ')).map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
    };
    let kinds = families.iter().map(|(name, family)| (name.clone(), family.kind.clone())).collect();
    assert_eq!(described("# TYPE "), kinds, "types of the scrape (left) and of the page (right)");
    let helps = families.iter().map(|(name, family)| (name.clone(), family.help.clone())).collect();
    assert_eq!(described("# HELP "), helps, "texts of the scrape (left) and of the page (right)");

    let mut found: BTreeMap<&str, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for sample in service.metrics().keys() {
        let family = family_of(sample, families).unwrap_or_else(|| panic!("{sample} is not on the page"));
        let labels = found.entry(family).or_default();
        for (label, value) in labels_of(sample) {
            labels.entry(label).or_default().insert(value);
        }
    }
    for (name, family) in families {
        let labels = found.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no sample"));
        assert!(labels.keys().eq(family.labels.keys()), "{name}: {labels:?} instead of {:?}", family.labels);
        for (label, values) in family.labels.iter().filter(|(_, values)| !values.is_empty()) {
            assert_eq!(&labels[label], values, "values of {name} {label}: scraped, and on the page");
        }
    }
}

/// Which families have shown more than one value, or a series that was not there before.
struct Watched<'a> {
    service: &'a Service,
    families: &'a BTreeMap<String, Family>,
    first: BTreeMap<String, f64>,
    moved: BTreeSet<String>,
}

impl<'a> Watched<'a> {
    fn new(service: &'a Service, families: &'a BTreeMap<String, Family>) -> Self {
        Self { service, families, first: service.metrics(), moved: BTreeSet::new() }
    }

    fn look(&mut self) {
        for (sample, value) in self.service.metrics() {
            let known = self.first.get(&sample);
            if known.is_none_or(|first| (first - value).abs() > f64::EPSILON)
                && let Some(family) = family_of(&sample, self.families)
            {
                self.moved.insert(family.to_owned());
            }
        }
    }

    /// Scrapes until these have moved.
    #[track_caller]
    fn wait_for(&mut self, what: &str, names: &[&str]) {
        eventually(what, BOUND, || {
            self.look();
            let still: Vec<_> = names.iter().filter(|name| !self.moved.contains(**name)).collect();
            if still.is_empty() { Ok(()) } else { Err(format!("{still:?} did not move")) }
        });
    }
}

/// A batch whose events are of two threads.
fn of_two_threads() -> Outgoing {
    let event = |thread: &str| Event {
        header: Some(Header { thread_id: thread.into(), sequence: 1, schema_version: 1, ..Header::default() }),
        ..Event::default()
    };
    of_message(Message::EventBatch(EventBatch {
        header: Some(Header { schema_version: 1, ..Header::default() }),
        events: vec![event("a"), event("b")],
    }))
}

/// An event of a producer whose clock is an hour ahead.
fn from_the_future() -> Outgoing {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    let timestamp_us = i64::try_from(now.as_micros()).expect("a clock before the year 292000") + 3_600_000_000;
    let header = Header { timestamp_us, schema_version: 1, ..Header::default() };
    of_message(Message::Event(Event { header: Some(header), ..Event::default() }))
}

fn of_message(message: Message) -> Outgoing {
    let mut value = vec![0];
    value.extend(DashStreamMessage { message: Some(message) }.encode_to_vec());
    Outgoing::new("thread", Some(value), Expect::Record)
}

/// Numbers with a gap, a duplicate, a late one and a producer that begins again.
fn numbered() -> impl Iterator<Item = Outgoing> {
    let sequences = [1, 2, 5, 5, 3, 6, 7, 8, 9, 10, 11, 12, 1, 2, 3];
    sequences.into_iter().map(|sequence| records::good("numbered", sequence).on_partition(0))
}

fn bulk(count: u64) -> impl Iterator<Item = Outgoing> {
    (1..=count).map(|sequence| records::good_of_size("bulk", sequence, 1_000).on_partition(1))
}

#[test]
fn a_live_scrape_and_the_page_say_the_same_and_every_family_moves() {
    let families = documented();
    assert!(families.len() > 50, "the tables of the page are found");
    let kafka = services::kafka_behind_proxy();
    let topic = Topic::create(&kafka.direct, "metrics", PARTITIONS);
    let dead_letters = topic.beside("dlq", 1);
    let config = Config::new(&topic)
        .sabotaged()
        .set("KAFKA_BROKERS", kafka.proxy.address())
        .set("KAFKA_LAG_CHECK_INTERVAL_SECS", 1)
        .set("DLQ_SEND_TIMEOUT_SECS", 2)
        .set("REPLAY_BUFFER_MEMORY_SIZE", 1_000)
        .set("WEBSOCKET_SEND_TIMEOUT_SECS", 3)
        .set("WEBSOCKET_MAX_CONNECTIONS_PER_IP", 6)
        .set("DASHSTREAM_WEB_SESSION_QUEUE_BYTES", 65_536)
        .set("DASHSTREAM_WEB_MAX_CONTROL_FRAME_BYTES", 1_024)
        // An actor that is down stays so long enough to be seen.
        .set("DASHSTREAM_SUPERVISOR_BACKOFF_MAX_MS", 2_000)
        .set("DASHSTREAM_SUPERVISOR_BACKOFF_BASE_MS", 1_000);
    let service = Service::start(&config);
    let mut watched = Watched::new(&service, &families);
    service.wait_until_healthy(BOUND);
    let producer = Producer::new(&kafka.direct);

    records_move_theirs(&mut watched, &producer, &topic);
    clients_move_theirs(&mut watched, &producer, &topic);
    faults_move_theirs(&mut watched, &producer, &topic, &dead_letters, &kafka);

    compare(&service, &families);
    let elsewhere: BTreeSet<&str> = MOVED_ELSEWHERE.iter().map(|(name, _)| *name).collect();
    let at_rest: Vec<_> =
        families.keys().filter(|name| !watched.moved.contains(*name) && !elsewhere.contains(name.as_str())).collect();
    assert!(at_rest.is_empty(), "nothing here moves {at_rest:?}");
}

fn records_move_theirs(watched: &mut Watched<'_>, producer: &Producer, topic: &Topic) {
    let others = [of_two_threads(), from_the_future(), records::zstd("zstd", 1, 100)];
    producer.publish(&topic.name, numbered().chain(others).chain(records::one_of_each_bad("bad")));
    let names = [
        "websocket_kafka_messages_total",
        "websocket_decode_errors_total",
        "websocket_kafka_payload_missing_total",
        "websocket_last_kafka_message_age_seconds",
        "dashstream_offset_commits_total",
        "dashstream_owned_partitions",
        "dashstream_sequence_gaps_total",
        "dashstream_sequence_gap_size",
        "dashstream_sequence_duplicates_total",
        "dashstream_sequence_reorders_total",
        "dashstream_sequence_producer_restarts_total",
        "dashstream_sequence_tracked_threads",
        "dashstream_sequence_tracking_started_total",
        "websocket_multi_thread_batches_total",
        "websocket_e2e_latency_ms",
        "websocket_clock_skew_events_total",
        "websocket_dlq_sends_total",
        "websocket_kafka_lag_poll_duration_seconds",
        "websocket_kafka_consumer_lag",
        "websocket_kafka_lag_offset_age_seconds",
        "websocket_kafka_catchup_phase",
        "dashstream_replay_window_bytes",
        "dashstream_replay_window_records",
        "websocket_uptime_seconds",
    ];
    watched.wait_for("records to be counted", &names);
}

fn clients_move_theirs(watched: &mut Watched<'_>, producer: &Producer, topic: &Topic) {
    let address = watched.service.address();
    let published = producer.publish(&topic.name, bulk(3_000));
    watched.service.wait_until_healthy(BOUND);
    let mut client = Client::from(address, From::Earliest);
    let cursor = json!({ "0": "0", "1": "0" });
    let resume = json!({ "type": "resume", "mode": "partition", "from": "cursor", "lastOffsetsByPartition": cursor });
    let _v1 = V1Client::connect(address, Some(&resume));
    client.wait_until("the end", BOUND, |ledger| ledger.has_reached_the_end_of(&published));
    client.send(&json!({ "type": "nonsense" }));
    let names = [
        "websocket_connected_clients",
        "dashstream_sessions",
        "dashstream_sessions_opened_total",
        "dashstream_delivered_records_total",
        "dashstream_sent_bytes_total",
        "websocket_resume_requests_total",
        "websocket_replay_messages_total",
        "websocket_replay_latency_ms",
        "replay_buffer_memory_hits_total",
        "dashstream_client_apply_lag_messages_reported",
        "dashstream_client_apply_lag_seconds_reported",
        "websocket_control_parse_failures_total",
    ];
    watched.wait_for("a resume to be counted", &names);

    // One reads slowly and catches up, two do not read: one until its time is over, one goes away with a full socket.
    let reads = |reading| Options { reading, receive_buffer: Some(4_096), ..Options::default() };
    let slow = Client::connect(address, reads(Reading::Slow(Duration::from_millis(20))));
    let stalled: Vec<Client> = (0..2).map(|_| Client::connect(address, reads(Reading::Fast))).collect();
    stalled.iter().for_each(|client| client.read(Reading::Stopped));
    producer.publish(&topic.name, bulk(3_000));
    let names = [
        "dashstream_session_queued_bytes",
        "dashstream_session_demotions_total",
        "websocket_client_apply_lag_messages",
        "websocket_client_apply_lag_seconds",
    ];
    watched.wait_for("slow clients to be seen", &names);
    let mut stalled = stalled.into_iter();
    let mut gone = stalled.next().expect("there are two");
    gone.disconnect();
    slow.read(Reading::Fast);
    let names = [
        "dashstream_session_promotions_total",
        "websocket_send_timeout_total",
        "dashstream_sessions_closed_total",
        "websocket_send_failed_total",
    ];
    watched.wait_for("slow clients to end or catch up", &names);

    // Too many from one address, and a frame that is too large.
    let crowd: Vec<_> = (0..7).map(|_| runtime().block_on(socket::open(address, Some(SUBPROTOCOL), None))).collect();
    assert!(crowd.iter().any(Result::is_err), "some were refused");
    client.send(&json!({ "type": "ping", "padding": "x".repeat(2_000) }));
    let names = ["websocket_rejected_connections_total", "websocket_control_oversized_total"];
    watched.wait_for("refusals to be counted", &names);
    client.disconnect();
}

fn faults_move_theirs(
    watched: &mut Watched<'_>,
    producer: &Producer,
    topic: &Topic,
    dead_letters: &Topic,
    kafka: &services::KafkaBehindProxy,
) {
    // What a stage that hangs holds is in flight, until another one takes its place.
    watched.service.sabotage("DecodePolicy", "hang");
    producer.publish(&topic.name, bulk(500));
    let names = [
        "dashstream_in_flight_bytes",
        "dashstream_actor_up",
        "dashstream_actor_generation",
        "dashstream_actor_restarts_total",
        "dashstream_abandoned_threads_total",
    ];
    watched.wait_for("a hang to be seen", &names);
    watched.service.wait_until_healthy(BOUND);

    dead_letters.delete();
    producer.publish(&topic.name, (0..50).map(|_| records::garbage("bad")));
    watched.wait_for("lost dead letters to be counted", &["websocket_dlq_send_failures_total"]);

    kafka.proxy.black_hole();
    let names = [
        "websocket_infrastructure_errors_total",
        "websocket_kafka_errors_by_type_total",
        "websocket_kafka_lag_poll_failures_total",
    ];
    watched.wait_for("an outage to be counted", &names);
    kafka.proxy.heal();

    topic.recreate(PARTITIONS);
    watched.wait_for("a new epoch to be counted", &["dashstream_topic_epochs_total"]);
    // Of the new topic every partition has its series again.
    Producer::new(&kafka.direct).publish(&topic.name, numbered().chain(bulk(10)));
    eventually("the series of all partitions", BOUND, || {
        let metrics = watched.service.metrics();
        let lag = metrics.keys().filter(|name| name.starts_with("websocket_kafka_consumer_lag{")).count();
        if lag == PARTITIONS as usize { Ok(()) } else { Err(format!("{lag} series of lag")) }
    });
}

#[test]
fn what_is_moved_elsewhere_names_tests_that_exist() {
    for (family, place) in MOVED_ELSEWHERE {
        assert!(documented().contains_key(*family), "{family} is not documented");
        let Some((path, name)) = place.split_once("::") else { continue };
        let text = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
        assert!(text.expect("the file is there").contains(&format!("fn {name}(")), "no test {place}");
    }
}
