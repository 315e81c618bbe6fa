//! A run as it stands, as a picture of lines, as lines about what changed, and as JSON.
//!
//! Pure: it must not know the terminal but its size.

use std::collections::{BTreeSet, VecDeque};

use serde_json::{Value, json};

use super::profile::short;
use super::show::{self, plain};
use crate::runs::line::clock;
use crate::runs::view::{NodeView, Stand, View};

/// Names in a list of fields.
const FIELDS: usize = 12;

/// The picture, as many lines as fit, none longer than fits.
pub(super) fn picture(
    view: &View,
    fields: &BTreeSet<String>,
    recent: &VecDeque<String>,
    notes: &[String],
    (columns, rows): (usize, usize),
) -> Vec<String> {
    let mut lines = vec![
        format!("{}  {}", head(view), short(view.elapsed_us)),
        format!("started {}  {} messages  {}", clock(view.start_us), view.messages, missing(view)),
        String::new(),
    ];
    let mut table = vec![["NODE", "STATE", "RUNS", "FAILED", "TIME", "NOW"].map(str::to_owned).to_vec()];
    table.extend(view.nodes.iter().map(|node| {
        vec![
            plain(&node.name, 40),
            format!("{} {}", mark(node.stand), node.stand.as_str()),
            node.executions.to_string(),
            node.failed.to_string(),
            if node.executions > 0 { short(Some(node.total_us)) } else { "-".to_owned() },
            calls(&node.calls),
        ]
    }));
    // Head, state, the last messages and the way out stay in sight; nodes have the rest.
    let below = 4 + recent.len() + notes.len();
    let room = rows.saturating_sub(lines.len() + below).max(3);
    let nodes = show::table(&table);
    let more = table.len().saturating_sub(room);
    lines.extend(nodes.lines().take(room).map(str::to_owned));
    if more > 0 {
        lines.push(format!("… and {more} more nodes; a larger window shows them"));
    }
    if !view.calls.is_empty() {
        lines.push(format!("under way: {}", calls(&view.calls)));
    }
    lines.push(String::new());
    lines.push(format!("state: {}", if fields.is_empty() { "-".to_owned() } else { changed(fields) }));
    lines.extend(recent.iter().cloned());
    lines.extend(notes.iter().map(|note| format!("! {}", plain(note, 400))));
    lines.push("q ends".to_owned());
    lines.truncate(rows);
    lines.into_iter().map(|line| line.chars().take(columns).collect()).collect()
}

/// A line for each thing that is not as before; `fields` of the state are those that were touched since.
pub(super) fn changes(before: Option<&View>, now: &View, fields: &BTreeSet<String>) -> Vec<String> {
    let mut lines = Vec::new();
    if before.is_none_or(|before| (before.status, &before.graph) != (now.status, &now.graph)) {
        lines.push(format!("{} {}", head(now), short(now.elapsed_us)));
    }
    for node in &now.nodes {
        let known = before.and_then(|before| before.nodes.iter().find(|known| known.name == node.name));
        // Another graph of the same thread begins with nodes that wait.
        if known != Some(node) {
            lines.push(node_line(node));
        }
    }
    if before.map(|before| &before.calls).unwrap_or(&Vec::new()) != &now.calls {
        lines.push(format!("under way: {}", if now.calls.is_empty() { "-".to_owned() } else { calls(&now.calls) }));
    }
    if before.map_or(0, |before| before.missing) != now.missing {
        lines.push(missing(now));
    }
    if !fields.is_empty() {
        lines.push(format!("state: {}", changed(fields)));
    }
    lines
}

fn node_line(node: &NodeView) -> String {
    let name = plain(&node.name, 80);
    let mut line = format!("node {name}: {}", node.stand.as_str());
    if node.executions > 0 {
        line.push_str(&format!(", {} runs, {} failed, {}", node.executions, node.failed, short(Some(node.total_us))));
    }
    if !node.calls.is_empty() {
        line.push_str(&format!(", {}", calls(&node.calls)));
    }
    line
}

