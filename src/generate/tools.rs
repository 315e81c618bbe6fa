//! What tools are asked, what they answer, and how they fail.

use fastrand::Rng;
use serde_json::{Value, json};

use super::graph::Case;
use super::work::Failure;

/// The arguments of a call.
pub fn arguments(tool: &str, line: &str, case: &Case) -> Value {
    let line = line.replace("{subject}", case.subject);
    match tool {
        "web_search" | "paper_search" | "document_index" | "knowledge_base" => {
            json!({"query": line, "limit": 5, "language": "en"})
        }
        "forge_api" => json!({"call": line, "accept": "application/json"}),
        "lint_runner" | "dependency_audit" | "test_runner" => json!({"command": line, "timeout_s": 600}),
        _ => json!({"request": line, "subject": case.subject}),
    }
}

/// The result of a call that went well.
pub fn result(tool: &str, case: &Case, rng: &mut Rng) -> Value {
    match tool {
        "web_search" | "paper_search" | "document_index" | "knowledge_base" => {
            let mut facts = case.facts.to_vec();
            rng.shuffle(&mut facts);
            let found = rng.usize(2..=4);
            let hits: Vec<_> = facts
                .into_iter()
                .take(found)
                .zip(case.sources.iter().cycle())
                .map(|(fact, source)| json!({"source": source, "snippet": fact, "score": score(rng)}))
                .collect();
            json!({"hits": hits, "total": rng.u32(5..4_000)})
        }
        "forge_api" => json!({
            "status": 200, "subject": case.subject, "files": case.sources,
            "added": rng.u32(12..640), "removed": rng.u32(0..400),
        }),
        "lint_runner" | "dependency_audit" | "test_runner" => {
            let noted = rng.usize(0..=2);
            let findings: Vec<_> = case
                .sources
                .iter()
                .zip(case.facts)
                .take(noted)
                .map(|(place, text)| json!({"place": place, "text": text}))
                .collect();
            json!({"passed": findings.is_empty(), "checked": rng.u32(20..900), "findings": findings})
        }
        "crm_lookup" => json!({
            "customer": format!("c-{}", rng.u32(10_000..99_999)), "plan": "team", "since": "2023-04-18",
            "open_tickets": rng.u32(0..3), "records": case.sources,
        }),
        "ticket_system" => json!({"ticket": format!("T-{}", rng.u32(40_000..49_999)), "status": "pending"}),
        _ => json!({"ok": true}),
    }
}

/// How a call fails at that time.
pub fn failure(tool: &str, at_us: u64, rng: &mut Rng) -> Failure {
    let (code, exception, message, suggestion) = match rng.u8(..3) {
        0 => (
            "TOOL_TIMEOUT",
            "TimeoutError",
            format!("{tool} did not answer within 8000 ms"),
            "raise the tool's timeout or ask for less",
        ),
        1 => (
            "TOOL_UNAVAILABLE",
            "ConnectionError",
            format!("{tool}: connection refused by upstream (503)"),
            "check the status page of the tool",
        ),
        _ => (
            "TOOL_BAD_ANSWER",
            "JSONDecodeError",
            format!("{tool} answered with something that is not JSON: '<html><head><title>502'"),
            "the proxy in front of the tool returns its own error page",
        ),
    };
    let stack_trace = format!(
        "{exception}: {message}\n  at call_tool (tools/{tool}.py:{})\n  at ToolNode.run (graph/nodes.py:141)\n  at \
         Executor.step (graph/executor.py:301)\n  at Executor.run (graph/executor.py:188)",
        rng.u32(20..240)
    );
    Failure { at_us, code, message, exception, stack_trace, suggestion }
}

fn score(rng: &mut Rng) -> f64 {
    f64::from(rng.u32(610..990)) / 1000.0
}
