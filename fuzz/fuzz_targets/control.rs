//! Any text frame of a client, in both dialects: taken or refused with a bounded answer, never a panic; positions come out
//! ascending and exact.
#![no_main]

use decoder::wire::control::{ClientFrame, Dialect, parse};

libfuzzer_sys::fuzz_target!(|text: &str| {
    for dialect in [Dialect::V1, Dialect::V2] {
        match parse(text, dialect) {
            Ok(ClientFrame::Hello(resume) | ClientFrame::Resume(resume)) => {
                assert!(resume.last_applied.is_sorted());
                assert!(resume.last_applied.iter().all(|(partition, offset)| *partition >= 0 && *offset >= -1));
            }
            Ok(_) => {}
            Err(error) => assert!(error.to_json().len() < 4096),
        }
    }
});
