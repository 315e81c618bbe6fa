//! Which spans the messages of a run make.

use proptest::prelude::*;

use super::super::item::{Body, Item};
use super::super::make;
use super::super::span::Took;
use super::*;
use crate::wire::telemetry::attribute_value::Value;
use crate::wire::telemetry::tool_execution::ExecutionStage;

fn tree(items: Vec<Item>) -> Tree {
    let mut run = Run::new("acme", "t", false);
    for item in &items {
        run.add(item).unwrap();
    }
    Tree::of(&run)
}

/// Each span as `kind name in parent: status took`.
fn told(tree: &Tree) -> Vec<String> {
    let one = |span: &Span| {
        let parent = span.parent.map_or("-", |parent| tree.spans[parent].name.as_str());
        let took = match span.took() {
            Took::Told(us) => format!("told {us}"),
            Took::Between(us) => format!("between {us}"),
            Took::Unknown => "unknown".to_owned(),
        };
        format!("{:?} {} in {parent}: {} {took}", span.kind, span.name, span.status.as_str())
    };
    tree.spans.iter().map(one).collect()
}

fn graph(sequence: u64, time: i64, name: &str) -> Item {
    make::text(make::event(sequence, time, EventType::GraphStart, ""), "graph_name", name)
}

fn node(sequence: u64, time: i64, name: &str) -> Item {
    make::event(sequence, time, EventType::NodeStart, name)
}

fn node_end(sequence: u64, time: i64, name: &str) -> Item {
    make::event(sequence, time, EventType::NodeEnd, name)
}

#[test]
fn a_run_is_graphs_nodes_and_calls() {
    let call = |item| make::text(make::request(item, "r"), "model", "m");
    let tree = tree(vec![
        graph(1, 0, "g"),
        node(2, 10, "a"),
        call(make::event(3, 20, EventType::LlmStart, "a")),
        make::chunk(4, 25, "r", None),
        make::chunk(5, 28, "r", Some((1, 2))),
        make::took(call(make::event(6, 30, EventType::LlmEnd, "a")), 9),
        make::took(node_end(7, 40, "a"), 31),
        node(8, 50, "b"),
        node_end(9, 60, "b"),
        make::took(make::event(10, 70, EventType::GraphEnd, ""), 70),
    ]);
    assert_eq!(
        told(&tree),
        [
            "Graph g in -: done told 70",
            "Node a in g: done told 31",
            "Llm m in a: done told 9",
            "Node b in g: done between 10",
        ]
    );
    assert_eq!((tree.status, tree.graph.as_str(), tree.spans[2].chunks), (Status::Completed, "g", 2));
}

#[test]
fn executions_of_one_node_side_by_side_stay_apart() {
    let by_duration = tree(vec![
        graph(1, 0, "g"),
        node(2, 10, "a"),
        node(3, 20, "a"),
        make::took(node_end(4, 110, "a"), 100),
        make::took(node_end(5, 120, "a"), 100),
        node(6, 130, "a"),
        node_end(7, 140, "a"),
    ]);
    let took: Vec<_> = by_duration.of_kind(SpanKind::Node).map(|(_, span)| (span.start_us, span.end_us)).collect();
    assert_eq!(took, [(Some(10), Some(110)), (Some(20), Some(120)), (Some(130), Some(140))]);

    // The id of the start beats everything.
    let (first, second) = (node(1, 10, "a"), node(2, 20, "a"));
    let mut end = make::took(node_end(3, 110, "a"), 90);
    end.header.parent_id.clone_from(&first.header.message_id);
    let by_id = tree(vec![first, second, end]);
    assert_eq!(by_id.spans.iter().map(|span| span.end_us).collect::<Vec<_>>(), [Some(110), None]);

    // With neither, the one that began last.
    let by_order = tree(vec![node(1, 10, "a"), node(2, 20, "a"), node_end(3, 30, "a"), node_end(4, 40, "a")]);
    assert_eq!(by_order.spans.iter().map(|span| span.end_us).collect::<Vec<_>>(), [Some(40), Some(30)]);
}

