//! The Redis tier of the history: shared by instances, kept over restarts. The only place that knows redis.
//!
//! One stream per epoch and partition, one entry per chunk. An entry's id is the last offset that it covers, so
//! `XRANGE key cursor +` begins with the entry that holds the cursor, and what is covered is read off the entries
//! themselves: a write that failed or was dropped is a hole between two of them, and never served as anything else.
//! It must not know actors.

pub mod settings;

pub mod fault;

pub mod state;

pub mod connect;

pub mod keys;

mod block;

mod contradiction;

pub mod writer;

pub mod reader;

pub mod forget;
