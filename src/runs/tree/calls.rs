//! Calls of models and tools: several messages about each, and where it lies.
//!
//! It must not know graphs.

use super::Builder;
use crate::runs::fact::{EventFact, ToolFact};
use crate::runs::run::Note;
use crate::runs::span::{Span, SpanKind, SpanStatus};
use crate::wire::telemetry::EventType;
use crate::wire::telemetry::tool_execution::ExecutionStage;

/// So many calls without an id can be under way.
const MAX_LOOSE: usize = 1_000;

impl Builder {
    /// The call that the event belongs to; begun now when it is new.
    pub(super) fn llm(&mut self, note: &Note, event: &EventFact) -> Option<&mut Span> {
        let known = match event.request.is_empty() {
            false => self.requests.get(&event.request).copied(),
            // Without an id only an end or a retry finds its start, by the node.
            true if event.kind() == Some(EventType::LlmStart) => None,
            true => self.unfinished(SpanKind::Llm, &event.node, ""),
        };
        let index = known.unwrap_or_else(|| {
            let is_start = event.kind() == Some(EventType::LlmStart);
            let begun = Span::begun(SpanKind::Llm, event.model.clone(), note.time_us.filter(|_| is_start));
            let span = Span { node: event.node.clone(), ..begun };
            let parent = self.by_parent_id(note).or_else(|| self.home(&event.node));
            self.push(note, span, parent)
        });
        match event.request.is_empty() {
            false => drop(self.requests.insert(event.request.clone(), index)),
            true if known.is_none() => self.keep_loose(index),
            true => {}
        }
        self.place(index, &event.node);
        let span = self.tree.spans.get_mut(index)?;
        if span.name.is_empty() {
            span.name.clone_from(&event.model);
        }
        Some(span)
    }

    pub(super) fn llm_end(&mut self, note: &Note, event: &EventFact, status: SpanStatus) {
        if let Some(span) = self.llm(note, event) {
            span.end(note.time_us, event.duration_us, status);
            span.error.clone_from(&event.error);
        }
    }

    pub(super) fn chunk(&mut self, note: &Note, request: &str, model: &str, is_final: bool) {
        let index = self.requests.get(request).copied().unwrap_or_else(|| {
            let home = self.home("");
            let index = self.push(note, Span::begun(SpanKind::Llm, model.to_owned(), note.time_us), home);
            self.requests.insert(request.to_owned(), index);
            index
        });
        if let Some(span) = self.tree.spans.get_mut(index) {
            span.chunks = span.chunks.saturating_add(1);
            if is_final && span.status == SpanStatus::Unfinished {
                span.end(note.time_us, 0, SpanStatus::Done);
            }
        }
    }

    pub(super) fn tool_of_event(&mut self, note: &Note, event: &EventFact) -> Option<&mut Span> {
        let is_start = event.kind() == Some(EventType::ToolStart);
        let index = self.tool_span(note, &event.call, &event.tool, &event.node, is_start);
        self.place(index, &event.node);
        self.tree.spans.get_mut(index)
    }

    pub(super) fn tool_end(&mut self, note: &Note, event: &EventFact, status: SpanStatus) {
        if let Some(span) = self.tool_of_event(note, event) {
            span.end(note.time_us, event.duration_us, status);
            if !event.error.is_empty() {
                span.error.clone_from(&event.error);
            }
        }
    }

    pub(super) fn tool(&mut self, note: &Note, tool: &ToolFact) {
        let is_start = tool.stage == ExecutionStage::Requested;
        let index = self.tool_span(note, &tool.call, &tool.tool, "", is_start);
        let Some(span) = self.tree.spans.get_mut(index) else { return };
        span.retries = span.retries.max(tool.retries);
        if !tool.error.is_empty() {
            span.error.clone_from(&tool.error);
        }
        match tool.stage {
            ExecutionStage::Completed => span.end(note.time_us, tool.duration_us, SpanStatus::Done),
            ExecutionStage::Failed => span.end(note.time_us, tool.duration_us, SpanStatus::Failed),
            // Another attempt: what ended was not the call.
            ExecutionStage::Retrying => span.status = SpanStatus::Unfinished,
            ExecutionStage::Requested | ExecutionStage::Started | ExecutionStage::Unspecified => {}
        }
    }

    /// The call, by its id; without one, the one under way of that tool. All its stages are one call.
    fn tool_span(&mut self, note: &Note, call: &str, tool: &str, node: &str, is_start: bool) -> usize {
        let known = match call.is_empty() {
            false => self.calls.get(call).copied(),
            true if is_start => None,
            true => self.unfinished(SpanKind::Tool, node, tool),
        };
        let index = known.unwrap_or_else(|| {
            let parent = self.by_parent_id(note).or_else(|| self.home(node));
            let begun = Span::begun(SpanKind::Tool, tool.to_owned(), note.time_us);
            self.push(note, Span { node: node.to_owned(), ..begun }, parent)
        });
        match call.is_empty() {
            false => drop(self.calls.insert(call.to_owned(), index)),
            true if known.is_none() => self.keep_loose(index),
            true => {}
        }
        index
    }

    /// The last call of that kind that has not ended.
    fn unfinished(&self, kind: SpanKind, node: &str, name: &str) -> Option<usize> {
        let fits = |span: &Span| {
            span.kind == kind
                && span.status == SpanStatus::Unfinished
                && (node.is_empty() || span.node.is_empty() || span.node == node)
                && (name.is_empty() || span.name == name)
        };
        self.loose.iter().rev().copied().find(|index| self.tree.spans.get(*index).is_some_and(fits))
    }

    /// A call without an id is found again by where it belongs, as long as it has not ended. Of very many the last.
    fn keep_loose(&mut self, index: usize) {
        if self.loose.len() >= MAX_LOOSE {
            let spans = &self.tree.spans;
            self.loose.retain(|index| spans.get(*index).is_some_and(|span| span.status == SpanStatus::Unfinished));
            self.loose.drain(..self.loose.len().saturating_sub(MAX_LOOSE / 2));
        }
        self.loose.push(index);
    }

    /// A call lies in the execution of the node that it names. The first word about a call may not name it.
    fn place(&mut self, index: usize, node: &str) {
        let is_told = self.tree.spans.get(index).is_none_or(|span| node.is_empty() || span.node == node);
        if is_told {
            return;
        }
        let home = self.home(node).filter(|home| !self.lies_in(*home, index));
        if let Some(span) = self.tree.spans.get_mut(index) {
            node.clone_into(&mut span.node);
            span.parent = home.or(span.parent);
        }
    }

    /// Whether a span is, or lies somewhere in, another one.
    fn lies_in(&self, index: usize, outer: usize) -> bool {
        let above = |index: &usize| self.tree.spans.get(*index).and_then(|span| span.parent);
        std::iter::successors(Some(index), above).any(|index| index == outer)
    }
}
