//! Any record value, in both framing modes: a verdict without a panic, bounded output, and nothing left behind by a record
//! that is set aside. A record of which something was blacked out is judged as before.
#![no_main]

use std::sync::{Arc, LazyLock};

use decoder::pipeline::decode::{Judge, JudgeSettings, Verdict};
use decoder::pipeline::redact::Rules;

static RULES: LazyLock<Arc<Rules>> = LazyLock::new(|| {
    let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    Arc::new(Rules::new(&list(&["**.a", "*.value", "event_batch.**"]), &list(&["b+", "[0-9]{3}"])).expect("rules"))
});

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
        blacken(value, legacy_framing);
    }
});

fn blacken(value: &[u8], legacy_framing: bool) {
    let limits = JudgeSettings { max_payload_bytes: 64 << 20, legacy_framing, ..JudgeSettings::default() };
    let settings = JudgeSettings { redaction: Some(Arc::clone(&RULES)), ..limits.clone() };
    let (mut judge, mut items) = (Judge::new(settings, 7), Vec::new());
    let verdict = judge.judge(Some(value), &mut items);
    let Some(black) = judge.take_redacted() else { return };
    let mut same = Vec::new();
    assert_eq!(Judge::new(limits, 7).judge(Some(&black), &mut same), verdict);
    assert_eq!(same, items);
}
