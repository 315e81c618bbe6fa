//! A support desk: classifies a ticket, lets one of three specialists answer, checks the answer, and learns.

use super::{direct, when};
use crate::generate::graph::{Case, END, Graph, Node, NodeKind};

/// The graph.
pub static GRAPH: Graph = Graph {
    name: "support_triage",
    description: "Classifies a ticket, looks up the account, answers, and escalates what it cannot solve",
    state_type: "TicketState",
    entry: "classify",
    nodes: &NODES,
    edges: &[
        direct("classify", "look_up_account"),
        direct("look_up_account", "route"),
        when("billing", 40, "route", "billing_agent"),
        when("technical", 45, "route", "technical_agent"),
        when("angry_or_unclear", 15, "route", "human_agent"),
        direct("billing_agent", "check_answer"),
        direct("technical_agent", "search_knowledge_base"),
        direct("search_knowledge_base", "check_answer"),
        direct("human_agent", "check_answer"),
        when("passed", 80, "check_answer", "send_reply"),
        when("tone_or_facts_off", 20, "check_answer", "technical_agent"),
        direct("send_reply", END),
    ],
    cases: &CASES,
};

static NODES: [Node; 9] = [
    Node {
        name: "classify",
        description: "Names the topic, the mood and the language",
        kind: NodeKind::Llm { model: "atlas-small-2", sentences: 1 },
        reads: &["request", "messages"],
        writes: "classification",
        lines: &[
            "The ticket is about {subject}; the customer is polite and in a hurry.",
            "Topic: {subject}. Mood: annoyed, second contact this week.",
            "This is a question about {subject} from a long-standing customer.",
        ],
    },
    Node {
        name: "look_up_account",
        description: "Loads plan, history and open invoices",
        kind: NodeKind::Tool { tool: "crm_lookup" },
        reads: &["request"],
        writes: "account",
        lines: &["account history, last 90 days"],
    },
    Node {
        name: "route",
        description: "Chooses the specialist",
        kind: NodeKind::Router,
        reads: &["classification", "account"],
        writes: "queue",
        lines: &["The topic decides; the mood only decides between a specialist and a person."],
    },
    Node {
        name: "billing_agent",
        description: "Answers questions about invoices and plans",
        kind: NodeKind::Llm { model: "atlas-large-2", sentences: 4 },
        reads: &["request", "account"],
        writes: "answer",
        lines: &[
            "Thank you for writing to us about {subject}. I looked at your account.",
            "I am sorry for the confusion about {subject}. This is what happened.",
        ],
    },
    Node {
        name: "technical_agent",
        description: "Finds the cause and the way out",
        kind: NodeKind::Llm { model: "atlas-large-2", sentences: 4 },
        reads: &["request", "account", "articles"],
        writes: "answer",
        lines: &[
            "Thank you for the details about {subject}. The cause is on our side.",
            "I could reproduce the problem with {subject}, and there is a way around it today.",
        ],
    },
    Node {
        name: "search_knowledge_base",
        description: "Finds articles that fit the answer",
        kind: NodeKind::Tool { tool: "knowledge_base" },
        reads: &["answer"],
        writes: "articles",
        lines: &["{subject} troubleshooting", "{subject} how to"],
    },
    Node {
        name: "human_agent",
        description: "Hands the ticket to a person",
        kind: NodeKind::Human,
        reads: &["request", "account", "classification"],
        writes: "answer",
        lines: &["The customer asked for a person, and the history says that they should get one."],
    },
    Node {
        name: "check_answer",
        description: "Checks tone, facts and promises",
        kind: NodeKind::Validator,
        reads: &["answer", "account"],
        writes: "check",
        lines: &["tone", "facts match the account", "no promise without a date"],
    },
    Node {
        name: "send_reply",
        description: "Sends the answer and closes the ticket",
        kind: NodeKind::Tool { tool: "ticket_system" },
        reads: &["answer", "check"],
        writes: "ticket",
        lines: &["reply and set to pending"],
    },
];

static CASES: [Case; 4] = [
    Case {
        subject: "a double charge",
        request: "I was charged twice in October, 49 euros each. Please return one of them before Friday.",
        follow_up: "The money has not arrived yet. Can you check?",
        facts: &[
            "The first payment was refused by the bank and then accepted on the second attempt, so both were booked.",
            "The refund of 49 euros was started today and takes three to five working days.",
            "Your plan and your next invoice on the first of the month stay as they are.",
            "We have added a note to your account so that nobody asks you for the receipt again.",
            "If the amount is not there on Friday, answer to this message and it reaches me directly.",
        ],
        sources: &["invoice 2026-10-1187", "payment 77e1", "payment 77e4"],
    },
    Case {
        subject: "exports that time out",
        request: "Since Monday every export of more than 10,000 rows ends with an error after 30 seconds.",
        follow_up: "The export works now, but the dates are in another time zone.",
        facts: &[
            "Since Monday exports run behind a new gateway that ends requests after 30 seconds.",
            "Exports of more than 10,000 rows can be requested as a file: the link arrives by mail within a few minutes.",
            "The limit will be raised for exports this week; you will get a message when it has happened.",
            "Filtering by month keeps each export below the limit in the meantime.",
            "Your data is complete; only the download was cut off.",
        ],
        sources: &["status/2026-11-16", "article 318", "article 92"],
    },
    Case {
        subject: "a locked account",
        request: "I cannot log in any more since I changed my phone, and the reset mail never comes.",
        follow_up: "I am in. How do I add a second device?",
        facts: &[
            "The second factor was bound to the old phone, and the reset mail went to an address that bounced in March.",
            "After a short check of your identity the factor can be removed within the hour.",
            "Please have the number of a recent invoice ready; we never ask for your password.",
            "Ten recovery codes were created when you signed up; one of them lets you in at once.",
            "Adding a second device avoids this the next time.",
        ],
        sources: &["article 17", "mail log 2026-03-02", "article 203"],
    },
    Case {
        subject: "a webhook that fires twice",
        request: "Our webhook receives some order events twice, seconds apart, with the same id. Is that a bug?",
        follow_up: "For how long can the same event come again?",
        facts: &[
            "Events are delivered at least once: when an answer takes longer than five seconds the event is sent again.",
            "Both deliveries carry the same event id, so that the receiver can ignore the second.",
            "Your endpoint answered after 6.2 seconds on average yesterday; answering first and working later avoids the repetition.",
            "Repetitions stop after 24 hours or the first answer in the 200 range.",
            "The delivery log in the settings shows every attempt with its duration.",
        ],
        sources: &["article 140", "delivery log wh_5521", "article 141"],
    },
];
