//! Any bytes: the validator and prost agree.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoder::oracle::compare(bytes);
});
