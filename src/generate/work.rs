//! What a node does while it runs, by its kind: models stream tokens, tools are called and retried, people are asked.

use serde_json::json;

use super::graph::{Node, NodeKind};
use super::message::{event, pairs};
use super::plan::{Deed, Planner, micros};
use super::state::Change;
use super::tools;
use crate::wire::telemetry::dash_stream_message::Message;
use crate::wire::telemetry::tool_execution::ExecutionStage;
use crate::wire::telemetry::{Error, Event, EventType, ToolExecution, error};

/// A node's work that went well.
#[derive(Debug, Default)]
pub struct Work {
    /// When it ended, in microseconds since the start of the run.
    pub end_us: u64,
    /// What it changed.
    pub changes: Vec<Change>,
    /// Tokens that it read.
    pub prompt_tokens: u32,
    /// Tokens that it wrote.
    pub completion_tokens: u32,
}

/// A node's work that did not.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When, in microseconds since the start of the run.
    pub at_us: u64,
    /// A word for machines.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
    /// The exception's type.
    pub exception: &'static str,
    /// Where in the code.
    pub stack_trace: String,
    /// What to do.
    pub suggestion: &'static str,
}

impl Failure {
    /// As the message that tells it.
    pub fn to_error(&self, node: &str) -> Error {
        Error {
            header: None,
            error_code: self.code.to_owned(),
            message: self.message.clone(),
            stack_trace: self.stack_trace.clone(),
            context: pairs([("node", node.to_owned())]),
            severity: error::Severity::Error.into(),
            exception_type: self.exception.to_owned(),
            suggestions: vec![self.suggestion.to_owned()],
        }
    }
}