#[test]
fn an_end_without_a_start_and_a_start_without_an_end_are_kept() {
    let tree = tree(vec![make::took(node_end(1, 50, "a"), 20), node_end(2, 60, "b"), node(3, 70, "c")]);
    assert_eq!(
        told(&tree),
        ["Node a in -: done told 20", "Node b in -: done unknown", "Node c in -: unfinished unknown"]
    );
    assert_eq!(tree.spans[0].interval(), Some((30, 50)));
    assert_eq!(tree.status, Status::Running);
}

#[test]
fn an_error_ends_an_execution_and_a_retry_is_another_one() {
    let error = |sequence, time| make::text(make::event(sequence, time, EventType::NodeError, "a"), "error", "no");
    let failed = tree(vec![node(1, 10, "a"), error(2, 20), node(3, 30, "a"), node_end(4, 40, "a")]);
    assert_eq!(told(&failed), ["Node a in -: failed between 10", "Node a in -: done between 10"]);
    assert_eq!(failed.spans[0].error, "no");
    // Some producers send the end all the same.
    let ended = tree(vec![node(1, 10, "a"), error(2, 20), node_end(3, 30, "a")]);
    assert_eq!(told(&ended), ["Node a in -: done between 20"]);
    assert_eq!(ended.spans[0].error, "no");
}

#[test]
fn all_stages_of_a_tools_call_are_one_call() {
    use ExecutionStage::{Completed, Failed, Requested, Retrying, Started};
    let of = |item| make::text(make::text(item, "tool_name", "search"), "call_id", "c");
    let tree = tree(vec![
        graph(1, 0, "g"),
        node(2, 1, "a"),
        node(3, 2, "b"),
        make::tool(4, 10, "c", Requested),
        of(make::event(5, 11, EventType::ToolStart, "a")),
        make::tool(6, 12, "c", Started),
        make::tool(7, 20, "c", Failed),
        make::tool(8, 21, "c", Retrying),
        make::tool(9, 22, "c", Started),
        make::tool(10, 30, "c", Completed),
        make::took(of(make::event(11, 31, EventType::ToolEnd, "a")), 8),
        make::tool(12, 40, "", Requested),
        make::tool(13, 41, "", Started),
        make::tool(14, 50, "", Failed),
    ]);
    let tools: Vec<_> = told(&tree).into_iter().filter(|line| line.starts_with("Tool")).collect();
    assert_eq!(tools, ["Tool search in a: done told 8", "Tool search in g: failed between 10"]);
}

#[test]
fn calls_without_ids_are_found_by_their_node() {
    let tree = tree(vec![
        node(1, 1, "a"),
        node(2, 2, "b"),
        make::event(3, 10, EventType::LlmStart, "a"),
        make::event(4, 11, EventType::LlmStart, "b"),
        make::event(5, 20, EventType::LlmEnd, "a"),
        make::event(6, 30, EventType::LlmError, "b"),
    ]);
    assert_eq!(told(&tree)[2..], ["Llm  in a: done between 10", "Llm  in b: failed between 19"]);
}

#[test]
fn a_thread_that_is_used_again_holds_one_graph_after_the_other() {
    let tree = tree(vec![
        graph(1, 0, "g"),
        node(2, 10, "a"),
        // It died here, without a word.
        graph(3, 100, "g"),
        node(4, 110, "a"),
        node_end(5, 120, "a"),
        make::event(6, 130, EventType::GraphEnd, ""),
    ]);
    assert_eq!(
        told(&tree),
        [
            "Graph g in -: unfinished unknown",
            "Node a in g: unfinished unknown",
            "Graph g in -: done between 30",
            "Node a in g: done between 10",
        ]
    );
    assert_eq!(tree.spans[3].parent, Some(2));
    assert_eq!(tree.status, Status::Completed);
}

#[test]
fn a_graph_inside_a_node_is_inside_it() {
    let tree = tree(vec![
        graph(1, 0, "outer"),
        node(2, 10, "a"),
        graph(3, 20, "inner"),
        node(4, 30, "b"),
        node_end(5, 40, "b"),
        make::event(6, 50, EventType::GraphEnd, ""),
        node_end(7, 60, "a"),
    ]);
    let parents: Vec<_> = tree.spans.iter().map(|span| span.parent).collect();
    assert_eq!(parents, [None, Some(0), Some(1), Some(2)]);
    assert_eq!((tree.status, tree.graph.as_str()), (Status::Running, "outer"));
}

