//! Any record value, in both framing modes: a verdict without a panic, bounded output, and nothing left behind by a record
//! that is set aside.
#![no_main]

use decoder::pipeline::decode::{Judge, JudgeSettings, Verdict};

libfuzzer_sys::fuzz_target!(|value: &[u8]| {
    for legacy_framing in [false, true] {
        let settings = JudgeSettings {
            max_payload_bytes: 4096,
            max_decompressed_bytes: 1 << 20,
            legacy_framing,
            ..JudgeSettings::default()
        };
        let (mut judge, mut items) = (Judge::new(settings, 7), Vec::new());
        match judge.judge(Some(value), &mut items) {
            Verdict::Deliver(meta) => assert_eq!(meta.items_len as usize, items.len()),
            Verdict::Unprocessable(kind) => {
                assert!(items.is_empty());
                assert!(!judge.explain(Some(value)).error.is_empty(), "{kind:?}");
            }
        }
    }
});
