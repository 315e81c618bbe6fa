//! Which kinds of messages are meant, by their names.

use crate::config::problem::nearest;
use crate::runs::item::{Body, Item};
use crate::runs::names::{MESSAGE_KINDS, event_name, event_names, event_type, message_kind};
use crate::wire::telemetry::EventType;

/// A kind of message, or a type of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// Messages of this kind.
    Kind(&'static str),
    /// Events of this type.
    Event(EventType),
}

/// Kinds of messages; none admits all.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Types {
    /// Messages of this kind (state_diff, error, ...) or events of this type (NODE_START, LLM_END, ...). Separated by commas,
    /// or given several times; `event` means all events
    #[arg(long = "type", value_name = "NAME", value_delimiter = ',', value_parser = parse)]
    types: Vec<Type>,
}

impl Types {
    pub(super) fn admits(&self, item: &Item) -> bool {
        self.types.is_empty()
            || self.types.iter().any(|wanted| match (wanted, &item.body) {
                (Type::Kind(kind), body) => *kind == body.kind(),
                (Type::Event(wanted), Body::Event(event)) => event.event_type == i32::from(*wanted),
                (Type::Event(_), _) => false,
            })
    }
}

fn parse(name: &str) -> Result<Type, String> {
    if let Some(found) = message_kind(name).map(Type::Kind).or_else(|| event_type(name).map(Type::Event)) {
        return Ok(found);
    }
    let names: Vec<String> = event_names().collect();
    let (upper, lower) = (name.to_uppercase().replace('-', "_"), name.to_lowercase().replace('-', "_"));
    let meant =
        nearest(&upper, names.iter().map(String::as_str)).or_else(|| nearest(&lower, MESSAGE_KINDS.into_iter()));
    Err(match meant {
        Some(meant) => format!("there is no such kind of message and no such type of event; did you mean {meant}?"),
        None => format!(
            "there is no such kind of message and no such type of event; kinds are {}; types are such as {}",
            MESSAGE_KINDS.join(", "),
            event_name(EventType::NodeStart.into())
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::telemetry::{Event, Header, Metrics};

    fn item(body: Body) -> Item {
        Item { place: Default::default(), record_time_ms: None, header: Header::default(), body }
    }

    #[test]
    fn kinds_and_types_are_told_apart_however_they_are_written() {
        assert_eq!(parse("node-start"), Ok(Type::Event(EventType::NodeStart)));
        assert_eq!(parse("EVENT_TYPE_LLM_END"), Ok(Type::Event(EventType::LlmEnd)));
        assert_eq!(parse("StateDiff"), Ok(Type::Kind("state_diff")));
        assert_eq!(parse("error"), Ok(Type::Kind("error")));
        let node_end = item(Body::Event(Event { event_type: EventType::NodeEnd.into(), ..Event::default() }));
        let metrics = item(Body::Metrics(Metrics::default()));
        let of = |types: &[Type]| {
            let types = Types { types: types.to_vec() };
            (types.admits(&node_end), types.admits(&metrics))
        };
        assert_eq!(of(&[]), (true, true));
        assert_eq!(of(&[Type::Kind("event")]), (true, false));
        assert_eq!(of(&[Type::Event(EventType::NodeStart)]), (false, false));
        assert_eq!(of(&[Type::Event(EventType::NodeEnd), Type::Kind("metrics")]), (true, true));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_likeliest_one() {
        for (name, meant) in [("NODE_STAR", "NODE_START"), ("metric", "metrics"), ("state-dif", "state_diff")] {
            let refused = parse(name).unwrap_err();
            assert!(refused.ends_with(&format!("did you mean {meant}?")), "{name}: {refused}");
        }
        assert!(parse("zzz").unwrap_err().contains("execution_trace"));
    }
}
