//! Settings between Kafka and the decoded record.

use super::{GIB, KIB, MIB, Section, boolean, choice, integer, secret, text};
use crate::config::forms;

pub(super) const KAFKA: Section = Section {
    name: "kafka",
    doc: "Where records come from.",
    settings: &[
        text("kafka.brokers", "KAFKA_BROKERS", "127.0.0.1:9092", forms::BROKERS, "Bootstrap brokers."),
        text("kafka.topic", "KAFKA_TOPIC", "dashstream-quality", forms::TOPIC, "The topic that producers write to."),
        text(
            "kafka.group_id",
            "KAFKA_GROUP_ID",
            "websocket-server-v4",
            forms::GROUP,
            "Consumer group. It shares out commits and dead letters among the instances; every instance reads all records.",
        ),
        text(
            "kafka.group_instance_id",
            "KAFKA_GROUP_INSTANCE_ID",
            "",
            forms::MEMBER,
            "Static member id: stable over restarts, different in every process of the group.",
        ),
        text(
            "kafka.cluster_id",
            "KAFKA_CLUSTER_ID",
            "",
            forms::LABEL,
            "Tells clusters apart in the resume namespace, where broker addresses do not.",
        ),
        choice(
            "kafka.auto_offset_reset",
            "KAFKA_AUTO_OFFSET_RESET",
            "earliest",
            &["earliest", "latest"],
            "Where a group without a committed offset begins.",
        ),
        choice(
            "kafka.broker_address_family",
            "KAFKA_BROKER_ADDRESS_FAMILY",
            "auto",
            &["auto", "any", "v4", "v6"],
            "Address family of broker connections. auto is v4 when a broker is a loopback address, otherwise any.",
        ),
        integer(
            "kafka.session_timeout_ms",
            "DASHSTREAM_KAFKA_SESSION_TIMEOUT_MS",
            10_000,
            1_000..=1_800_000,
            "milliseconds",
            "After what silence another instance takes the duties over. Brokers refuse less than their own minimum, 6000 by default.",
        ),
        integer(
            "kafka.batch_max_records",
            "DASHSTREAM_KAFKA_BATCH_MAX_RECORDS",
            500,
            1..=100_000,
            "records",
            "Most records in one batch between the actors.",
        ),
        integer(
            "kafka.batch_max_bytes",
            "DASHSTREAM_KAFKA_BATCH_MAX_BYTES",
            MIB,
            KIB..=GIB,
            "bytes",
            "Most bytes in one batch; a larger record makes a batch of its own.",
        ),
        integer(
            "kafka.in_flight_bytes",
            "DASHSTREAM_KAFKA_IN_FLIGHT_BYTES",
            64 * MIB,
            64 * KIB..=64 * GIB,
            "bytes",
            "Bytes between Kafka and the last actor at which polling stops.",
        ),
        integer(
            "kafka.metadata_interval_ms",
            "DASHSTREAM_KAFKA_METADATA_INTERVAL_MS",
            1_000,
            100..=3_600_000,
            "milliseconds",
            "How often new partitions and a re-created topic are looked for.",
        ),
        integer(
            "kafka.commit_interval_ms",
            "DASHSTREAM_KAFKA_COMMIT_INTERVAL_MS",
            500,
            10..=60_000,
            "milliseconds",
            "How often settled offsets are committed.",
        ),
        integer(
            "kafka.lag_check_interval_secs",
            "KAFKA_LAG_CHECK_INTERVAL_SECS",
            10,
            1..=86_400,
            "seconds",
            "How often lag is measured.",
        ),
        integer(
            "kafka.lag_stale_partition_secs",
            "KAFKA_LAG_STALE_PARTITION_SECS",
            60,
            1..=604_800,
            "seconds",
            "After what time without progress a lagging partition counts as stuck.",
        ),
    ],
};

