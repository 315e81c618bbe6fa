//! The graphs that are generated: their shape and their words. Data only.

pub mod research;

pub mod review;

pub mod support;

use super::graph::{Edge, EdgeKind, Graph};

/// All graphs; runs choose among them.
pub static GRAPHS: [&Graph; 3] = [&research::GRAPH, &review::GRAPH, &support::GRAPH];

const fn direct(from: &'static str, to: &'static str) -> Edge {
    Edge { from, to, kind: EdgeKind::Direct, label: "" }
}

const fn parallel(from: &'static str, to: &'static str) -> Edge {
    Edge { from, to, kind: EdgeKind::Parallel, label: "" }
}

const fn when(label: &'static str, weight: u32, from: &'static str, to: &'static str) -> Edge {
    Edge { from, to, kind: EdgeKind::Conditional(weight), label }
}
