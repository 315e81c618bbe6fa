//! A code reviewer: runs the checks in parallel, reads the change, and asks a person when it is serious.

use super::{direct, parallel, when};
use crate::generate::graph::{Case, END, Graph, Node, NodeKind};

/// The graph.
pub static GRAPH: Graph = Graph {
    name: "code_review",
    description: "Reviews a change: checks, a reading of the diff, and a person for what is serious",
    state_type: "ReviewState",
    entry: "fetch_diff",
    nodes: &NODES,
    edges: &[
        direct("fetch_diff", "start_checks"),
        parallel("start_checks", "lint"),
        parallel("start_checks", "security_scan"),
        parallel("start_checks", "run_tests"),
        direct("lint", "collect_checks"),
        direct("security_scan", "collect_checks"),
        direct("run_tests", "collect_checks"),
        direct("collect_checks", "review"),
        direct("review", "judge_severity"),
        when("blocking", 30, "judge_severity", "ask_maintainer"),
        when("minor", 70, "judge_severity", "post_comments"),
        when("approved", 75, "ask_maintainer", "post_comments"),
        when("look_again", 25, "ask_maintainer", "review"),
        direct("post_comments", END),
    ],
    cases: &CASES,
};

static NODES: [Node; 10] = [
    Node {
        name: "fetch_diff",
        description: "Loads the change from the forge",
        kind: NodeKind::Tool { tool: "forge_api" },
        reads: &["request"],
        writes: "diff",
        lines: &["GET /changes/{subject}/diff"],
    },
    Node {
        name: "start_checks",
        description: "Chooses the checks that the change needs",
        kind: NodeKind::Router,
        reads: &["diff"],
        writes: "checks",
        lines: &["The change touches code and its tests, so all checks apply."],
    },
    Node {
        name: "lint",
        description: "Formatting and lints",
        kind: NodeKind::Tool { tool: "lint_runner" },
        reads: &["diff"],
        writes: "lint_report",
        lines: &["lint --changed-only --deny warnings"],
    },
    Node {
        name: "security_scan",
        description: "Known vulnerabilities and risky patterns",
        kind: NodeKind::Tool { tool: "dependency_audit" },
        reads: &["diff"],
        writes: "security_report",
        lines: &["audit --advisories --patterns unsafe,secrets"],
    },
    Node {
        name: "run_tests",
        description: "The tests of the touched packages",
        kind: NodeKind::Tool { tool: "test_runner" },
        reads: &["diff"],
        writes: "test_report",
        lines: &["test --packages touched --shard 1/4", "test --packages touched --retry-flaky 1"],
    },
    Node {
        name: "collect_checks",
        description: "Joins the reports",
        kind: NodeKind::Aggregator,
        reads: &["lint_report", "security_report", "test_report"],
        writes: "check_summary",
        lines: &["match reports to lines", "drop findings outside of the diff"],
    },
    Node {
        name: "review",
        description: "Reads the change and comments on it",
        kind: NodeKind::Llm { model: "quill-coder-3", sentences: 5 },
        reads: &["diff", "check_summary", "messages"],
        writes: "comments",
        lines: &[
            "I read {subject} from the tests inwards.",
            "The intent of {subject} is clear; three places deserve a second look.",
            "Most of {subject} is moved code, so I compared it with where it came from.",
        ],
    },
    Node {
        name: "judge_severity",
        description: "Decides whether a person must look",
        kind: NodeKind::Router,
        reads: &["comments", "check_summary"],
        writes: "severity",
        lines: &[
            "One comment is about data that could be lost, so the severity follows from it, not from the number of comments.",
        ],
    },
    Node {
        name: "ask_maintainer",
        description: "Waits for a maintainer",
        kind: NodeKind::Human,
        reads: &["comments", "severity"],
        writes: "decision",
        lines: &["A blocking comment needs a maintainer before it is posted."],
    },
    Node {
        name: "post_comments",
        description: "Posts the comments to the forge",
        kind: NodeKind::Tool { tool: "forge_api" },
        reads: &["comments"],
        writes: "posted",
        lines: &["POST /changes/{subject}/comments"],
    },
];

static CASES: [Case; 4] = [
    Case {
        subject: "change 4182: retry queue",
        request: "Please review change 4182, it replaces the retry thread by a queue with backoff.",
        follow_up: "I pushed a fix for the shutdown path, please look again.",
        facts: &[
            "The queue is drained on shutdown, but an item that is being retried at that moment is neither finished nor put back.",
            "The delay doubles without a limit; after twenty failures it is longer than the process lives.",
            "The new test waits for two seconds instead of for the retry, so it will be slow everywhere and flaky on a busy machine.",
            "The log line prints the whole payload, which holds customer addresses.",
            "Naming the limit in the configuration instead of in the code would let operations change it.",
            "The happy path is simpler than before, and the old thread's leak is gone.",
        ],
        sources: &["src/retry/queue.rs:88", "src/retry/queue.rs:131", "tests/retry.rs:40"],
    },
    Case {
        subject: "change 4190: invoice rounding",
        request: "Review change 4190. It moves the rounding of invoices from floats to integer cents.",
        follow_up: "What about currencies without cents?",
        facts: &[
            "Amounts are now integers, but the tax rate is still multiplied as a float before it is rounded.",
            "Rounding each line and rounding the sum differ by up to one cent per line; the old invoices rounded the sum.",
            "The migration converts by truncation, so 19.99 stored as 19.989999 becomes 19.98.",
            "The test table covers zero and positive amounts; credit notes are negative.",
            "The display function divides by 100 and is wrong for yen.",
            "Removing the helper that formatted floats is a good sign: nothing uses it any more.",
        ],
        sources: &["billing/tax.py:57", "migrations/0042_cents.sql:12", "billing/format.py:9"],
    },
    Case {
        subject: "change 4207: image cache",
        request: "Could you review change 4207? It adds an in-memory cache in front of the thumbnailer.",
        follow_up: "I bounded it by bytes now. Is that enough?",
        facts: &[
            "The cache has no bound, and the key contains the query string, so a crawler can fill the memory.",
            "Two requests for the same image that miss together both render it; a single flight would halve the load after a deploy.",
            "The entry is written before the upload has been checked, so a broken file is served until the restart.",
            "The hit rate is computed but never exported.",
            "Eviction runs under the same lock as the lookup and takes as long as the cache is large.",
            "The interface is small enough to be replaced later without touching the callers.",
        ],
        sources: &["media/cache.go:33", "media/handler.go:71", "media/cache_test.go:15"],
    },
    Case {
        subject: "change 4211: login throttling",
        request: "Review change 4211, which throttles failed logins per account and per address.",
        follow_up: "Would a shared counter in the database be better?",
        facts: &[
            "The counter is kept per process, so with four processes the limit is four times what it says.",
            "An attacker can lock an account by failing on purpose; the limit per address should come first.",
            "The forwarded address is taken from the left of the header, which the client controls.",
            "A throttled answer returns faster than a wrong password, which tells them apart.",
            "The time window uses the wall clock and jumps with it.",
            "The audit event is written in both cases, which was missing before.",
        ],
        sources: &["auth/throttle.ts:24", "auth/client-address.ts:12", "auth/login.ts:96"],
    },
];
