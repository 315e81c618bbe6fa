//! Settings between the decoded record and the browser, and of the process.

use super::{GIB, KIB, MIB, Section, choice, integer, list, secret, text};
use crate::config::forms;

pub(super) const REPLAY: Section = Section {
    name: "replay",
    doc: "How much history is kept in memory, and served to one client.",
    settings: &[
        integer(
            "replay.memory_messages",
            "REPLAY_BUFFER_MEMORY_SIZE",
            100_000,
            1..=100_000_000,
            "records",
            "Most records in the memory window, over all partitions.",
        ),
        integer(
            "replay.memory_bytes",
            "DASHSTREAM_REPLAY_MEMORY_BYTES",
            64 * MIB,
            64 * KIB..=1_024 * GIB,
            "bytes",
            "Most bytes in the memory window, over all partitions. The window ends at whichever bound is met first.",
        ),
        integer(
            "replay.max_total",
            "REPLAY_MAX_TOTAL",
            10_000,
            1..=100_000_000,
            "records",
            "Most records replayed for one resume; the client is told where to ask on.",
        ),
        integer("replay.timeout_secs", "REPLAY_TIMEOUT_SECS", 30, 1..=3_600, "seconds", "Time budget of one resume."),
        integer(
            "replay.history_readers",
            "DASHSTREAM_REPLAY_HISTORY_READERS",
            2,
            1..=64,
            "threads",
            "Readers of history that is not in memory any more. Each has a Kafka consumer of its own while it has work.",
        ),
        integer(
            "replay.history_cache_bytes",
            "DASHSTREAM_REPLAY_HISTORY_CACHE_BYTES",
            16 * MIB,
            0..=64 * GIB,
            "bytes",
            "What was lately read from Kafka is kept for others who ask for the same. 0 keeps nothing.",
        ),
    ],
};

pub(super) const REDIS: Section = Section {
    name: "redis",
    doc: "History shared by instances and kept over restarts.",
    settings: &[
        secret("redis.url", "REDIS_URL", forms::REDIS, "Address of the server."),
        integer(
            "redis.max_sequences",
            "REDIS_MAX_SEQUENCES",
            10_000,
            1..=1_000_000_000,
            "records",
            "Most records kept per partition.",
        ),
        integer(
            "redis.message_ttl_secs",
            "REDIS_MESSAGE_TTL_SECS",
            3_600,
            1..=315_360_000,
            "seconds",
            "How long records are kept.",
        ),
    ],
};

