//! JSON patches (RFC 6902) as the contract carries them. Own code: the operations are messages, not JSON, and each failure
//! has to say which one of them it was.
//!
//! It must not know hashes or checkpoints.

use serde_json::Value;

use crate::wire::telemetry::DiffOperation;
use crate::wire::telemetry::diff_operation::{OpType, ValueEncoding};

/// Why a patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// A value in another form than JSON.
    #[error("operation {0} has its value in a form that is not shown ({1})")]
    Encoding(usize, &'static str),
    /// A value that is not JSON.
    #[error("the value of operation {0} is not JSON")]
    NotJson(usize),
    /// An operation that the contract does not know.
    #[error("operation {0} is of no known kind")]
    UnknownKind(usize),
    /// It names a place that is not there.
    #[error("operation {0} names a place that is not there: {1}")]
    NoSuchPlace(usize, String),
    /// A test that fails.
    #[error("operation {0} tests for a value that is not there: {1}")]
    TestFailed(usize, String),
    /// Copies that would fill the memory.
    #[error("operation {0} copies more than a state may hold")]
    TooLarge(usize),
}

/// Nodes of JSON that the copies of one patch may make. A few hundred bytes could otherwise double a state over and over.
const MAX_COPIED: usize = 1_000_000;

/// Applies the operations in order. On failure the state is in between: it is not to be used.
///
/// # Errors
/// The first operation that cannot be applied.
pub fn apply(state: &mut Value, operations: &[DiffOperation]) -> Result<(), PatchError> {
    let mut copied = 0;
    for (index, operation) in operations.iter().enumerate() {
        let nowhere = || PatchError::NoSuchPlace(index, operation.path.clone());
        let kind = OpType::try_from(operation.op).map_err(|_| PatchError::UnknownKind(index))?;
        match kind {
            OpType::Add => add(state, &operation.path, value(index, operation)?).ok_or_else(nowhere)?,
            OpType::Remove => drop(remove(state, &operation.path).ok_or_else(nowhere)?),
            OpType::Replace => {
                *state.pointer_mut(&operation.path).ok_or_else(nowhere)? = value(index, operation)?;
            }
            OpType::Move => {
                // Nothing can be moved into itself.
                let into_itself =
                    operation.path.strip_prefix(&operation.from).is_some_and(|rest| rest.starts_with('/'));
                let moved = if into_itself { None } else { remove(state, &operation.from) };
                let moved = moved.ok_or_else(|| PatchError::NoSuchPlace(index, operation.from.clone()))?;
                add(state, &operation.path, moved).ok_or_else(nowhere)?;
            }
            OpType::Copy => {
                let from = state.pointer(&operation.from);
                let from = from.ok_or_else(|| PatchError::NoSuchPlace(index, operation.from.clone()))?;
                copied += size(from);
                if copied > MAX_COPIED {
                    return Err(PatchError::TooLarge(index));
                }
                let from = from.clone();
                add(state, &operation.path, from).ok_or_else(nowhere)?;
            }
            OpType::Test => {
                if state.pointer(&operation.path).ok_or_else(nowhere)? != &value(index, operation)? {
                    return Err(PatchError::TestFailed(index, operation.path.clone()));
                }
            }
        }
    }
    Ok(())
}

/// How many values and bytes of text a value holds.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(fields) => 1 + fields.iter().map(|(name, value)| name.len() + size(value)).sum::<usize>(),
        Value::String(text) => 1 + text.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
    }
}

/// The value of an operation. No bytes are `null`.
fn value(index: usize, operation: &DiffOperation) -> Result<Value, PatchError> {
    if operation.value.is_empty() {
        return Ok(Value::Null);
    }
    match ValueEncoding::try_from(operation.encoding) {
        Ok(ValueEncoding::Json) => serde_json::from_slice(&operation.value).map_err(|_| PatchError::NotJson(index)),
        Ok(ValueEncoding::Msgpack) => Err(PatchError::Encoding(index, "MessagePack")),
        Ok(ValueEncoding::Protobuf) => Err(PatchError::Encoding(index, "protobuf")),
        Ok(ValueEncoding::Raw) => Err(PatchError::Encoding(index, "raw bytes")),
        Err(_) => Err(PatchError::Encoding(index, "unknown")),
    }
}

/// The place above a pointer, and the last part of it.
fn split<'a>(state: &'a mut Value, pointer: &str) -> Option<(&'a mut Value, String)> {
    let (above, last) = pointer.rsplit_once('/')?;
    Some((state.pointer_mut(above)?, unescape(last)))
}

