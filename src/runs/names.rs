//! The names of messages and events, as people and options write them: `NODE_START`, `state_diff`.
//!
//! It must not know what they mean.

use super::item::Body;
use crate::wire::telemetry::EventType;

/// The name of an event's type as the contract has it, without its prefix; of an unknown one its number.
pub fn event_name(event_type: i32) -> String {
    EventType::try_from(event_type).map_or_else(
        |_| format!("EVENT_{event_type}"),
        |known| known.as_str_name().trim_start_matches("EVENT_TYPE_").to_owned(),
    )
}

/// The type that a name stands for, however it is written: `NODE_START`, `node-start`, `NodeStart`.
pub fn event_type(name: &str) -> Option<EventType> {
    let wanted = squeezed(name.trim_start_matches("EVENT_TYPE_"));
    let known = (0..=i32::from(u8::MAX)).filter_map(|number| EventType::try_from(number).ok());
    known.filter(|known| *known != EventType::Unspecified).find(|known| squeezed(&event_name(*known as i32)) == wanted)
}

/// The kind of message that a name stands for, however it is written: `state_diff`, `StateDiff`.
pub fn message_kind(name: &str) -> Option<&'static str> {
    let wanted = squeezed(name);
    MESSAGE_KINDS.into_iter().find(|kind| squeezed(kind) == wanted)
}

/// The names of all types of events.
pub fn event_names() -> impl Iterator<Item = String> {
    let known = (1..=i32::from(u8::MAX)).filter(|number| EventType::try_from(*number).is_ok());
    known.map(event_name)
}

/// Letters and digits alone, in one case.
fn squeezed(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// The kinds of messages, as options name them.
pub const MESSAGE_KINDS: [&str; 8] =
    ["event", "state_diff", "token_chunk", "tool_execution", "checkpoint", "metrics", "error", "execution_trace"];

impl Body {
    /// Which of [`MESSAGE_KINDS`] it is.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Event(_) => "event",
            Self::StateDiff(_) => "state_diff",
            Self::TokenChunk(_) => "token_chunk",
            Self::ToolExecution(_) => "tool_execution",
            Self::Checkpoint(_) => "checkpoint",
            Self::Metrics(_) => "metrics",
            Self::Error(_) => "error",
            Self::ExecutionTrace(_) => "execution_trace",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_type_is_found_by_its_name_however_it_is_written() {
        let known = (1..=255).filter_map(|number| EventType::try_from(number).ok());
        let mut count = 0;
        for known in known {
            let name = event_name(known as i32);
            assert_eq!(event_type(&name), Some(known));
            assert_eq!(event_type(&name.to_lowercase().replace('_', "-")), Some(known));
            count += 1;
        }
        assert_eq!(count, 30);
        assert_eq!(event_type("NodeStart"), Some(EventType::NodeStart));
        assert_eq!((event_type(""), event_type("unspecified"), event_type("NODE")), (None, None, None));
        assert_eq!(event_name(4711), "EVENT_4711");
        assert_eq!(event_names().count(), 30);
    }

    #[test]
    fn every_kind_of_message_is_found_by_its_name() {
        for kind in MESSAGE_KINDS {
            assert_eq!(message_kind(kind), Some(kind));
            assert_eq!(message_kind(&kind.to_uppercase().replace('_', "-")), Some(kind));
        }
        assert_eq!((message_kind("event_batch"), message_kind("")), (None, None));
    }
}