pub(super) const WEB: Section = Section {
    name: "web",
    doc: "The listener, and the sessions of browsers.",
    settings: &[
        text(
            "web.host",
            "WEBSOCKET_HOST",
            "127.0.0.1",
            forms::HOST,
            "Address to listen on. There is no authentication: anything but a loopback address is open to its network.",
        ),
        integer(
            "web.port",
            "WEBSOCKET_PORT",
            3_002,
            0..=65_535,
            "",
            "Port to listen on. 0 takes any free port and prints it.",
        ),
        integer("web.workers", "DASHSTREAM_WEB_WORKERS", 0, 0..=256, "threads", "HTTP workers. 0 is one per core."),
        integer(
            "web.max_connections",
            "DASHSTREAM_WEB_MAX_CONNECTIONS",
            10_000,
            1..=1_000_000,
            "connections",
            "Most WebSocket connections altogether.",
        ),
        integer(
            "web.max_connections_per_ip",
            "WEBSOCKET_MAX_CONNECTIONS_PER_IP",
            10,
            1..=1_000_000,
            "connections",
            "Most WebSocket connections of one client address.",
        ),
        list(
            "web.trusted_proxies",
            "WEBSOCKET_TRUSTED_PROXY_IPS",
            forms::NETWORK,
            "Proxies whose forwarding headers are believed.",
        ),
        integer(
            "web.send_timeout_secs",
            "WEBSOCKET_SEND_TIMEOUT_SECS",
            30,
            1..=3_600,
            "seconds",
            "After what time a client that reads nothing is closed.",
        ),
        integer(
            "web.heartbeat_secs",
            "DASHSTREAM_WEB_HEARTBEAT_SECS",
            15,
            1..=300,
            "seconds",
            "How often a client is told that the service is alive.",
        ),
        integer(
            "web.idle_timeout_secs",
            "DASHSTREAM_WEB_IDLE_TIMEOUT_SECS",
            60,
            2..=3_600,
            "seconds",
            "After what silence a client is closed; longer than the heartbeat.",
        ),
        integer(
            "web.hello_timeout_secs",
            "DASHSTREAM_WEB_HELLO_TIMEOUT_SECS",
            10,
            1..=300,
            "seconds",
            "How long a v2 client may take to say where it begins.",
        ),
        integer(
            "web.session_queue_bytes",
            "DASHSTREAM_WEB_SESSION_QUEUE_BYTES",
            MIB,
            64 * KIB..=GIB,
            "bytes",
            "Most bytes queued for one client; past it the client catches up by pulling.",
        ),
        integer(
            "web.session_unapplied_bytes",
            "DASHSTREAM_WEB_SESSION_UNAPPLIED_BYTES",
            8 * MIB,
            64 * KIB..=GIB,
            "bytes",
            "Most bytes sent to one v2 client that it has not reported as applied; at least the session queue.",
        ),
        integer(
            "web.flush_interval_ms",
            "DASHSTREAM_WEB_FLUSH_INTERVAL_MS",
            5,
            1..=1_000,
            "milliseconds",
            "How long frames of a dense stream are gathered before a write.",
        ),
        integer(
            "web.max_control_frame_bytes",
            "DASHSTREAM_WEB_MAX_CONTROL_FRAME_BYTES",
            MIB,
            KIB..=16 * MIB,
            "bytes",
            "Largest frame accepted from a client.",
        ),
        secret(
            "web.admin_token",
            "DASHSTREAM_WEB_ADMIN_TOKEN",
            forms::TOKEN,
            "Who shows it as a bearer token may decide how ingest goes on. Without one only requests of this machine may.",
        ),
        integer(
            "web.shutdown_timeout_secs",
            "DASHSTREAM_WEB_SHUTDOWN_TIMEOUT_SECS",
            10,
            1..=300,
            "seconds",
            "How long a stop may take before the rest is cut off.",
        ),
    ],
};

pub(super) const SUPERVISOR: Section = Section {
    name: "supervisor",
    doc: "How actors are kept alive.",
    settings: &[
        integer(
            "supervisor.max_restarts",
            "DASHSTREAM_SUPERVISOR_MAX_RESTARTS",
            5,
            1..=1_000,
            "restarts",
            "Most restarts within the window; one more and the process drains and exits with code 70.",
        ),
        integer(
            "supervisor.window_secs",
            "DASHSTREAM_SUPERVISOR_WINDOW_SECS",
            60,
            1..=3_600,
            "seconds",
            "The window in which restarts are counted.",
        ),
        integer(
            "supervisor.backoff_base_ms",
            "DASHSTREAM_SUPERVISOR_BACKOFF_BASE_MS",
            100,
            1..=60_000,
            "milliseconds",
            "Delay before the first restart; doubled for each further one.",
        ),
        integer(
            "supervisor.backoff_max_ms",
            "DASHSTREAM_SUPERVISOR_BACKOFF_MAX_MS",
            10_000,
            1..=600_000,
            "milliseconds",
            "Longest delay before a restart; at least the first.",
        ),
        integer(
            "supervisor.heartbeat_timeout_secs",
            "DASHSTREAM_SUPERVISOR_HEARTBEAT_TIMEOUT_SECS",
            10,
            1..=600,
            "seconds",
            "After what silence an actor counts as hanging and is replaced.",
        ),
    ],
};

pub(super) const TELEMETRY: Section = Section {
    name: "telemetry",
    doc: "Logs and spans.",
    settings: &[
        text("telemetry.log", "RUST_LOG", "info", forms::LOG_FILTER, "Which log events are written to standard error."),
        choice(
            "telemetry.log_format",
            "DASHSTREAM_TELEMETRY_LOG_FORMAT",
            "pretty",
            &["pretty", "json"],
            "How they are written: lines for people, or one JSON object per line.",
        ),
        secret(
            "telemetry.otlp_endpoint",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            forms::OTLP,
            "Collector of spans. This version checks the address and exports nothing yet.",
        ),
    ],
};