fn unescape(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// A part of a pointer.
pub fn escape(part: &str) -> String {
    part.replace('~', "~0").replace('/', "~1")
}

fn add(state: &mut Value, pointer: &str, value: Value) -> Option<()> {
    if pointer.is_empty() {
        *state = value;
        return Some(());
    }
    match split(state, pointer)? {
        (Value::Object(fields), name) => drop(fields.insert(name, value)),
        (Value::Array(items), at) => {
            let at = if at == "-" { items.len() } else { index(&at)? };
            if at > items.len() {
                return None;
            }
            items.insert(at, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(state: &mut Value, pointer: &str) -> Option<Value> {
    if pointer.is_empty() {
        return Some(std::mem::take(state));
    }
    match split(state, pointer)? {
        (Value::Object(fields), name) => fields.remove(&name),
        (Value::Array(items), at) => index(&at).filter(|at| *at < items.len()).map(|at| items.remove(at)),
        _ => None,
    }
}

/// Digits without a leading zero.
fn index(text: &str) -> Option<usize> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn operation(op: OpType, path: &str, value: &Value, from: &str) -> DiffOperation {
        DiffOperation {
            op: op.into(),
            path: path.to_owned(),
            value: if value.is_null() { Vec::new() } else { value.to_string().into_bytes() },
            from: from.to_owned(),
            encoding: ValueEncoding::Json.into(),
        }
    }

    fn applied(state: Value, op: OpType, path: &str, value: Value, from: &str) -> Result<Value, PatchError> {
        let mut state = state;
        apply(&mut state, &[operation(op, path, &value, from)])?;
        Ok(state)
    }

    #[test]
    fn each_operation_does_what_the_standard_says() {
        let state = || json!({"a": [1, 2], "b": {"c": 3}, "d/e~": 4});
        let cases = [
            (OpType::Add, "/a/0", json!(9), "", json!({"a": [9, 1, 2], "b": {"c": 3}, "d/e~": 4})),
            (OpType::Add, "/a/-", json!(9), "", json!({"a": [1, 2, 9], "b": {"c": 3}, "d/e~": 4})),
            (OpType::Add, "/b/c", json!(9), "", json!({"a": [1, 2], "b": {"c": 9}, "d/e~": 4})),
            (OpType::Add, "", json!(9), "", json!(9)),
            (OpType::Remove, "/a/1", json!(null), "", json!({"a": [1], "b": {"c": 3}, "d/e~": 4})),
            (OpType::Remove, "/d~1e~0", json!(null), "", json!({"a": [1, 2], "b": {"c": 3}})),
            (OpType::Replace, "/b", json!(null), "", json!({"a": [1, 2], "b": null, "d/e~": 4})),
            (OpType::Move, "/a/0", json!(null), "/b/c", json!({"a": [3, 1, 2], "b": {}, "d/e~": 4})),
            (OpType::Copy, "/f", json!(null), "/b", json!({"a": [1, 2], "b": {"c": 3}, "d/e~": 4, "f": {"c": 3}})),
            (OpType::Test, "/b", json!({"c": 3}), "", state()),
        ];
        for (op, path, value, from, expected) in cases {
            assert_eq!(applied(state(), op, path, value, from), Ok(expected), "{op:?} {path}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_place() {
        let state = || json!({"a": [1], "b": {"c": 3}});
        for (op, path, from) in [
            (OpType::Add, "/a/2", ""),
            (OpType::Add, "/a/01", ""),
            (OpType::Add, "/a/+1", ""),
            (OpType::Add, "/x/y", ""),
            (OpType::Remove, "/x", ""),
            (OpType::Remove, "/a/-", ""),
            (OpType::Replace, "/x", ""),
            (OpType::Move, "/b/d", "/b"),
            (OpType::Copy, "/y", "/x"),
            (OpType::Test, "/x", ""),
            (OpType::Add, "no slash", ""),
        ] {
            let refused = applied(state(), op, path, json!(1), from);
            assert!(matches!(refused, Err(PatchError::NoSuchPlace(0, _))), "{op:?} {path}: {refused:?}");
        }
        let failed = applied(state(), OpType::Test, "/b/c", json!(4), "");
        assert_eq!(failed, Err(PatchError::TestFailed(0, "/b/c".to_owned())));
    }

    #[test]
    fn other_forms_than_json_are_said_to_be_not_shown() {
        for (encoding, form) in [
            (ValueEncoding::Msgpack, "MessagePack"),
            (ValueEncoding::Protobuf, "protobuf"),
            (ValueEncoding::Raw, "raw bytes"),
        ] {
            let operation = DiffOperation { encoding: encoding.into(), ..operation(OpType::Add, "/a", &json!(1), "") };
            assert_eq!(apply(&mut json!({}), &[operation]), Err(PatchError::Encoding(0, form)));
        }
        let broken = DiffOperation { value: b"{".to_vec(), ..operation(OpType::Add, "/a", &json!(1), "") };
        assert_eq!(apply(&mut json!({}), &[broken]), Err(PatchError::NotJson(0)));
    }

    #[test]
    fn copies_cannot_fill_the_memory() {
        let operations: Vec<_> =
            (0..64).map(|index| operation(OpType::Copy, &format!("/{index}"), &json!(null), "")).collect();
        assert!(matches!(apply(&mut json!({"a": 1}), &operations), Err(PatchError::TooLarge(_))));
    }
}
