//! The state of a run: rebuilt as it was, or said to be unknown.

use serde_json::json;

use super::super::item::{Body, Item};
use super::super::make;
use super::*;
use crate::wire::telemetry::diff_operation::{OpType, ValueEncoding};
use crate::wire::telemetry::{CompressionInfo, DiffOperation, EventType, ExecutionTrace};

fn hash(value: &Value) -> Vec<u8> {
    Sha256::digest(canonical(value)).to_vec()
}

fn start(state: &Value) -> Item {
    make::text(make::event(1, 1, EventType::GraphStart, ""), "initial_state_json", &state.to_string())
}

fn set(path: &str, value: &Value) -> DiffOperation {
    DiffOperation {
        op: OpType::Add.into(),
        path: path.to_owned(),
        value: value.to_string().into_bytes(),
        from: String::new(),
        encoding: ValueEncoding::Json.into(),
    }
}

fn diff(sequence: u64, operations: Vec<DiffOperation>, state_hash: Vec<u8>) -> Item {
    let diff = StateDiff { operations, state_hash, ..StateDiff::default() };
    make::item(sequence, sequence.cast_signed(), Body::StateDiff(diff))
}

fn checkpoint(sequence: u64, id: u8, state: &Value) -> Item {
    let checkpoint = Checkpoint {
        checkpoint_id: vec![id; 16],
        state: canonical(state),
        checksum: hash(state),
        ..Checkpoint::default()
    };
    make::item(sequence, sequence.cast_signed(), Body::Checkpoint(checkpoint))
}

fn changed(mut item: Item, change: impl FnOnce(&mut Body)) -> Item {
    change(&mut item.body);
    item
}

fn run(items: Vec<Item>) -> Run {
    let mut run = Run::new("acme", "t", true);
    for item in &items {
        run.add(item).unwrap();
    }
    run
}

fn reason(chain: &Chain) -> String {
    match chain.current() {
        Known::Unknown(reason) => reason.clone(),
        Known::State(value, _) => panic!("{value}"),
    }
}

