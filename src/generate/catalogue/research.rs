//! A research assistant: plans, searches three places at once, drafts, criticises itself, and publishes.

use super::{direct, parallel, when};
use crate::generate::graph::{Case, END, Graph, Node, NodeKind};

/// The graph.
pub static GRAPH: Graph = Graph {
    name: "research_assistant",
    description: "Answers a question from several sources and checks its own draft before it publishes it",
    state_type: "ResearchState",
    entry: "plan",
    nodes: &NODES,
    edges: &[
        direct("plan", "choose_sources"),
        parallel("choose_sources", "search_web"),
        parallel("choose_sources", "search_papers"),
        parallel("choose_sources", "search_internal_docs"),
        direct("search_web", "merge_findings"),
        direct("search_papers", "merge_findings"),
        direct("search_internal_docs", "merge_findings"),
        direct("merge_findings", "draft"),
        direct("draft", "critique"),
        when("needs_revision", 35, "critique", "draft"),
        when("good_enough", 65, "critique", "publish"),
        direct("publish", END),
    ],
    cases: &CASES,
};

static NODES: [Node; 9] = [
    Node {
        name: "plan",
        description: "Breaks the question into steps",
        kind: NodeKind::Llm { model: "atlas-large-2", sentences: 3 },
        reads: &["request", "messages"],
        writes: "plan",
        lines: &[
            "First I will find out what has been measured about {subject}, and by whom.",
            "To answer this I need recent figures on {subject}, one independent source and our own notes.",
            "The question has two parts: what is known about {subject}, and what it means for us.",
        ],
    },
    Node {
        name: "choose_sources",
        description: "Decides where to look",
        kind: NodeKind::Router,
        reads: &["plan"],
        writes: "sources",
        lines: &["The plan asks for figures and for opinion, so all three sources are worth a look."],
    },
    Node {
        name: "search_web",
        description: "Searches the public web",
        kind: NodeKind::Tool { tool: "web_search" },
        reads: &["plan"],
        writes: "web_results",
        lines: &["{subject} overview 2026", "{subject} comparison", "{subject} pitfalls"],
    },
    Node {
        name: "search_papers",
        description: "Searches published papers",
        kind: NodeKind::Tool { tool: "paper_search" },
        reads: &["plan"],
        writes: "papers",
        lines: &["{subject} measurement study", "{subject} survey"],
    },
    Node {
        name: "search_internal_docs",
        description: "Searches the company's own documents",
        kind: NodeKind::Tool { tool: "document_index" },
        reads: &["plan"],
        writes: "internal_docs",
        lines: &["{subject} decision record", "{subject} incident"],
    },
    Node {
        name: "merge_findings",
        description: "Ranks what was found and drops repetitions",
        kind: NodeKind::Aggregator,
        reads: &["web_results", "papers", "internal_docs"],
        writes: "findings",
        lines: &["rank by agreement", "drop repetitions", "keep the five strongest"],
    },
    Node {
        name: "draft",
        description: "Writes the answer",
        kind: NodeKind::Llm { model: "atlas-large-2", sentences: 6 },
        reads: &["findings", "critique"],
        writes: "draft",
        lines: &[
            "Here is what the sources say about {subject}.",
            "The short answer on {subject} is that it depends on two things, and both can be measured.",
            "On {subject} the sources agree more than they differ.",
        ],
    },
    Node {
        name: "critique",
        description: "Looks for claims without a source",
        kind: NodeKind::Llm { model: "atlas-small-2", sentences: 2 },
        reads: &["draft", "findings"],
        writes: "critique",
        lines: &[
            "The draft answers the question, but one claim about {subject} has no source.",
            "Every figure in the draft can be traced to a finding.",
            "The second paragraph repeats the first; say once what matters about {subject}.",
        ],
    },
    Node {
        name: "publish",
        description: "Formats the answer with its sources",
        kind: NodeKind::Transform,
        reads: &["draft", "findings"],
        writes: "answer",
        lines: &["resolve citations", "render markdown"],
    },
];

static CASES: [Case; 4] = [
    Case {
        subject: "heat pumps in old buildings",
        request: "Do heat pumps work in houses built before 1950, and what do they cost to run?",
        follow_up: "How much of that changes if the radiators stay as they are?",
        facts: &[
            "A field study of 340 houses found a mean seasonal performance factor of 3.1, and 2.7 in houses with single glazing.",
            "The flow temperature matters more than the age of the house: below 50 degrees the running cost is close to that of gas.",
            "In two out of three houses only the smallest radiators had to be replaced.",
            "Noise was the most frequent complaint, and was mostly solved by moving the outdoor unit.",
            "Owners who had the heating curve adjusted after the first winter used 14 percent less electricity in the second.",
            "The installation cost varies by a factor of two between regions for the same equipment.",
        ],
        sources: &[
            "energy-field-trials.example/2025-report",
            "Journal of Building Physics 48(2)",
            "wiki/heating-retrofit",
        ],
    },
    Case {
        subject: "battery storage for small shops",
        request: "Is a 20 kWh battery worth it for a bakery that starts its ovens at three in the morning?",
        follow_up: "And with a tariff that is cheap at night?",
        facts: &[
            "The load of a bakery peaks between three and six, when solar output is zero, so the battery carries yesterday's sun.",
            "With a flat tariff the payback is eleven to fourteen years; the warranty usually ends after ten.",
            "Peak shaving saves more than self-consumption where the grid fee depends on the highest quarter of an hour.",
            "Two of the five shops in the trial had sized the battery by its price and not by their load.",
            "A used battery of 70 percent health costs about a third and still covers the morning peak.",
            "The inverter limits the usable power to 10 kW, which is below the draw of two ovens.",
        ],
        sources: &["shop-energy.example/batteries", "Applied Storage Letters 12", "notes/tariff-model"],
    },
    Case {
        subject: "sleep and shift work",
        request: "What helps night-shift nurses to sleep better during the day?",
        follow_up: "Which of these have been tested for longer than a year?",
        facts: &[
            "Forward-rotating shifts with at least eleven hours between them shortened the time to fall asleep by 19 minutes.",
            "Dark glasses on the way home had a small effect, a dark bedroom a large one.",
            "A nap of 20 to 30 minutes before the shift reduced reported errors in the last two hours.",
            "Melatonin helped with falling asleep but not with staying asleep.",
            "Fixed nights were better for sleep than quick rotation, and worse for everything else.",
            "Only four of the thirty-one studies followed the participants for more than twelve months.",
        ],
        sources: &["sleep-review.example/shift-work", "Occupational Medicine Reports 77", "wiki/rostering-rules"],
    },
    Case {
        subject: "columnar file formats",
        request: "Which columnar format should we use for event data that is read once a day and appended every minute?",
        follow_up: "What does compaction cost us per day?",
        facts: &[
            "Small files cost more than the format: at one file a minute the planner spends longer listing than reading.",
            "Compaction once an hour into files of 256 MB made the daily read nine times faster in our own test.",
            "Dictionary encoding pays off for the tenant and event type columns and not for identifiers.",
            "All three formats read within 15 percent of each other when the files have the same size and sort order.",
            "Sorting by tenant before writing halves the bytes that a tenant report has to touch.",
            "The table layer decides about late events and deletes; the file format does not.",
        ],
        sources: &["data-formats.example/benchmark", "Storage Systems Workshop 2026", "adr/0017-event-lake"],
    },
];
