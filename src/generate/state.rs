//! The state of a run: changes in, JSON patch operations and hashes out.
//!
//! Pure. It must not know who changes the state, or when a patch is sent.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::wire::telemetry::DiffOperation;
use crate::wire::telemetry::diff_operation::{OpType, ValueEncoding};

/// The state of one run, a JSON object.
#[derive(Clone, Debug, Default)]
pub struct State {
    value: Map<String, Value>,
}

/// One change of the state.
#[derive(Clone, Debug)]
pub enum Change {
    /// A field has a new value.
    Set(&'static str, Value),
    /// A value is appended to a list.
    Append(&'static str, Value),
    /// A counter inside an object grows.
    Count(&'static str, &'static str, u64),
    /// A field disappears.
    Remove(&'static str),
}

impl State {
    /// A state that begins with `value`; anything but an object is an empty state.
    pub fn new(value: Value) -> Self {
        match value {
            Value::Object(value) => Self { value },
            _ => Self::default(),
        }
    }

    /// Applies the change and tells it as a patch operation; `None` when it changes nothing.
    pub fn apply(&mut self, change: Change) -> Option<DiffOperation> {
        match change {
            Change::Set(field, value) => {
                let bytes = value.to_string().into_bytes();
                match self.value.insert(field.to_owned(), value) {
                    None => Some(operation(OpType::Add, format!("/{field}"), bytes)),
                    Some(old) if old.to_string().into_bytes() == bytes => None,
                    Some(_) => Some(operation(OpType::Replace, format!("/{field}"), bytes)),
                }
            }
            Change::Append(field, value) => {
                let bytes = value.to_string().into_bytes();
                let list = self.value.get_mut(field)?.as_array_mut()?;
                list.push(value);
                Some(operation(OpType::Add, format!("/{field}/{}", list.len() - 1), bytes))
            }
            Change::Count(object, field, by) => {
                let counter = self.value.get_mut(object)?.as_object_mut()?.get_mut(field)?;
                let sum = counter.as_u64()?.saturating_add(by);
                *counter = sum.into();
                Some(operation(OpType::Replace, format!("/{object}/{field}"), sum.to_string().into_bytes()))
            }
            Change::Remove(field) => {
                self.value.remove(field)?;
                Some(operation(OpType::Remove, format!("/{field}"), Vec::new()))
            }
        }
    }

    /// The canonical JSON: keys sorted bytewise, no whitespace, numbers and escapes as `serde_json` writes them.
    pub fn canonical(&self) -> Vec<u8> {
        // `Map` is ordered by key; the golden vectors below fail should a feature of `serde_json` change that.
        serde_json::to_vec(&self.value).unwrap_or_default()
    }

    /// A field, if it is there.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.value.get(field)
    }
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

fn operation(op: OpType, path: String, value: Vec<u8>) -> DiffOperation {
    DiffOperation { op: op.into(), path, value, from: String::new(), encoding: ValueEncoding::Json.into() }
}

/// The size of a patch as compact JSON, in bytes.
pub fn patch_size(operations: &[DiffOperation]) -> usize {
    const REMOVE: usize = r#"{"op":"remove","path":""},"#.len();
    const WITH_VALUE: usize = r#"{"op":"replace","path":"","value":},"#.len();
    let size = |operation: &DiffOperation| {
        let frame = if operation.value.is_empty() { REMOVE } else { WITH_VALUE };
        frame + operation.path.len() + operation.value.len()
    };
    operations.iter().map(size).sum::<usize>() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hash(value: Value) -> String {
        sha256(&State::new(value).canonical()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_state_hash_is_that_of_existing_producers() {
        assert_eq!(
            hash(json!({"b": 2, "a": 1, "nested": {"z": "x", "y": [true, null]}})),
            "f35279c8aa6b00bc82d43a191596cc3b41b7de7899ee16e36a08efe3afc45103"
        );
        assert_eq!(hash(json!({})), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
        assert_eq!(hash(json!({"t": 1.0})), "cd6523ed1a42fa65c1081ea4290eaab97aa029e19b513a2772be59ee91b2e5e4");
    }

    #[test]
    fn every_change_is_told_by_its_operation() {
        let mut state = State::new(json!({"messages": [1], "budget": {"spent": 3}}));
        let mut tell = |change| {
            state
                .apply(change)
                .map(|done| (OpType::try_from(done.op).unwrap(), done.path, String::from_utf8(done.value).unwrap()))
        };
        let told = |op, path: &str, value: &str| Some((op, path.to_owned(), value.to_owned()));
        assert_eq!(tell(Change::Set("a", json!("x"))), told(OpType::Add, "/a", "\"x\""));
        assert_eq!(tell(Change::Set("a", json!("x"))), None);
        assert_eq!(tell(Change::Set("a", json!({"y": 1}))), told(OpType::Replace, "/a", "{\"y\":1}"));
        assert_eq!(tell(Change::Append("messages", json!(2))), told(OpType::Add, "/messages/1", "2"));
        assert_eq!(tell(Change::Count("budget", "spent", 4)), told(OpType::Replace, "/budget/spent", "7"));
        assert_eq!(tell(Change::Remove("a")), told(OpType::Remove, "/a", ""));
        assert_eq!(tell(Change::Remove("a")), None);
        assert_eq!(tell(Change::Append("nothing", json!(2))), None);
        assert_eq!(state.canonical(), br#"{"budget":{"spent":7},"messages":[1,2]}"#);
    }
}
