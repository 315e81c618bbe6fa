//! What a client asks to be given: the `filter` object of its control frames, strictly parsed and bounded.
//!
//! It must not know records, nor what a client is allowed to see.

use super::limits::MAX_PARTITIONS;
use serde_json::{Map, Value};

use super::control::{FrameError, cut};

/// Tenants in one filter.
const MAX_TENANTS: usize = 256;
/// Threads in one filter.
const MAX_THREADS: usize = 1_024;
/// Bytes of a tenant or thread.
const MAX_TEXT: usize = 1_024;
/// Bytes of all of them: each session keeps its filter.
const MAX_TEXTS: usize = 32 * 1_024;

/// Message types by the number of their field in `DashStreamMessage`'s oneof, from 1.
pub const MESSAGE_TYPES: [&str; 9] = [
    "event",
    "state_diff",
    "token_chunk",
    "tool_execution",
    "checkpoint",
    "metrics",
    "error",
    "event_batch",
    "execution_trace",
];

/// A set of message types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeSet(u16);

impl TypeSet {
    /// Adds the type with this number.
    pub const fn with(self, number: u8) -> Self {
        if number < 16 { Self(self.0 | 1 << number) } else { self }
    }

    /// Whether the type with this number is in it.
    pub const fn contains(self, number: u8) -> bool {
        number < 16 && self.0 & 1 << number != 0
    }

    /// The names of its types.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        (1..).zip(MESSAGE_TYPES).filter(move |(number, _)| self.contains(*number)).map(|(_, name)| name)
    }
}

/// What a client wants; `None` in a field wants everything. Lists are never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterRequest {
    /// Records of one of these tenants.
    pub tenants: Option<Vec<String>>,
    /// Records of one of these threads.
    pub threads: Option<Vec<String>>,
    /// Records of one of these types.
    pub types: Option<TypeSet>,
    /// Records of one of these partitions.
    pub partitions: Option<Vec<i32>>,
}

/// What a frame says about the session's filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FilterChange {
    /// Nothing: it stays as it is.
    #[default]
    Keep,
    /// It is this from now on; `None`: everything that the client may see.
    Set(Option<FilterRequest>),
}

/// Reads the `filter` of a frame.
///
/// # Errors
/// Names the field at fault.
pub fn parse(fields: &Map<String, Value>) -> Result<FilterChange, FrameError> {
    match fields.get("filter") {
        None => Ok(FilterChange::Keep),
        Some(Value::Null) => Ok(FilterChange::Set(None)),
        Some(Value::Object(filter)) => request(filter).map(|request| FilterChange::Set(Some(request))),
        Some(_) => Err(FrameError::field("filter", "an object or null is required")),
    }
}

fn request(filter: &Map<String, Value>) -> Result<FilterRequest, FrameError> {
    let mut request = FilterRequest::default();
    for (name, value) in filter {
        match name.as_str() {
            "tenants" => request.tenants = Some(texts("filter.tenants", value, MAX_TENANTS)?),
            "threads" => request.threads = Some(texts("filter.threads", value, MAX_THREADS)?),
            "types" => request.types = Some(types(value)?),
            "partitions" => request.partitions = Some(partitions(value)?),
            // Passing over a mistyped name would give more than was asked for.
            other => {
                let message = format!("{:?} is unknown; use tenants, threads, types, partitions", cut(other, 32));
                return Err(FrameError::field("filter", message));
            }
        }
    }
    let bytes: usize = request.tenants.iter().chain(&request.threads).flatten().map(String::len).sum();
    if bytes > MAX_TEXTS {
        let message = format!("{bytes} bytes of tenants and threads; at most {MAX_TEXTS} are taken");
        return Err(FrameError::too_large("filter", message));
    }
    Ok(request)
}

fn list<'a>(field: &'static str, value: &'a Value, max: usize) -> Result<&'a [Value], FrameError> {
    match value {
        Value::Array(list) if list.is_empty() => {
            Err(FrameError::field(field, "an empty list asks for nothing; leave it out to get everything"))
        }
        Value::Array(list) if list.len() > max => {
            Err(FrameError::too_large(field, format!("{} elements; at most {max} are taken", list.len())))
        }
        Value::Array(list) => Ok(list),
        _ => Err(FrameError::field(field, "a list is required")),
    }
}

fn texts(field: &'static str, value: &Value, max: usize) -> Result<Vec<String>, FrameError> {
    let text = |value: &Value| match value {
        Value::String(text) if text.is_empty() => Err(FrameError::field(field, "an empty text names nobody")),
        Value::String(text) if text.len() > MAX_TEXT => {
            let message = format!("a text of {} bytes; at most {MAX_TEXT} are taken", text.len());
            Err(FrameError::too_large(field, message))
        }
        Value::String(text) => Ok(text.clone()),
        _ => Err(FrameError::field(field, "a list of texts is required")),
    };
    list(field, value, max)?.iter().map(text).collect()
}