/// The whole picture as JSON; `is_complete`: every record could be read, and no number is missing.
pub(super) fn snapshot(view: &View, fields: &BTreeSet<String>, is_complete: bool) -> String {
    let nodes: Vec<Value> = view
        .nodes
        .iter()
        .map(|node| {
            json!({
                "name": node.name, "state": node.stand.as_str(), "executions": node.executions, "running": node.running,
                "failed": node.failed, "total_us": node.total_us.to_string(), "calls": node.calls,
            })
        })
        .collect();
    json!({
        "tenant": view.tenant, "thread": view.thread, "graph": view.graph, "status": view.status.as_str(),
        "start_us": view.start_us.map(|us| us.to_string()), "elapsed_us": view.elapsed_us.map(|us| us.to_string()),
        "messages": view.messages, "missing": view.missing.to_string(), "nodes": nodes, "calls": view.calls,
        "state_fields_changed": fields, "complete": is_complete && view.missing == 0,
    })
    .to_string()
}

fn head(view: &View) -> String {
    let graph = if view.graph.is_empty() { "graph".to_owned() } else { plain(&view.graph, 60) };
    format!("{graph} {} (thread {}, tenant {})", view.status.as_str(), plain(&view.thread, 80), plain(&view.tenant, 40))
}

fn missing(view: &View) -> String {
    match view.missing {
        0 => "none missing".to_owned(),
        missing => format!("{missing} MESSAGES MISSING"),
    }
}

/// A mark that is told apart without colours.
const fn mark(stand: Stand) -> char {
    match stand {
        Stand::Waiting => '·',
        Stand::Running => '▶',
        Stand::Done => '✓',
        Stand::Failed => '✗',
        Stand::Unfinished => '?',
    }
}

fn calls(calls: &[String]) -> String {
    let shown: Vec<String> = calls.iter().take(4).map(|call| plain(call, 60)).collect();
    let more = calls.len().saturating_sub(shown.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &more
}

fn changed(fields: &BTreeSet<String>) -> String {
    let shown: Vec<String> = fields.iter().take(FIELDS).map(|field| plain(field, 40)).collect();
    let more = fields.len().saturating_sub(shown.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more} changed", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::tree::Status;

    fn view(stand: Stand, status: Status) -> View {
        let node = NodeView { name: "a\u{1b}".into(), stand, executions: 1, ..NodeView::default() };
        View { thread: "t".into(), tenant: "acme".into(), status, nodes: vec![node], ..View::default() }
    }

    #[test]
    fn only_what_changed_is_told() {
        let (none, fields) = (BTreeSet::new(), BTreeSet::from(["answer".to_owned()]));
        let running = view(Stand::Running, Status::Running);
        let first = changes(None, &running, &none);
        assert_eq!(first, ["graph running (thread t, tenant acme) -", "node a\\u{1b}: running, 1 runs, 0 failed, 0us"]);
        assert!(changes(Some(&running), &running, &none).is_empty());
        let done = view(Stand::Done, Status::Running);
        assert_eq!(
            changes(Some(&running), &done, &fields),
            ["node a\\u{1b}: done, 1 runs, 0 failed, 0us", "state: answer changed"]
        );
        let lossy = View { missing: 2, ..done.clone() };
        assert_eq!(changes(Some(&done), &lossy, &none), ["2 MESSAGES MISSING"]);
    }

    #[test]
    fn the_picture_fits_the_screen_whatever_there_is() {
        let mut many = view(Stand::Running, Status::Running);
        let node = many.nodes[0].clone();
        many.nodes =
            (0..500).map(|at| NodeView { name: format!("node {at} {}", "ä".repeat(300)), ..node.clone() }).collect();
        let recent: VecDeque<String> = (0..8).map(|_| "x".repeat(500)).collect();
        for size in [(80, 24), (20, 3), (1, 1), (300, 700), (0, 0)] {
            let picture = picture(&many, &BTreeSet::new(), &recent, &["lost".to_owned()], size);
            assert!(picture.len() <= size.1, "{size:?}: {}", picture.len());
            assert!(picture.iter().all(|line| line.chars().count() <= size.0 && !line.contains('\u{1b}')));
        }
        let picture = picture(&many, &BTreeSet::new(), &recent, &["lost".to_owned()], (80, 24));
        assert_eq!(picture.last().map(String::as_str), Some("q ends"), "{picture:#?}");
        assert!(picture.iter().any(|line| line.contains("more nodes")) && picture.iter().any(|line| line == "! lost"));
    }

    #[test]
    fn a_snapshot_is_the_whole_picture() {
        let told: Value =
            serde_json::from_str(&snapshot(&view(Stand::Done, Status::Completed), &BTreeSet::new(), true)).unwrap();
        assert_eq!((&told["status"], &told["nodes"][0]["state"]), (&json!("completed"), &json!("done")));
    }
}
