//! What a session gets, against a naive reading of the decoded messages.

use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::pipeline::sieve;
use crate::wire::filter::MESSAGE_TYPES;
use crate::wire::stream::{Frame, SkipReason, item};
use crate::wire::stream_frame::FrameBuilder;
use crate::wire::telemetry::dash_stream_message::Message;
use crate::wire::telemetry::{DashStreamMessage, Error, Event, EventBatch, Header, TokenChunk};

const READING: Reading = Reading { legacy_framing: false, max_decompressed_bytes: 1 << 20 };

/// A record as a test describes it.
#[derive(Clone, Debug)]
enum Told {
    Single(u8, String, String),
    /// Tenant and thread of the batch, and of its events.
    Batch(String, String, Vec<(String, String)>),
    Broken,
}

fn header(tenant: &str, thread: &str) -> Option<Header> {
    Some(Header { tenant_id: tenant.into(), thread_id: thread.into(), sequence: 7, ..Header::default() })
}

impl Told {
    fn value(&self, zstd: bool) -> Vec<u8> {
        let message = match self {
            Self::Single(1, tenant, thread) => {
                Message::Event(Event { header: header(tenant, thread), ..Event::default() })
            }
            Self::Single(3, tenant, thread) => {
                Message::TokenChunk(TokenChunk { header: header(tenant, thread), ..TokenChunk::default() })
            }
            Self::Single(_, tenant, thread) => {
                Message::Error(Error { header: header(tenant, thread), ..Error::default() })
            }
            Self::Batch(tenant, thread, events) => {
                let event =
                    |(tenant, thread): &(String, String)| Event { header: header(tenant, thread), ..Event::default() };
                let events = events.iter().map(event).collect();
                Message::EventBatch(EventBatch { header: header(tenant, thread), events })
            }
            Self::Broken => return b"\0\xff\xff".to_vec(),
        };
        let bytes = DashStreamMessage { message: Some(message) }.encode_to_vec();
        if zstd { [vec![1], zstd::bulk::compress(&bytes, 3).unwrap()].concat() } else { [vec![0], bytes].concat() }
    }

    fn message_type(&self) -> Option<u8> {
        match self {
            Self::Single(number, ..) => Some(*number),
            Self::Batch(..) => Some(8),
            Self::Broken => None,
        }
    }

    /// The naive rule.
    fn passes(&self, request: &FilterRequest, grant: &Grant) -> bool {
        let Some(number) = self.message_type() else { return false };
        let (own, events): ((&String, &String), Vec<(&String, &String)>) = match self {
            Self::Single(_, tenant, thread) => ((tenant, thread), Vec::new()),
            Self::Batch(tenant, thread, events) => {
                let or = |own: &'_ String| own.is_empty();
                let pick =
                    events.iter().map(|(te, th)| (if or(te) { tenant } else { te }, if or(th) { thread } else { th }));
                ((tenant, thread), pick.collect())
            }
            Self::Broken => return false,
        };
        let listed = |list: &Option<Vec<String>>, text: &String| list.as_ref().is_none_or(|list| list.contains(text));
        let wanted = std::iter::once(&own)
            .chain(&events)
            .any(|(te, th)| listed(&request.tenants, te) && listed(&request.threads, th));
        let may = |set: &Texts, text: &String| set.as_ref().is_none_or(|set| set.contains(text.as_bytes()));
        let unsaid = |text: &String| text.is_empty() && !events.is_empty();
        let allowed = events.iter().all(|(te, th)| may(&grant.tenants, te) && may(&grant.threads, th))
            && (may(&grant.tenants, own.0) || unsaid(own.0))
            && (may(&grant.threads, own.1) || unsaid(own.1));
        wanted && allowed && request.types.is_none_or(|types| types.contains(number))
    }
}

fn chunk(records: &[Told], zstd: bool) -> Chunk {
    let mut builder = FrameBuilder::new();
    for (offset, record) in (100..).zip(records) {
        builder.record(offset, 1, &record.value(zstd), &[]);
    }
    let next = 100 + records.len() as i64;
    Chunk::new(0, 100, next, u32::try_from(records.len()).unwrap(), builder.seal(0, 100, next))
}

fn request(tenants: &[&str], threads: &[&str]) -> FilterRequest {
    let list = |texts: &[&str]| (!texts.is_empty()).then(|| texts.iter().map(|text| (*text).to_owned()).collect());
    FilterRequest { tenants: list(tenants), threads: list(threads), ..FilterRequest::default() }
}

fn granted(tenants: &[&str]) -> Grant {
    Grant { tenants: Some(texts(tenants.iter().copied())), ..Grant::ALL }
}

fn selected(filter: &Filter, records: &[Told]) -> Vec<bool> {
    filter.select(&chunk(records, false)).unwrap_or_else(|| vec![false; records.len()])
}

#[test]
fn who_wants_and_may_see_everything_has_no_filter() {
    for request in [None, Some(FilterRequest::default())] {
        assert_eq!(Filter::new(request.as_ref(), &Grant::ALL, READING), None);
    }
    assert!(Filter::new(None, &granted(&["a"]), READING).is_some());
    assert!(Filter::new(Some(&request(&["a"], &[])), &Grant::ALL, READING).is_some());
}

