//! The record decoder and the parser of control frames, file by file, for the fuzz targets.

#[path = "../../src/wire"]
pub mod wire {
    pub mod control;

    pub mod cursor;

    pub mod filter;

    pub mod framing;

    pub mod limits;

    pub mod rewrite;

    pub mod schema;

    mod varint;

    #[allow(clippy::all, reason = "generated code")]
    pub mod telemetry {
        include!(concat!(env!("OUT_DIR"), "/dashstream.v1.rs"));
    }
}

#[path = "../../src/pipeline"]
pub mod pipeline {
    pub mod decode;

    mod numbered;

    pub mod redact;

    pub mod sequence;
}

#[path = "../oracle.rs"]
pub mod oracle;
