//! Positions in text frames of the service, read as strictly as docs/PROTOCOL.md writes them. No IO.

use std::collections::BTreeMap;

use serde_json::Value;

use super::ledger::Violation;

pub(super) fn partition_of(name: &str) -> Result<i32, Violation> {
    name.parse().map_err(|_| format!("{name:?} is no partition"))
}

pub(super) fn partition(message: &Value) -> Result<i32, Violation> {
    let number = message.get("partition").and_then(Value::as_i64).and_then(|number| i32::try_from(number).ok());
    number.ok_or_else(|| format!("partition must be a JSON number: {message}"))
}

/// Offsets are decimal strings: JSON numbers lose digits in browsers.
///
/// # Errors
/// When the field holds something else.
pub fn offset(message: &Value, field: &str) -> Result<i64, Violation> {
    let number = message.get(field).and_then(decimal);
    number.ok_or_else(|| format!("{field} must be a decimal string: {message}"))
}

/// A decimal string, in the one form that a number has.
fn decimal(value: &Value) -> Option<i64> {
    let text = value.as_str()?;
    text.parse().ok().filter(|number: &i64| number.to_string() == text)
}

pub(super) fn offsets(message: &Value, field: &str) -> Result<BTreeMap<i32, i64>, Violation> {
    let map = message.get(field).and_then(Value::as_object);
    let map = map.ok_or_else(|| format!("{field} must map partitions to offsets: {message}"))?;
    map.iter()
        .map(|(name, value)| {
            Ok((
                partition_of(name)?,
                decimal(value).ok_or_else(|| format!("{field}.{name} must be a decimal string: {message}"))?,
            ))
        })
        .collect()
}