#[test]
fn a_record_that_names_a_stranger_is_withheld_as_a_whole() {
    let pair = |tenant: &str, thread: &str| (tenant.to_owned(), thread.to_owned());
    let batch = |tenant: &str, events: &[(&str, &str)]| {
        Told::Batch(tenant.into(), String::new(), events.iter().map(|(te, th)| pair(te, th)).collect())
    };
    let records = [
        batch("", &[("a", "1"), ("a", "2")]),
        batch("a", &[("", "1")]),
        batch("", &[("a", "1"), ("b", "2")]),
        batch("b", &[("a", "1")]),
        batch("a", &[("a", "1"), ("ab", "1")]),
        batch("", &[("a", "1"), ("", "2")]),
        batch("a", &[]),
        batch("", &[]),
        Told::Single(1, "a".into(), String::new()),
        Told::Single(1, String::new(), "1".into()),
        Told::Single(1, "A".into(), "1".into()),
        Told::Broken,
    ];
    let filter = Filter::new(None, &granted(&["a"]), READING).unwrap();
    let want = [true, true, false, false, false, false, true, false, true, false, false, false];
    assert_eq!(selected(&filter, &records), want);
    let all = Filter::new(Some(&request(&["a", "b", "ab", "A"], &[])), &granted(&["a"]), READING).unwrap();
    assert_eq!(selected(&all, &records), want, "asking for more gives no more");
}

#[test]
fn a_record_that_names_too_much_to_remember_is_still_judged_exactly() {
    let many = |tenant: &str| {
        let events = (0..2_000).map(|n| (tenant.to_owned(), format!("thread-{n}"))).collect();
        Told::Batch(String::new(), String::new(), events)
    };
    let long = "x".repeat(70_000);
    let mut mixed = many("a");
    if let Told::Batch(_, _, events) = &mut mixed {
        events.push(("b".into(), "last".into()));
    }
    let records =
        [many("a"), many("b"), mixed, Told::Single(1, "a".into(), long.clone()), Told::Single(1, long, "1".into())];
    let of_a = Filter::new(None, &granted(&["a"]), READING).unwrap();
    assert_eq!(selected(&of_a, &records), [true, false, false, true, false]);
    let last = Filter::new(Some(&request(&[], &["last"])), &Grant::ALL, READING).unwrap();
    assert_eq!(selected(&last, &records), [false, false, true, false, false]);
}

