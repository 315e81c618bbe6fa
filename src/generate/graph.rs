//! What a graph of agents is made of, and how producers describe it on GRAPH_START.
//!
//! Types and pure functions. It must not know what a run of the graph does, or when.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// The name of the end: only ever the target of an edge.
pub const END: &str = "__end__";

/// A graph, and the cases that its runs are about.
#[derive(Debug)]
pub struct Graph {
    /// Name, also the prefix of its thread ids.
    pub name: &'static str,
    /// One sentence.
    pub description: &'static str,
    /// Name of the state's type.
    pub state_type: &'static str,
    /// Where a run starts.
    pub entry: &'static str,
    /// The nodes.
    pub nodes: &'static [Node],
    /// The edges.
    pub edges: &'static [Edge],
    /// What runs can be about.
    pub cases: &'static [Case],
}

/// One step of a graph.
#[derive(Debug)]
pub struct Node {
    /// Unique in the graph.
    pub name: &'static str,
    /// One sentence.
    pub description: &'static str,
    /// What it does.
    pub kind: NodeKind,
    /// Fields of the state that it reads.
    pub reads: &'static [&'static str],
    /// The field of the state that it writes.
    pub writes: &'static str,
    /// Sentences of its own: what an LLM opens with, what a tool answers, what a router thinks.
    pub lines: &'static [&'static str],
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Plain code.
    Transform,
    /// Asks a language model and streams its tokens.
    Llm {
        /// The model's name.
        model: &'static str,
        /// How many sentences it says.
        sentences: usize,
    },
    /// Calls one tool.
    Tool {
        /// The tool's name.
        tool: &'static str,
    },
    /// Decides where to go.
    Router,
    /// Joins parallel branches.
    Aggregator,
    /// Scores a result.
    Validator,
    /// Waits for a person.
    Human,
}

/// A way from one node to another.
#[derive(Debug)]
pub struct Edge {
    /// Where it starts.
    pub from: &'static str,
    /// Where it leads, maybe [`END`].
    pub to: &'static str,
    /// When it is taken.
    pub kind: EdgeKind,
    /// What the condition is called; empty otherwise.
    pub label: &'static str,
}

/// When an edge is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgeKind {
    /// Always.
    Direct,
    /// One of several, with this weight.
    Conditional(u32),
    /// Together with the other parallel edges of the node.
    Parallel,
}

/// What a run is about.
#[derive(Debug)]
pub struct Case {
    /// A few words.
    pub subject: &'static str,
    /// What the user asks.
    pub request: &'static str,
    /// What the user asks next.
    pub follow_up: &'static str,
    /// Sentences that tools find and models say.
    pub facts: &'static [&'static str],
    /// Where the facts come from.
    pub sources: &'static [&'static str],
}

impl Graph {
    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&'static Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The edges that leave a node.
    pub fn edges_from<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'static Edge> + 'a {
        self.edges.iter().filter(move |edge| edge.from == name)
    }

    /// 16 hex digits that change when the entry, a node name or an edge changes.
    pub fn schema_id(&self) -> String {
        let mut nodes: Vec<_> = self.nodes.iter().map(|node| node.name).collect();
        nodes.sort_unstable();
        let conditional = |edge: &Edge| matches!(edge.kind, EdgeKind::Conditional(_));
        let mut edges: Vec<_> =
            self.edges.iter().map(|edge| format!("{}->{}:{}", edge.from, edge.to, conditional(edge))).collect();
        edges.sort_unstable();
        let text = format!("entry:{};nodes:{};edges:{}", self.entry, nodes.join(","), edges.join(","));
        Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The attribute `graph_schema_json`.
    pub fn schema_json(&self, exported_at: &str) -> Value {
        let nodes: Vec<_> = self
            .nodes
            .iter()
            .map(|node| {
                json!({
                    "name": node.name, "description": node.description, "node_type": node.kind.schema_name(),
                    "input_fields": node.reads, "output_fields": [node.writes], "position": null, "attributes": {},
                })
            })
            .collect();
        let edges: Vec<_> = self
            .edges
            .iter()
            .map(|edge| {
                json!({
                    "from": edge.from, "to": edge.to, "edge_type": edge.kind.schema_name(),
                    "label": label(edge), "conditional_targets": null,
                })
            })
            .collect();
        json!({
            "name": self.name, "version": "1.0.0", "description": self.description, "nodes": nodes, "edges": edges,
            "entry_point": self.entry, "state_type": self.state_type, "exported_at": exported_at, "metadata": {},
        })
    }

    /// The attribute `graph_manifest`.
    pub fn manifest_json(&self) -> Value {
        let mut nodes = Map::new();
        let mut configs = Map::new();
        for node in self.nodes {
            let description =
                json!({"name": node.name, "node_type": node.kind.manifest_name(), "description": node.description});
            nodes.insert(node.name.to_owned(), description);
            let (config, hash) = node.config();
            let config = json!({
                "name": node.name, "node_type": node.kind.manifest_name(), "config": config, "version": 1,
                "config_hash": hash, "updated_at": "2026-05-04T09:30:00Z", "updated_by": "release-pipeline",
            });
            configs.insert(node.name.to_owned(), config);
        }
        let mut edges = Map::new();
        for edge in self.edges {
            let described = json!({
                "from": edge.from, "to": edge.to, "is_conditional": matches!(edge.kind, EdgeKind::Conditional(_)),
                "is_parallel": edge.kind == EdgeKind::Parallel, "condition_label": label(edge), "description": null,
            });
            let list = edges.entry(edge.from).or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.push(described);
            }
        }
        json!({
            "graph_id": format!("{}-v1", self.name), "graph_name": self.name, "entry_point": self.entry, "nodes": nodes,
            "edges": edges, "state_schema": {"type": self.state_type}, "metadata": {"team": "agents"},
            "node_configs": configs,
        })
    }
}

