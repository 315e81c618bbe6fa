//! What system tests stand on: services, topics, an independent producer, independent clients, faults.
//!
//! Independent means: of the service's code only the generated protobuf types are used. The harness is the judge, so it
//! may not share the defendant's mistakes.

// Each helper is there for some test; a test binary that is cut down with a filter still compiles all of them.
#![allow(dead_code, reason = "a toolbox: not every tool is in use at every time")]

pub mod authority;

pub mod bare_reader;

pub mod client;

pub mod command;

pub mod contract;

pub mod dead_letters;

pub mod eventually;

pub mod json_schema;

pub mod judgements;

pub mod load;

pub mod producer;

pub mod prometheus;

pub mod raw;

pub mod redis_streams;

pub mod records;

pub mod service;

pub mod services;

pub mod socket;

pub mod swarm;

pub mod token;

pub mod topic;

pub mod v1_client;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The runtime of all clients and admin calls. Tests themselves are plain blocking functions.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("harness")
            .enable_all()
            .build()
            .expect("a tokio runtime")
    })
}

/// A name that no other test, process or earlier run uses: `<what>-<process>-<count>-<random>`.
pub fn unique_name(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{what}-{}-{count}-{:06x}", std::process::id(), fastrand::u32(..0x0100_0000))
}