#[test]
fn more_labels_than_are_kept_change_nothing() {
    let records: Vec<_> = (0..3_000).map(|n| Told::Single(1, format!("tenant-{n}"), format!("thread-{n}"))).collect();
    let chunk = chunk(&records, true);
    let bytes: usize = chunk.tags(READING).labels.len();
    assert!(bytes < 3_000, "the dictionary is bounded");
    for n in [0, 1, 1_500, 2_998, 2_999] {
        let filter = Filter::new(None, &granted(&[&format!("tenant-{n}")]), READING).unwrap();
        let passing = filter.select(&chunk).unwrap();
        assert_eq!(
            passing.iter().enumerate().filter(|(_, passes)| **passes).map(|(at, _)| at).collect::<Vec<_>>(),
            [n]
        );
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[abc]", Just("ab".to_owned())]
}

fn told() -> impl Strategy<Value = Told> {
    prop_oneof![
        4 => (prop_oneof![Just(1_u8), Just(3), Just(7)], name(), name()).prop_map(|(n, te, th)| Told::Single(n, te, th)),
        2 => (name(), name(), proptest::collection::vec((name(), name()), 0..4)).prop_map(|(te, th, ev)| Told::Batch(te, th, ev)),
        1 => Just(Told::Broken),
    ]
}

fn some_texts() -> impl Strategy<Value = Option<Vec<String>>> {
    proptest::option::of(proptest::collection::vec("[abc]|ab", 1..3))
}

proptest! {
    /// Labels, sharing and shortcuts give what looking at every message would give.
    #[test]
    fn a_session_gets_exactly_what_it_wants_and_may_see(
        records in proptest::collection::vec(told(), 1..12),
        zstd in any::<bool>(),
        (tenants, threads) in (some_texts(), some_texts()),
        (may_tenants, may_threads) in (some_texts(), some_texts()),
        types in proptest::option::of(1..10_u8),
    ) {
        let request = FilterRequest {
            tenants, threads, types: types.map(|number| TypeSet::default().with(number)), partitions: None,
        };
        let set = |list: &Option<Vec<String>>| list.as_ref().map(|list| texts(list.iter().map(String::as_str)));
        let grant = Grant { tenants: set(&may_tenants), threads: set(&may_threads), partitions: None };
        let Some(filter) = Filter::new(Some(&request), &grant, READING) else { return Ok(()) };
        let chunk = chunk(&records, zstd);
        let want: Vec<bool> = records.iter().map(|record| record.passes(&request, &grant)).collect();
        prop_assert_eq!(filter.select(&chunk).unwrap_or_else(|| vec![false; records.len()]), want);
    }

    /// From any cursor, a filtered frame covers the rest of the chunk exactly, with the records that pass and no others.
    #[test]
    fn what_is_withheld_becomes_merged_skips(
        items in proptest::collection::vec((0..5_u8, 1..3_i64), 1..14),
        from in 0..30_i64,
        restricted in any::<bool>(),
        max in prop_oneof![Just(u32::MAX), 0..5_u32],
    ) {
        let (mut builder, mut at, mut records) = (FrameBuilder::new(), 100, 0);
        let mut due = Vec::new();
        for (kind, len) in &items {
            match kind {
                0 => builder.skip(at, at + len, SkipReason::NoRecord),
                1 => builder.skip(at, at + len, SkipReason::InvalidProtobuf),
                2 => builder.gap(at, at + len, crate::wire::stream::GapReason::Retention),
                _ => for offset in at..at + len {
                    let tenant = if *kind == 3 { "a" } else { "b" };
                    builder.record(offset, 5, &Told::Single(1, tenant.into(), "t".into()).value(offset % 2 == 0), &[]);
                    records += 1;
                    if *kind == 3 { due.push(offset); }
                },
            }
            at += len;
        }
        let chunk = Chunk::new(4, 100, at, records, builder.seal(4, 100, at));
        let cursor = (95 + from).min(at - 1);
        let filter = if restricted { Filter::new(None, &granted(&["a"]), READING) } else { Filter::new(Some(&request(&["a"], &[])), &Grant::ALL, READING) };
        let due: Vec<i64> = due.into_iter().filter(|offset| *offset >= cursor).collect();
        let part = sieve::sieve(&chunk, cursor, max, &filter.unwrap());
        let told: Vec<u8> = items.iter().map(|(kind, _)| *kind).collect();
        // The part ends at the first record too many, and else with the chunk.
        prop_assert_eq!(part.next, due.get(max as usize).copied().unwrap_or(at));
        let due: Vec<i64> = due.into_iter().take(max as usize).collect();
        prop_assert_eq!(part.records as usize, due.len());
        if part.is_blank() {
            prop_assert_eq!(due.len(), 0, "records are never withheld from who may see them");
            return Ok(());
        }
        let message = sieve::message(&chunk, cursor, &part);
        let start = match message[1] { 126 => 4, 127 => 10, _ => 2 };
        let frame = Frame::decode(&message[start..]).unwrap();
        prop_assert_eq!((frame.partition, frame.first_offset, frame.next_offset), (4, cursor.max(100), part.next));
        let (mut position, mut got, mut last) = (frame.first_offset, Vec::new(), None);
        for item in &frame.items {
            let (first, next, skip) = match item.kind.as_ref().unwrap() {
                item::Kind::Record(record) => {
                    got.push(record.offset);
                    prop_assert_eq!(&record.value[..], &Told::Single(1, "a".into(), "t".into()).value(record.offset % 2 == 0)[..]);
                    (record.offset, record.offset + 1, None)
                }
                item::Kind::Skip(skip) => (skip.first_offset, skip.next_offset, Some(skip.reason())),
                item::Kind::Gap(gap) => (gap.first_offset, gap.next_offset, None),
            };
            prop_assert_eq!(first, position);
            prop_assert!(skip.is_none() || skip != last, "neighbours are merged");
            if restricted { prop_assert!(matches!(skip, None | Some(SkipReason::Filtered | SkipReason::NoRecord)), "{told:?}"); }
            (position, last) = (next, skip);
        }
        prop_assert_eq!(position, part.next);
        prop_assert_eq!(&got, &due);
        let shown: Vec<i64> = sieve::items(&chunk, &part).filter(|(_, _, item)| matches!(item, crate::pipeline::window::ItemRef::Record(_))).map(|(first, ..)| first).collect();
        prop_assert_eq!(shown, due, "both protocols get the same");
    }

    /// Bytes of any kind are withheld from who is restricted, without a panic.
    #[test]
    fn what_cannot_be_read_is_nobodys(value in proptest::collection::vec(any::<u8>(), 0..200), framing in 0..3_u8) {
        let mut builder = FrameBuilder::new();
        builder.record(0, 0, &[vec![framing], value].concat(), &[]);
        let chunk = Chunk::new(0, 0, 1, 1, builder.seal(0, 0, 1));
        let filter = Filter::new(None, &granted(&["a"]), READING).unwrap();
        if let Some(passing) = filter.select(&chunk) { prop_assert_eq!(passing.len(), 1); }
    }
}

#[test]
fn types_have_the_numbers_of_the_schema() {
    let numbered = |number: u8, message: Message| {
        let bytes = DashStreamMessage { message: Some(message) }.encode_to_vec();
        assert_eq!(bytes[0] >> 3, number, "{}", MESSAGE_TYPES[usize::from(number) - 1]);
    };
    numbered(1, Message::Event(Event::default()));
    numbered(3, Message::TokenChunk(TokenChunk::default()));
    numbered(7, Message::Error(Error::default()));
    numbered(8, Message::EventBatch(EventBatch::default()));
    numbered(9, Message::ExecutionTrace(crate::wire::telemetry::ExecutionTrace::default()));
}