impl Node {
    /// Its configuration and the first 16 hex digits of the configuration's SHA-256.
    pub fn config(&self) -> (Value, String) {
        let config = match self.kind {
            NodeKind::Llm { model, .. } => json!({"model": model, "temperature": 0.2, "max_tokens": 1024}),
            NodeKind::Tool { tool } => json!({"tool": tool, "timeout_ms": 8000, "max_retries": 2}),
            NodeKind::Human => json!({"channel": "review-desk", "timeout_s": 3600}),
            _ => json!({}),
        };
        let digest = Sha256::digest(config.to_string());
        (config, digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }
}

impl NodeKind {
    const fn schema_name(self) -> &'static str {
        match self {
            Self::Transform => "transform",
            Self::Llm { .. } => "llm",
            Self::Tool { .. } => "tool",
            Self::Router => "router",
            Self::Aggregator => "aggregator",
            Self::Validator => "validator",
            Self::Human => "human_in_loop",
        }
    }

    const fn manifest_name(self) -> &'static str {
        match self {
            Self::Llm { .. } => "agent",
            Self::Tool { .. } => "tool_executor",
            Self::Human => "approval",
            Self::Transform | Self::Router | Self::Aggregator | Self::Validator => "function",
        }
    }
}

impl EdgeKind {
    const fn schema_name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Conditional(_) => "conditional",
            Self::Parallel => "parallel",
        }
    }
}

fn label(edge: &Edge) -> Option<&'static str> {
    Some(edge.label).filter(|label| !label.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::catalogue::GRAPHS;

    #[test]
    fn every_graph_holds_together() {
        for graph in GRAPHS {
            assert!(graph.node(graph.entry).is_some(), "{}", graph.name);
            assert!(!graph.cases.is_empty());
            for edge in graph.edges {
                assert!(graph.node(edge.from).is_some(), "{} has an edge from {}", graph.name, edge.from);
                assert!(edge.to == END || graph.node(edge.to).is_some(), "{} has an edge to {}", graph.name, edge.to);
            }
            for node in graph.nodes {
                assert!(graph.edges_from(node.name).next().is_some(), "{} ends nowhere", node.name);
                assert!(!node.lines.is_empty(), "{} has nothing to say", node.name);
                assert!(node.name == graph.entry || graph.edges.iter().any(|edge| edge.to == node.name));
            }
        }
    }

    #[test]
    fn the_schema_id_speaks_of_entry_nodes_and_edges_only() {
        let text = "entry:a;nodes:a,b;edges:a->b:true,b->__end__:false";
        let expected: String = Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        const fn node(name: &'static str) -> Node {
            Node { name, description: "", kind: NodeKind::Router, reads: &[], writes: "", lines: &[] }
        }
        static GRAPH: Graph = Graph {
            name: "g",
            description: "",
            state_type: "",
            entry: "a",
            nodes: &[node("b"), node("a")],
            edges: &[
                Edge { from: "b", to: END, kind: EdgeKind::Direct, label: "" },
                Edge { from: "a", to: "b", kind: EdgeKind::Conditional(1), label: "yes" },
            ],
            cases: &[],
        };
        assert_eq!(GRAPH.schema_id(), expected);
    }
}
