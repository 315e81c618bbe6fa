//! The one table of all settings, in the order of the documented file.
//!
//! Everything that is known about a setting is said here once. A setting without a name of its own is set by the variable
//! `DASHSTREAM_<PATH>`; the other names are those that existing deployments use.

mod doors;

mod ingest;

mod history;

mod quality;

mod serve;

use std::ops::RangeInclusive;

use super::setting::{Form, Kind, Literal, Setting};

/// A section of the file.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its header, such as `kafka.security`.
    pub name: &'static str,
    /// What it is about.
    pub doc: &'static str,
    /// Its settings.
    pub settings: &'static [Setting],
}

/// Every section.
pub static SECTIONS: [&Section; 12] = [
    &ingest::KAFKA,
    &ingest::SECURITY,
    &ingest::DECODE,
    &ingest::DLQ,
    &history::REPLAY,
    &history::REDIS,
    &serve::WEB,
    &doors::AUTH,
    &doors::REDACT,
    &serve::SUPERVISOR,
    &quality::QUALITY,
    &serve::TELEMETRY,
];

/// Prefix of the variables that belong to this program alone, so that an unknown one is a mistake.
pub const OWN_PREFIX: &str = "DASHSTREAM_";

/// Names the configuration file.
pub const CONFIG_VARIABLE: &str = "DASHSTREAM_CONFIG";

/// Variables with our prefix that belong to the tests.
pub const TEST_PREFIX: &str = "DASHSTREAM_TEST_";

/// Variables of earlier versions that have no effect, and what to do instead.
pub const RETIRED: [(&str, &str); 9] = [
    ("KAFKA_OLD_DATA_USE_TIMESTAMP", "old records are judged like new ones"),
    ("KAFKA_OLD_DATA_GRACE_SECONDS", "old records are judged like new ones"),
    ("REDIS_ZCARD_CHECK_CADENCE", "Redis trims by itself; see REDIS_MAX_SEQUENCES"),
    ("REDIS_MAX_CONCURRENT_WRITES", "writes to Redis are batched"),
    ("REDIS_CLEAR_TIMEOUT_SECS", "clients cannot clear the history"),
    ("WEBSOCKET_BUFFER_SIZE", "see DASHSTREAM_WEB_SESSION_QUEUE_BYTES"),
    ("SLOW_CLIENT_DISCONNECT_THRESHOLD", "see WEBSOCKET_SEND_TIMEOUT_SECS"),
    ("SLOW_CLIENT_LAG_WINDOW_SECS", "see WEBSOCKET_SEND_TIMEOUT_SECS"),
    ("EXPECTED_SCHEMAS_PATH", "schema versions are checked without a file"),
];

/// Every setting.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    SECTIONS.iter().flat_map(|section| section.settings)
}

/// The setting at a path.
pub fn by_path(path: &str) -> Option<&'static Setting> {
    settings().find(|setting| setting.path == path)
}

/// Whether some setting lies below this path.
pub fn is_section(path: &str) -> bool {
    settings().any(|setting| setting.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const fn integer(
    path: &'static str,
    variable: &'static str,
    default: u64,
    range: RangeInclusive<u64>,
    unit: &'static str,
    doc: &'static str,
) -> Setting {
    let kind = Kind::Integer { min: *range.start(), max: *range.end(), unit };
    Setting { path, variable, default: Literal::Integer(default), kind, doc }
}

const fn boolean(path: &'static str, variable: &'static str, default: bool, doc: &'static str) -> Setting {
    Setting { path, variable, default: Literal::Boolean(default), kind: Kind::Boolean, doc }
}

const fn choice(
    path: &'static str,
    variable: &'static str,
    default: &'static str,
    names: &'static [&'static str],
    doc: &'static str,
) -> Setting {
    Setting { path, variable, default: Literal::Text(default), kind: Kind::Choice(names), doc }
}

const fn text(
    path: &'static str,
    variable: &'static str,
    default: &'static str,
    form: Form,
    doc: &'static str,
) -> Setting {
    Setting { path, variable, default: Literal::Text(default), kind: Kind::Text(form), doc }
}

const fn secret(path: &'static str, variable: &'static str, form: Form, doc: &'static str) -> Setting {
    Setting { path, variable, default: Literal::Text(""), kind: Kind::Secret(form), doc }
}

const fn list(path: &'static str, variable: &'static str, form: Form, doc: &'static str) -> Setting {
    Setting { path, variable, default: Literal::EmptyList, kind: Kind::List(form), doc }
}