#[test]
fn a_run_waits_fails_and_is_not_ended_by_an_alert() {
    let waiting = vec![graph(1, 0, "g"), make::event(2, 1, EventType::HumanInterrupt, "a")];
    assert_eq!(tree(waiting.clone()).status, Status::Waiting);
    let resumed = [waiting, vec![make::event(3, 2, EventType::HumanResume, "a")]].concat();
    assert_eq!(tree(resumed.clone()).status, Status::Running);
    let alert = make::text(make::event(4, 3, EventType::GraphError, "monitor"), "alert_type", "LOW_QUALITY");
    let alerted = [resumed, vec![alert]].concat();
    assert_eq!(tree(alerted.clone()).status, Status::Running);
    let failed = [alerted, vec![make::event(5, 4, EventType::GraphError, "")]].concat();
    assert_eq!(tree(failed.clone()).status, Status::Failed);
    let settled = [failed, vec![make::event(6, 5, EventType::GraphEnd, "")]].concat();
    assert_eq!(tree(settled).status, Status::Completed);
}

#[test]
fn edges_are_counted() {
    let edge = |sequence| make::text(make::event(sequence, 5, EventType::EdgeTraversal, "a"), "to", "b");
    assert_eq!(tree(vec![edge(1), edge(2)]).edges, BTreeMap::from([(("a".to_owned(), "b".to_owned()), 2)]));
}

fn any_item() -> impl Strategy<Value = (u64, i64, u8, u8, u8)> {
    (0_u64..30, -5_i64..60, 0_u8..16, 0_u8..3, 0_u8..4)
}

/// Any message at all, related to others by chance.
fn made((sequence, time, kind, name, id): (u64, i64, u8, u8, u8)) -> Item {
    let name = ["a", "b", ""][usize::from(name)];
    let id_text = ["", "x", "y", "z"][usize::from(id)];
    let kinds = [
        EventType::GraphStart,
        EventType::GraphEnd,
        EventType::GraphError,
        EventType::NodeStart,
        EventType::NodeEnd,
        EventType::NodeError,
        EventType::LlmStart,
        EventType::LlmEnd,
        EventType::LlmRetry,
        EventType::ToolStart,
        EventType::ToolEnd,
        EventType::ToolError,
    ];
    let mut item = match kinds.get(usize::from(kind)) {
        Some(kind) => {
            let item = make::request(make::event(sequence, time, *kind, name), id_text);
            make::took(make::attribute(item, "call_id", Value::StringValue(id_text.to_owned())), time * 2)
        }
        None if kind < 14 => make::tool(sequence, time, id_text, ExecutionStage::try_from(i32::from(id) + 1).unwrap()),
        None => make::chunk(sequence, time, id_text, (id > 2).then_some((1, 1))),
    };
    if let Body::Event(event) = &mut item.body
        && kind == 0
    {
        event.node_id.clear();
    }
    item
}

proptest! {
    #[test]
    fn whatever_comes_there_is_a_tree(
        made_of in prop::collection::vec((any_item(), 0_usize..50), 0..50),
    ) {
        let mut items: Vec<Item> = Vec::new();
        for (parts, parent) in made_of {
            let mut item = made(parts);
            if let Some(parent) = items.get(parent) {
                item.header.parent_id.clone_from(&parent.header.message_id);
            }
            items.push(item);
        }
        let tree = tree(items);
        let (children, roots) = tree.children();
        let mut seen = vec![false; tree.spans.len()];
        let mut waiting = roots;
        while let Some(index) = waiting.pop() {
            prop_assert!(!std::mem::replace(&mut seen[index], true), "a span lies in one place only");
            waiting.extend(&children[index]);
        }
        prop_assert!(seen.into_iter().all(|seen| seen), "every span hangs on a root");
    }
}