#[test]
fn golden_vectors_of_the_canonical_form_hold() {
    for (text, expected) in [
        (
            r#"{"a":1,"b":2,"nested":{"y":[true,null],"z":"x"}}"#,
            "f35279c8aa6b00bc82d43a191596cc3b41b7de7899ee16e36a08efe3afc45103",
        ),
        ("{}", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
        (r#"{"t":1.0}"#, "cd6523ed1a42fa65c1081ea4290eaab97aa029e19b513a2772be59ee91b2e5e4"),
    ] {
        assert_eq!(hex(&hash(&serde_json::from_str(text).unwrap())), expected, "{text}");
    }
}

#[test]
fn numbers_come_out_digit_by_digit_as_they_went_in() {
    // Each of these is off by one in the last place when it is read carelessly.
    for text in
        ["[0.1]", "[123456789.12345679]", "[1.7976931348623157e308]", "[5e-324]", "[18446744073709551615]", "[-0.0]"]
    {
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(String::from_utf8(canonical(&value)).unwrap().replace("e+", "e"), text);
    }
}

#[test]
fn patches_full_states_and_checkpoints_follow_each_other() {
    let (one, two, three) = (json!({"a": 1}), json!({"a": 1, "b": 2}), json!({"c": 3}));
    let full = changed(diff(4, Vec::new(), hash(&three)), |body| {
        if let Body::StateDiff(diff) = body {
            diff.full_state = canonical(&three);
        }
    });
    let run = run(vec![start(&one), diff(2, vec![set("/b", &json!(2))], hash(&two)), checkpoint(3, 7, &two), full]);
    let chain = Chain::of(&run);
    assert_eq!(chain.current(), &Known::State(three, Sure::Verified));
    assert_eq!((chain.problems().0, chain.steps()), (&[][..], 4));
    let at = Chain::at(&run, &[7; 16]).unwrap();
    assert_eq!(at.current(), &Known::State(two, Sure::Verified));
    assert!(Chain::at(&run, &[8; 16]).is_none());
}

#[test]
fn a_missing_change_is_said_and_a_checkpoint_heals_it() {
    let (one, three) = (json!({"a": 1}), json!({"a": 1, "b": 2, "c": 3}));
    let lost = vec![start(&one), diff(3, vec![set("/c", &json!(3))], hash(&three))];
    let chain = Chain::of(&run(lost.clone()));
    assert!(reason(&chain).contains("a change before it is missing"), "{}", reason(&chain));
    let later = diff(4, vec![set("/d", &json!(4))], Vec::new());
    let chain = Chain::of(&run([lost.clone(), vec![later]].concat()));
    assert!(reason(&chain).starts_with("the state before this patch is not known (the hash"), "{}", reason(&chain));
    let healed = Chain::of(&run([lost, vec![checkpoint(5, 1, &three)]].concat()));
    assert_eq!(healed.current(), &Known::State(three, Sure::Verified));
    assert_eq!(healed.problems().0.len(), 1);
}

#[test]
fn a_patch_whose_base_is_missing_invents_nothing() {
    let orphan = changed(diff(2, vec![set("/b", &json!(2))], Vec::new()), |body| {
        if let Body::StateDiff(diff) = body {
            diff.base_checkpoint_id = vec![0xab; 2];
        }
    });
    let chain = Chain::of(&run(vec![orphan]));
    assert!(reason(&chain).contains("checkpoint abab, is not there"), "{}", reason(&chain));
    assert_eq!(Chain::default().current(), &Known::Unknown("no state was sent".to_owned()));
}

#[test]
fn a_patch_that_only_fits_its_checkpoint_is_rebuilt_from_it_when_its_hash_proves_it() {
    let (base, after) = (json!({"a": 1}), json!({"a": 1, "c": 3}));
    let named = |state_hash| {
        changed(diff(4, vec![set("/c", &json!(3))], state_hash), |body| {
            if let Body::StateDiff(diff) = body {
                diff.base_checkpoint_id = vec![1; 16];
            }
        })
    };
    let other = diff(3, vec![set("/x", &json!(0))], Vec::new());
    let chain = Chain::of(&run(vec![checkpoint(2, 1, &base), other.clone(), named(hash(&after))]));
    assert_eq!(chain.current(), &Known::State(after, Sure::Verified));
    assert!(chain.problems().0[0].contains("rebuilt from the checkpoint"));
    // Without a hash it is the change of what was before it.
    let chain = Chain::of(&run(vec![checkpoint(2, 1, &base), other, named(Vec::new())]));
    assert_eq!(chain.current(), &Known::State(json!({"a": 1, "c": 3, "x": 0}), Sure::Unverified));
}

#[test]
fn packed_checkpoints_are_unpacked_and_false_ones_not_used() {
    let state = json!({"a": "x".repeat(900)});
    let packed = |checksum: Vec<u8>| {
        changed(checkpoint(2, 1, &state), |body| {
            if let Body::Checkpoint(checkpoint) = body {
                checkpoint.state = crate::wire::framing::frame_like(&[ZSTD], &checkpoint.state).unwrap()[1..].to_vec();
                checkpoint.compression_info =
                    Some(CompressionInfo { r#type: CompressionType::Zstd.into(), ..CompressionInfo::default() });
                checkpoint.checksum = checksum;
            }
        })
    };
    let chain = Chain::of(&run(vec![packed(hash(&state))]));
    assert_eq!(chain.current(), &Known::State(state.clone(), Sure::Verified));
    let chain = Chain::of(&run(vec![start(&json!({"b": 1})), packed(vec![0; 32])]));
    assert_eq!(chain.current().value(), Some(&json!({"b": 1})));
    assert!(chain.problems().0[0].contains("checksum"), "{:?}", chain.problems());
}

#[test]
fn the_summary_fills_in_and_does_not_overrule() {
    let trace = |state: &Value| {
        make::item(0, 9, Body::ExecutionTrace(ExecutionTrace { final_state: canonical(state), ..Default::default() }))
    };
    let chain = Chain::of(&run(vec![trace(&json!({"a": 1}))]));
    assert_eq!(chain.current(), &Known::State(json!({"a": 1}), Sure::Unverified));
    let chain = Chain::of(&run(vec![start(&json!({"a": 1})), trace(&json!({"a": 2}))]));
    assert_eq!(chain.current().value(), Some(&json!({"a": 1})));
    assert!(chain.problems().0[0].contains("differs"));
}

#[test]
fn a_step_tells_which_fields_it_touched() {
    let run = run(vec![
        start(&json!({"a": 1, "b": 1})),
        diff(2, vec![set("/a", &json!(2)), set("/x~1y", &json!(2))], Vec::new()),
        checkpoint(3, 1, &json!({"a": 2, "c": 1})),
    ]);
    let mut chain = Chain::default();
    let touched: Vec<Vec<String>> =
        run.ordered().into_iter().map(|note| chain.step(note.place, &note.fact).into_iter().collect()).collect();
    assert_eq!(touched, [vec!["a", "b"], vec!["a", "x/y"], vec!["b", "c", "x/y"]]);
}

#[test]
fn the_states_of_generated_runs_are_rebuilt_to_the_last_hash() {
    use crate::generate::{Generator, GeneratorSettings};
    use crate::pipeline::decode::JudgeSettings;
    use prost::Message as _;
    let mut generator = Generator::new(GeneratorSettings { concurrent_runs: 1, ..GeneratorSettings::default() });
    let mut opener = super::super::item::Opener::new(JudgeSettings::default());
    let mut runs = std::collections::BTreeMap::<String, Run>::new();
    for offset in 0..4_000 {
        let at = 1_000_000 + generator.next_at_us().cast_signed();
        let made = generator.next_message(at).unwrap();
        let value = [vec![0], made.message.encode_to_vec()].concat();
        let mut items = Vec::new();
        opener.open((0, offset), None, Some(&value), &mut items).unwrap();
        let run = runs.entry(made.thread.to_string()).or_insert_with(|| Run::new("", &made.thread, true));
        for item in &items {
            run.add(item).unwrap();
        }
    }
    assert!(runs.len() > 3, "{}", runs.len());
    let mut verified = 0;
    for run in runs.values() {
        let chain = Chain::of(run);
        assert_eq!(chain.problems(), (&[][..], 0), "{}", run.thread());
        verified += usize::from(matches!(chain.current(), Known::State(_, Sure::Verified)));
    }
    assert!(verified > 2, "{verified}");
}
