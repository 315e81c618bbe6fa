//! A call of a language model: asked, maybe retried, streamed token by token, and counted.

use serde_json::json;

use super::graph::Node;
use super::message::{counter, event, flag, gauge, pairs};
use super::plan::{Deed, Planner, micros};
use super::state::Change;
use super::work::{Failure, Work};
use crate::wire::telemetry::dash_stream_message::Message;
use crate::wire::telemetry::token_chunk::FinishReason;
use crate::wire::telemetry::{AttributeValue, EventType, Metrics, TokenChunk, TokenStats};

impl Planner<'_> {
    pub(super) fn ask_model(&mut self, node: &Node, model: &str, sentences: usize, at: u64) -> Result<Work, Failure> {
        let request = format!("req-{:012x}", self.rng.u64(..1 << 48));
        let llm = |kind, attributes: Vec<(&str, AttributeValue)>| {
            let mut told = event(kind, node.name, [("model", model.into())]);
            told.attributes.extend(attributes.into_iter().map(|(name, value)| (name.to_owned(), value)));
            told.llm_request_id.clone_from(&request);
            told
        };
        let prompt_tokens = self.rng.u32(280..2_900);
        let start = at + self.between(4, 18);
        let prompt = format!("{}. {}", node.description, self.case.request);
        let asked = vec![
            ("prompt", prompt.into()),
            ("temperature", 0.2.into()),
            ("max_tokens", 1024.into()),
            ("prompt_tokens", i64::from(prompt_tokens).into()),
        ];
        self.event(start, llm(EventType::LlmStart, asked));
        let mut now = start + self.between(280, 900);
        if self.chance(self.failure_rate) {
            let delay_ms = self.rng.i64(800..2_500);
            let reason = "429 too many requests: the model's token rate is used up";
            let retry = vec![("attempt", 1.into()), ("reason", reason.into()), ("delay_ms", delay_ms.into())];
            self.event(now, llm(EventType::LlmRetry, retry));
            now += delay_ms.unsigned_abs() * 1_000 + self.between(250, 600);
        }
        if self.chance(self.failure_rate * 0.12) {
            let failure = context_overflow(now, prompt_tokens);
            let mut failed = llm(EventType::LlmError, vec![("error", failure.message.as_str().into())]);
            failed.duration_us = micros(now - start);
            self.event(now, failed);
            return Err(failure);
        }
        let text = self.compose(node, sentences);
        let (last, completion_tokens) = self.stream(&text, &request, model, prompt_tokens, now);
        let end_us = last + self.between(2, 8);
        let cost = f64::from(prompt_tokens) * 3e-6 + f64::from(completion_tokens) * 15e-6;
        let cost = (cost * 1e6).round() / 1e6;
        let mut ended = llm(
            EventType::LlmEnd,
            vec![
                ("prompt_tokens", i64::from(prompt_tokens).into()),
                ("completion_tokens", i64::from(completion_tokens).into()),
                ("finish_reason", "stop".into()),
                ("cost_usd", cost.into()),
            ],
        );
        ended.duration_us = micros(end_us - start);
        self.event(end_us, ended);
        self.node_metrics(node, end_us + 300, prompt_tokens, completion_tokens, cost, end_us - start);
        let changes = vec![
            Change::Append("messages", json!({"role": "assistant", "name": node.name, "content": text})),
            Change::Set(node.writes, text.into()),
            Change::Count("budget", "spent_tokens", u64::from(prompt_tokens + completion_tokens)),
        ];
        Ok(Work { end_us: end_us + 900, changes, prompt_tokens, completion_tokens })
    }

    /// An opening of the node's own, then facts of the case in a fresh order.
    fn compose(&mut self, node: &Node, sentences: usize) -> String {
        let mut text = self.choose(node.lines).replace("{subject}", self.case.subject);
        let mut facts = self.case.facts.to_vec();
        self.rng.shuffle(&mut facts);
        for fact in facts.into_iter().take(sentences) {
            text.push(' ');
            text.push_str(fact);
        }
        text
    }

    /// Plans the chunks of an answer. Gives the time of the last and the number of tokens.
    fn stream(&mut self, text: &str, request: &str, model: &str, prompt_tokens: u32, mut now: u64) -> (u64, u32) {
        let words: Vec<_> = text.split_inclusive(' ').collect();
        let tokens = |words: usize| u32::try_from(words + words / 3).unwrap_or(u32::MAX);
        let completion_tokens = tokens(words.len());
        let (mut sent, mut index) = (0, 0);
        while sent < words.len() {
            let take = self.rng.usize(1..=5).min(words.len() - sent);
            let piece = words.get(sent..sent + take).unwrap_or_default();
            sent += take;
            let is_final = sent == words.len();
            let finish_reason = if is_final { FinishReason::Stop } else { FinishReason::None };
            let chunk = TokenChunk {
                header: None,
                request_id: request.to_owned(),
                text: piece.concat(),
                token_ids: Vec::new(),
                logprobs: Vec::new(),
                chunk_index: index,
                is_final,
                finish_reason: finish_reason.into(),
                model: model.to_owned(),
                stats: is_final.then(|| TokenStats {
                    prompt_tokens,
                    completion_tokens,
                    total_tokens: prompt_tokens + completion_tokens,
                }),
            };
            self.push(now, Deed::Send(Box::new(Message::TokenChunk(chunk))));
            index += 1;
            now += self.between(18, 46) * take as u64;
        }
        (now, completion_tokens)
    }

    fn node_metrics(&mut self, node: &Node, at: u64, prompt: u32, completion: u32, cost: f64, took_us: u64) {
        let values = [
            ("tokens_prompt", counter(u64::from(prompt), "tokens")),
            ("tokens_completion", counter(u64::from(completion), "tokens")),
            ("tokens_total", counter(u64::from(prompt + completion), "tokens")),
            ("cost_usd", gauge(cost, "usd")),
            ("duration_us", counter(took_us, "us")),
            ("cache_hit", flag(self.chance(0.3))),
        ];
        let metrics = Metrics {
            header: None,
            scope: "node".to_owned(),
            scope_id: node.name.to_owned(),
            metrics: values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            tags: pairs([("graph", self.graph.name.to_owned())]),
        };
        self.push(at, Deed::Send(Box::new(Message::Metrics(metrics))));
    }
}

fn context_overflow(at_us: u64, prompt_tokens: u32) -> Failure {
    Failure {
        at_us,
        code: "LLM_CONTEXT_OVERFLOW",
        message: format!("the prompt needs {} tokens, the model takes 128000", 128_000 + u64::from(prompt_tokens)),
        exception: "ContextOverflowError",
        stack_trace:
            "ContextOverflowError: prompt too long\n  at client.complete (llm/client.py:212)\n  at LlmNode.run \
                      (graph/nodes.py:88)\n  at Executor.step (graph/executor.py:301)"
                .to_owned(),
        suggestion: "shorten the history before this node",
    }
}