impl Planner<'_> {
    /// Plans everything between a node's start and its end.
    pub(super) fn work(&mut self, node: &'static Node, at: u64) -> Result<Work, Failure> {
        match node.kind {
            NodeKind::Llm { model, sentences } => self.ask_model(node, model, sentences, at),
            NodeKind::Tool { tool } => self.call_tool(node, tool, at),
            NodeKind::Router => Ok(self.route(node, at)),
            NodeKind::Aggregator => Ok(self.aggregate(node, at)),
            NodeKind::Validator => Ok(self.validate(node, at)),
            NodeKind::Human => Ok(self.ask_person(node, at)),
            NodeKind::Transform => Ok(self.transform(node, at)),
        }
    }

    fn call_tool(&mut self, node: &Node, tool: &str, at: u64) -> Result<Work, Failure> {
        let call = format!("call-{:010x}", self.rng.u64(..1 << 40));
        let arguments = tools::arguments(tool, self.choose(node.lines), self.case);
        let result = tools::result(tool, self.case, self.rng);
        let tell = |stage: ExecutionStage| ToolExecution {
            header: None,
            call_id: call.clone(),
            tool_name: tool.to_owned(),
            stage: stage.into(),
            ..Default::default()
        };
        let event_of = |kind| event(kind, node.name, [("tool_name", tool.into()), ("call_id", call.as_str().into())]);
        let send = |planner: &mut Self, at, body| planner.push(at, Deed::Send(Box::new(Message::ToolExecution(body))));
        let requested = ToolExecution { arguments: arguments.to_string().into(), ..tell(ExecutionStage::Requested) };
        let asked = at + self.between(1, 4);
        send(self, asked, requested);
        self.event(asked + 500, event_of(EventType::ToolStart));
        let mut now = asked + self.between(1, 5);
        let mut attempt = 0;
        loop {
            send(self, now, ToolExecution { retry_count: attempt, ..tell(ExecutionStage::Started) });
            let started = now;
            now += self.between(120, 1_600);
            if !self.chance(self.failure_rate * 1.5) {
                let completed = ToolExecution {
                    result: result.to_string().into(),
                    duration_us: micros(now - started),
                    retry_count: attempt,
                    ..tell(ExecutionStage::Completed)
                };
                send(self, now, completed);
                let mut ended = event_of(EventType::ToolEnd);
                ended.duration_us = micros(now - started);
                self.event(now + 400, ended);
                let changes = vec![Change::Set(node.writes, result)];
                return Ok(Work { end_us: now + 800, changes, ..Default::default() });
            }
            now += self.between(900, 3_000);
            let failure = tools::failure(tool, now, self.rng);
            let failed = ToolExecution {
                error: failure.message.clone(),
                error_details: Some(failure.to_error(node.name)),
                duration_us: micros(now - started),
                retry_count: attempt,
                ..tell(ExecutionStage::Failed)
            };
            send(self, now, failed);
            if attempt == 2 {
                let mut ended = event_of(EventType::ToolError);
                ended.attributes.insert("error".to_owned(), failure.message.as_str().into());
                self.event(now + 400, ended);
                return Err(Failure { at_us: now + 800, ..failure });
            }
            attempt += 1;
            send(self, now + 600, ToolExecution { retry_count: attempt, ..tell(ExecutionStage::Retrying) });
            now += self.between(200, 500) << attempt;
        }
    }

    fn route(&mut self, node: &Node, at: u64) -> Work {
        let thought = self.choose(node.lines);
        let thinking = event(EventType::NodeThinking, node.name, [("thought", thought.into()), ("step", 1.into())]);
        self.event(at + 2_000, thinking);
        let end_us = at + self.between(12, 70);
        Work { end_us, changes: vec![Change::Set(node.writes, json!({"reason": thought}))], ..Default::default() }
    }

    /// Its small steps go out together, as the batching of producers does it.
    fn aggregate(&mut self, node: &Node, at: u64) -> Work {
        let mut events: Vec<Event> = Vec::new();
        for (index, line) in node.lines.iter().enumerate() {
            for status in ["started", "completed"] {
                let attributes = [("substep_name", (*line).into()), ("status", status.into())];
                events.push(event(EventType::NodeSubstep, node.name, attributes));
            }
            let percent = (index + 1) * 100 / node.lines.len();
            events.push(progress(node, line, percent));
        }
        let end_us = at + self.between(40, 160);
        self.push(end_us - 1_000, Deed::Batch(events));
        if self.chance(self.failure_rate) {
            let warning = "two sources contradict each other; the newer one is kept";
            self.event(end_us - 500, event(EventType::NodeWarning, node.name, [("message", warning.into())]));
        }
        let kept: Vec<_> = self.case.facts.iter().take(self.rng.usize(3..=5)).collect();
        Work { end_us, changes: vec![Change::Set(node.writes, json!(kept))], ..Default::default() }
    }

    fn validate(&mut self, node: &Node, at: u64) -> Work {
        let mut now = at;
        let mut scores = serde_json::Map::new();
        for (index, line) in node.lines.iter().enumerate() {
            now += self.between(20, 90);
            self.event(now, progress(node, line, (index + 1) * 100 / node.lines.len()));
            let score = f64::from(self.rng.u32(720..995)) / 1000.0;
            scores.insert((*line).to_owned(), score.into());
        }
        let changes = vec![Change::Set(node.writes, scores.into())];
        Work { end_us: now + 2_000, changes, ..Default::default() }
    }

    fn ask_person(&mut self, node: &Node, at: u64) -> Work {
        let question = self.choose(node.lines);
        let interrupt = event(
            EventType::HumanInterrupt,
            node.name,
            [("question", question.into()), ("channel", "review-desk".into())],
        );
        let asked = self.event(at + 3_000, interrupt);
        let answered = asked + self.between(3_000, 12_000);
        let person = self.choose(&["m.okafor", "j.lindqvist", "s.tanaka", "r.haddad"]);
        let note = self.choose(&[
            "Fine by me, go on.",
            "I called the customer, this is settled.",
            "Agreed, but keep the tone friendly.",
            "Please mention the workaround first.",
        ]);
        let mut resume = event(EventType::HumanResume, node.name, [("by", person.into()), ("note", note.into())]);
        resume.duration_us = micros(answered - asked);
        self.event(answered, resume);
        let changes = vec![
            Change::Set(node.writes, json!({"by": person, "note": note})),
            Change::Append("messages", json!({"role": "human", "name": person, "content": note})),
        ];
        Work { end_us: answered + 1_500, changes, ..Default::default() }
    }

    fn transform(&mut self, node: &Node, at: u64) -> Work {
        let mut now = at;
        for (index, line) in node.lines.iter().enumerate() {
            now += self.between(8, 45);
            self.event(now, progress(node, line, (index + 1) * 100 / node.lines.len()));
        }
        let answer = json!({"title": self.case.subject, "sources": self.case.sources, "format": "markdown"});
        let changes = vec![Change::Set(node.writes, answer), Change::Remove("critique")];
        Work { end_us: now + 1_000, changes, ..Default::default() }
    }
}

fn progress(node: &Node, line: &str, percent: usize) -> Event {
    let percent = percent as f64;
    event(EventType::NodeProgress, node.name, [("message", line.into()), ("percent", percent.into())])
}