pub(super) const SECURITY: Section = Section {
    name: "kafka.security",
    doc: "TLS and SASL, for every Kafka client of this program. Keep passwords in variables.",
    settings: &[
        choice(
            "kafka.security.protocol",
            "KAFKA_SECURITY_PROTOCOL",
            "plaintext",
            &["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"],
            "Protocol of the listener.",
        ),
        choice(
            "kafka.security.sasl_mechanism",
            "KAFKA_SASL_MECHANISM",
            "",
            &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", ""],
            "SASL mechanism; required by sasl_plaintext and sasl_ssl.",
        ),
        text("kafka.security.sasl_username", "KAFKA_SASL_USERNAME", "", forms::LABEL, "SASL user."),
        secret("kafka.security.sasl_password", "KAFKA_SASL_PASSWORD", forms::PASSWORD, "SASL password."),
        text(
            "kafka.security.ssl_ca_location",
            "KAFKA_SSL_CA_LOCATION",
            "",
            forms::FILE,
            "CA certificates, PEM. Without it those of the system are used.",
        ),
        text(
            "kafka.security.ssl_certificate_location",
            "KAFKA_SSL_CERTIFICATE_LOCATION",
            "",
            forms::FILE,
            "Client certificate, PEM; together with the key.",
        ),
        text(
            "kafka.security.ssl_key_location",
            "KAFKA_SSL_KEY_LOCATION",
            "",
            forms::FILE,
            "Client key, PEM; together with the certificate.",
        ),
        secret(
            "kafka.security.ssl_key_password",
            "KAFKA_SSL_KEY_PASSWORD",
            forms::PASSWORD,
            "Password of the client key.",
        ),
        choice(
            "kafka.security.ssl_endpoint_algorithm",
            "KAFKA_SSL_ENDPOINT_ALGORITHM",
            "https",
            &["https", "none"],
            "Whether the broker's certificate must name its host (https) or not (none).",
        ),
    ],
};

pub(super) const DECODE: Section = Section {
    name: "decode",
    doc: "How records are judged.",
    settings: &[
        integer(
            "decode.max_payload_bytes",
            "WEBSOCKET_MAX_PAYLOAD_BYTES",
            10 * MIB,
            1..=GIB,
            "bytes",
            "Largest payload, as it lies in Kafka and decompressed; a larger one cannot be processed.",
        ),
        boolean(
            "decode.legacy_framing",
            "DASHSTREAM_DECODE_LEGACY_FRAMING",
            false,
            "Whether values of old producers without a framing byte are accepted.",
        ),
        choice(
            "decode.on_error",
            "KAFKA_ON_DECODE_ERROR",
            "skip",
            &["skip", "pause"],
            "What happens at a record that cannot be processed: skip writes a dead letter and goes on, pause stops there.",
        ),
    ],
};

pub(super) const DLQ: Section = Section {
    name: "dlq",
    doc: "Dead letters: what is kept of records that cannot be processed.",
    settings: &[
        text("dlq.topic", "KAFKA_DLQ_TOPIC", "", forms::DLQ_TOPIC, "Topic of the dead letters."),
        choice(
            "dlq.mode",
            "DLQ_MODE",
            "best_effort",
            &["best_effort", "fail_closed"],
            "When a dead letter cannot be written: best_effort counts the loss and goes on, fail_closed waits.",
        ),
        integer(
            "dlq.send_timeout_secs",
            "DLQ_SEND_TIMEOUT_SECS",
            5,
            1..=300,
            "seconds",
            "Deadline of one dead letter, retries included.",
        ),
        integer(
            "dlq.max_in_flight",
            "MAX_CONCURRENT_DLQ_SENDS",
            100,
            1..=100_000,
            "dead letters",
            "Most dead letters that await their acknowledgement.",
        ),
        boolean(
            "dlq.include_payload",
            "DLQ_INCLUDE_FULL_PAYLOAD",
            false,
            "Whether dead letters carry the payload, up to 512 KiB. Payloads may hold secrets.",
        ),
    ],
};