fn types(value: &Value) -> Result<TypeSet, FrameError> {
    const FIELD: &str = "filter.types";
    let mut set = TypeSet::default();
    for name in list(FIELD, value, MESSAGE_TYPES.len())? {
        let name = name.as_str().unwrap_or_default();
        let known = (1..).zip(MESSAGE_TYPES).find(|(_, known)| *known == name);
        let Some((number, _)) = known else {
            let message = format!("{:?} is unknown; use {}", cut(name, 32), MESSAGE_TYPES.join(", "));
            return Err(FrameError::field(FIELD, message));
        };
        set = set.with(number);
    }
    Ok(set)
}

fn partitions(value: &Value) -> Result<Vec<i32>, FrameError> {
    const FIELD: &str = "filter.partitions";
    let partition = |value: &Value| {
        let number = value.as_i64().and_then(|number| i32::try_from(number).ok()).filter(|number| *number >= 0);
        number.ok_or_else(|| FrameError::field(FIELD, "a list of partition numbers is required"))
    };
    list(FIELD, value, MAX_PARTITIONS)?.iter().map(partition).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::control::ErrorCode;
    use super::*;

    fn parsed(frame: &Value) -> Result<FilterChange, (ErrorCode, Option<&'static str>)> {
        parse(frame.as_object().unwrap()).map_err(|error| (error.code, error.field))
    }

    #[test]
    fn a_filter_says_what_it_wants_and_null_wants_everything() {
        assert_eq!(parsed(&json!({})), Ok(FilterChange::Keep));
        assert_eq!(parsed(&json!({"filter": null})), Ok(FilterChange::Set(None)));
        assert_eq!(parsed(&json!({"filter": {}})), Ok(FilterChange::Set(Some(FilterRequest::default()))));
        let all = json!({"filter": {"tenants": ["a"], "threads": ["t", "ü"], "types": ["event", "error"], "partitions": [0, 7]}});
        let want = FilterRequest {
            tenants: Some(vec!["a".into()]),
            threads: Some(vec!["t".into(), "ü".into()]),
            types: Some(TypeSet::default().with(1).with(7)),
            partitions: Some(vec![0, 7]),
        };
        assert_eq!(parsed(&all), Ok(FilterChange::Set(Some(want))));
    }

    #[test]
    fn each_bad_field_is_named() {
        use ErrorCode::{InvalidField, TooLarge};
        for (filter, code, field) in [
            (json!([]), InvalidField, "filter"),
            (json!("a"), InvalidField, "filter"),
            (json!({"tenant": ["a"]}), InvalidField, "filter"),
            (json!({"tenants": "a"}), InvalidField, "filter.tenants"),
            (json!({"tenants": []}), InvalidField, "filter.tenants"),
            (json!({"tenants": [""]}), InvalidField, "filter.tenants"),
            (json!({"tenants": [7]}), InvalidField, "filter.tenants"),
            (json!({"tenants": vec!["a"; 257]}), TooLarge, "filter.tenants"),
            (json!({"threads": ["x".repeat(1_025)]}), TooLarge, "filter.threads"),
            (json!({"threads": vec!["a"; 1_025]}), TooLarge, "filter.threads"),
            (json!({"threads": vec!["x".repeat(100); 400]}), TooLarge, "filter"),
            (json!({"types": ["Event"]}), InvalidField, "filter.types"),
            (json!({"types": [1]}), InvalidField, "filter.types"),
            (json!({"types": vec!["event"; 10]}), TooLarge, "filter.types"),
            (json!({"partitions": ["0"]}), InvalidField, "filter.partitions"),
            (json!({"partitions": [-1]}), InvalidField, "filter.partitions"),
            (json!({"partitions": [1.5]}), InvalidField, "filter.partitions"),
            (json!({"partitions": [1_u64 << 31]}), InvalidField, "filter.partitions"),
            (json!({"partitions": vec![0; 10_001]}), TooLarge, "filter.partitions"),
        ] {
            assert_eq!(parsed(&json!({"filter": filter})), Err((code, Some(field))), "{filter}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_every_error_is_bounded(text in ".{0,2000}", name in ".{0,300}") {
            for filter in [json!({&name: [&text]}), json!({"types": [&text]}), json!({"tenants": [&text]})] {
                if let Err(error) = parse(json!({"filter": filter}).as_object().unwrap()) {
                    prop_assert!(error.to_json().len() < 2_000);
                }
            }
        }
    }
}
