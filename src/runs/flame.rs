//! A run as folded stacks, the form that flame graph tools read: `frame;frame;frame microseconds`.
//!
//! Each stack has the time that its last frame took itself. Branches that ran side by side each have their own, so the sum may
//! be more than the run took by the clock. It must not know how stacks are drawn.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::profile::self_times;
use super::span::SpanKind;
use super::tree::Tree;

/// So many frames deep a stack may be; deeper ones end in the last of these.
const MAX_DEPTH: usize = 64;

/// A stack: its frames, the outermost first, and its own time in microseconds.
pub type Stack = (Vec<String>, u64);

/// The stacks of a run, the same ones added up. A span whose duration nobody knows has a stack without time, so that its name
/// is there.
pub fn stacks(tree: &Tree) -> Vec<Stack> {
    let own = self_times(tree);
    let mut stacks = BTreeMap::<Vec<String>, u64>::new();
    for (index, own) in own.into_iter().enumerate() {
        let above = |index: &usize| tree.spans.get(*index).and_then(|span| span.parent);
        let mut frames: Vec<String> = std::iter::successors(Some(index), above)
            .filter_map(|index| tree.spans.get(index))
            .map(|span| frame(span.kind, &span.name))
            .collect();
        frames.reverse();
        frames.truncate(MAX_DEPTH);
        let time = stacks.entry(frames).or_default();
        *time = time.saturating_add(own);
    }
    stacks.into_iter().collect()
}

fn frame(kind: SpanKind, name: &str) -> String {
    let named = |what: &str| if name.is_empty() { what.to_owned() } else { name.to_owned() };
    match kind {
        SpanKind::Graph => named("graph"),
        SpanKind::Node => named("node"),
        SpanKind::Llm => format!("llm:{}", named("?")),
        SpanKind::Tool => format!("tool:{}", named("?")),
    }
}

/// As text, one line per stack.
pub fn folded(stacks: &[Stack]) -> String {
    let mut text = String::new();
    for (frames, micros) in stacks {
        let frames: Vec<String> = frames.iter().map(|frame| escaped(frame)).collect();
        let _ = writeln!(text, "{} {micros}", frames.join(";"));
    }
    text
}

/// What would end a frame or a stack is percent-encoded, and the percent sign with it, so that names stay apart.
fn escaped(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        if matches!(c, ';' | '%') || c.is_whitespace() || c.is_control() {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                let _ = write!(escaped, "%{byte:02X}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::span::{Span, SpanStatus};
    use super::*;
    use proptest::prelude::*;

    fn span(kind: SpanKind, name: &str, parent: Option<usize>, start: i64, took: i64) -> Span {
        let mut span = Span::begun(kind, name.to_owned(), Some(start));
        span.parent = parent;
        span.end(Some(start + took), took, SpanStatus::Done);
        span
    }

    #[test]
    fn stacks_are_folded_by_the_tree_and_branches_side_by_side_are_kept() {
        let spans = vec![
            span(SpanKind::Graph, "my graph", None, 0, 100),
            span(SpanKind::Node, "a;b", Some(0), 10, 50),
            span(SpanKind::Node, "c", Some(0), 10, 50),
            span(SpanKind::Llm, "m", Some(2), 20, 10),
            span(SpanKind::Node, "c", Some(0), 70, 5),
            Span { parent: Some(0), ..Span::begun(SpanKind::Node, "open".to_owned(), Some(80)) },
            span(SpanKind::Tool, "", None, 0, 3),
        ];
        let folded = folded(&stacks(&Tree { spans, ..Tree::default() }));
        assert_eq!(
            folded,
            "my%20graph 45\nmy%20graph;a%3Bb 50\nmy%20graph;c 45\nmy%20graph;c;llm:m 10\nmy%20graph;open 0\ntool:? 3\n"
        );
    }

    proptest! {
        #[test]
        fn names_stay_apart_and_in_their_line(one in any::<String>(), other in any::<String>()) {
            let escaped = [escaped(&one), escaped(&other)];
            prop_assert_eq!(escaped[0] == escaped[1], one == other);
            prop_assert!(!escaped[0].contains([';', ' ', '\n', '\r', '\t']));
        }
    }
}
