//! Events of runs as the exporter counts them: by type, and how long nodes took.
//!
//! It must not know what a run is.

use std::time::Duration;

use crate::wire::telemetry::{Event, EventType};

/// Names of types of events, as in the contract without their prefix; `OTHER` for those that are not known here.
pub const EVENT_NAMES: &[&str] = &[
    "GRAPH_START",
    "GRAPH_END",
    "GRAPH_ERROR",
    "NODE_START",
    "NODE_END",
    "NODE_ERROR",
    "EDGE_TRAVERSAL",
    "CONDITIONAL_BRANCH",
    "PARALLEL_START",
    "PARALLEL_END",
    "LLM_START",
    "LLM_END",
    "LLM_ERROR",
    "LLM_RETRY",
    "TOOL_START",
    "TOOL_END",
    "TOOL_ERROR",
    "CHECKPOINT_SAVE",
    "CHECKPOINT_LOAD",
    "CHECKPOINT_DELETE",
    "MEMORY_SAVE",
    "MEMORY_LOAD",
    "HUMAN_INTERRUPT",
    "HUMAN_RESUME",
    "NODE_PROGRESS",
    "NODE_THINKING",
    "NODE_SUBSTEP",
    "NODE_WARNING",
    "OPTIMIZATION_START",
    "OPTIMIZATION_END",
    OTHER,
];
const OTHER: &str = "OTHER";

/// One of [`EVENT_NAMES`].
pub fn name(event: &Event) -> &'static str {
    let known = EventType::try_from(event.event_type).map_or("", |known| known.as_str_name());
    let bare = known.trim_start_matches("EVENT_TYPE_");
    EVENT_NAMES.iter().find(|name| **name == bare).copied().unwrap_or(OTHER)
}

/// How long a node took, and how it ended, where the event says so.
pub fn node_duration(event: &Event) -> Option<(&'static str, Duration)> {
    let status = match EventType::try_from(event.event_type) {
        Ok(EventType::NodeEnd) => "finished",
        Ok(EventType::NodeError) => "failed",
        _ => return None,
    };
    let micros = u64::try_from(event.duration_us).ok().filter(|micros| (1..=MAX_MICROS).contains(micros))?;
    Some((status, Duration::from_micros(micros)))
}

/// A week; zero is what is there when nobody measured.
const MAX_MICROS: u64 = 7 * 86_400 * 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_the_contract_has_its_name_and_what_is_unknown_is_other() {
        let mut named = Vec::new();
        for number in 0..=255 {
            let found = name(&Event { event_type: number, ..Event::default() });
            match EventType::try_from(number) {
                Ok(EventType::Unspecified) | Err(_) => assert_eq!(found, OTHER),
                Ok(known) => {
                    assert_eq!(known.as_str_name(), format!("EVENT_TYPE_{found}"));
                    named.push(found);
                }
            }
        }
        assert_eq!(named, EVENT_NAMES[..EVENT_NAMES.len() - 1]);
    }

    #[test]
    fn a_duration_that_nobody_measured_is_none() {
        let of = |event_type: EventType, duration_us: i64| {
            node_duration(&Event { event_type: event_type.into(), duration_us, ..Event::default() })
        };
        assert_eq!(of(EventType::NodeEnd, 1_500), Some(("finished", Duration::from_micros(1_500))));
        assert_eq!(of(EventType::NodeError, 1), Some(("failed", Duration::from_micros(1))));
        for none in [0, -1, i64::MAX] {
            assert_eq!(of(EventType::NodeEnd, none), None);
        }
        assert_eq!(of(EventType::ToolEnd, 5), None);
    }
}
