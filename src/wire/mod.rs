//! Bytes to types and back: no IO, no clock, no policy.

pub mod framing;

pub mod schema;

pub mod rewrite;

#[cfg(test)]
mod schema_tests;

pub mod control;

pub mod filter;

pub mod cursor;

pub mod close_code;

pub mod frame_gate;

pub mod stream_frame;

pub mod stream_parse;

pub mod ws_frame;

pub mod limits;

mod varint;

/// The telemetry messages of the producers, generated from `proto/dashstream.proto`.
#[allow(clippy::all, missing_docs, reason = "generated code")]
pub mod telemetry {
    include!(concat!(env!("OUT_DIR"), "/dashstream.v1.rs"));
}

/// The binary frames of the browser protocol, generated from `proto/stream.proto`.
#[allow(clippy::all, missing_docs, reason = "generated code")]
pub mod stream {
    include!(concat!(env!("OUT_DIR"), "/dashstream.stream.v2.rs"));
}
