//! Decisions, as pure functions and state machines.
//!
//! Nothing here knows actix, tokio, a clock, randomness, a socket, a log or a metric: time and random numbers are
//! arguments, outcomes are return values. That is what makes the promise testable.

pub mod ranges;
pub mod record;

pub mod credit;

pub mod epoch;

pub mod decode;

pub mod redact;

mod numbered;

pub mod safe_judge;

pub mod dead_letter;

pub mod trace_parent;

pub mod letters;

pub mod letter_pace;

pub mod sequence;

pub mod settled;

pub mod assemble;

pub mod page;

pub mod replay_plan;

pub mod verdict;

pub mod window;

pub mod write_order;

pub mod retention;

pub mod tags;

pub mod threads;

pub mod filter;

pub mod sieve;

pub mod manual_reset;

pub mod topic_plan;

pub mod start;

pub mod pacing;

pub mod allowance;

pub mod lag;

pub mod apply_lag;

pub mod health;

pub mod backoff;

pub mod restart;

pub mod flood;
