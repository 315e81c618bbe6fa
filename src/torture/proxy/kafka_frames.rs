//! Keeps clients of Kafka behind proxies: answers that name brokers name proxies instead. No IO.
//!
//! Of the protocol it knows the frames, and the answers in which a client is told addresses: `Metadata` and
//! `FindCoordinator`. Versions of other answers that would tell some are hidden from the client, by `ApiVersions`. What it
//! cannot read ends the connection: a client that got past would not meet the faults.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// `(host, port)` of brokers, to that of the proxy before each.
pub type Addresses = HashMap<(String, i32), (String, i32)>;

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const METADATA: i16 = 3;
const FIND_COORDINATOR: i16 = 10;
const API_VERSIONS: i16 = 18;
/// The highest version that a client may use. From the next one on, an answer names the new leader, and where it is; of
/// metadata and coordinators, these are the highest that are understood here.
const HIGHEST: [(i16, i16); 4] = [(PRODUCE, 9), (FETCH, 15), (METADATA, 12), (FIND_COORDINATOR, 3)];
/// An answer that is rewritten is held as a whole. Metadata of 100,000 partitions are smaller.
const MAX_FRAME: usize = 64 << 20;
/// A request's key, version and correlation id lie behind its size.
const REQUEST_HEAD: usize = 12;
/// An answer's correlation id lies behind its size.
const ANSWER_HEAD: usize = 8;

/// What one connection is about to say and to be told.
#[derive(Debug)]
pub struct Frames {
    addresses: Arc<Addresses>,
    requests: Cut,
    answers: Cut,
    /// Correlation id, API and version of requests whose answers are rewritten.
    awaited: VecDeque<(i32, i16, i16)>,
}

/// Where a stream of frames stands.
#[derive(Debug, Default)]
struct Cut {
    /// The frame's bytes so far, until it is known what to do with it.
    begun: Vec<u8>,
    /// Bytes of a frame that pass as they are.
    passing: usize,
}

impl Frames {
    /// Of a new connection.
    pub fn new(addresses: Arc<Addresses>) -> Self {
        Self { addresses, requests: Cut::default(), answers: Cut::default(), awaited: VecDeque::new() }
    }

    /// The client says these bytes; they pass as they are. False: they are no requests of Kafka.
    pub fn asked(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if self.requests.pass(&mut bytes).is_some() {
                continue;
            }
            if !self.requests.take(&mut bytes, REQUEST_HEAD) {
                return true;
            }
            let head = std::mem::take(&mut self.requests.begun);
            let mut fields = Fields::new(&head);
            let (Some(size), Some(api), Some(version), Some(id)) =
                (fields.i32(), fields.i16(), fields.i16(), fields.i32())
            else {
                return false;
            };
            let Some(left) = usize::try_from(size).ok().and_then(|size| size.checked_sub(REQUEST_HEAD - 4)) else {
                return false;
            };
            self.requests.passing = left;
            if [METADATA, FIND_COORDINATOR, API_VERSIONS].contains(&api) {
                self.awaited.push_back((id, api, version));
            }
        }
        true
    }

    /// The broker answers with these bytes: what the client is told. `None`: they cannot be understood.
    pub fn answered(&mut self, mut bytes: &[u8]) -> Option<Vec<u8>> {
        let mut told = Vec::with_capacity(bytes.len());
        while !bytes.is_empty() {
            if let Some(passed) = self.answers.pass(&mut bytes) {
                told.extend_from_slice(passed);
                continue;
            }
            if !self.answers.take(&mut bytes, ANSWER_HEAD) {
                break;
            }
            let mut head = Fields::new(&self.answers.begun);
            let (size, id) = (usize::try_from(head.i32()?).ok()?, head.i32()?);
            let whole = size.checked_add(4).filter(|whole| *whole >= ANSWER_HEAD)?;
            let Some(place) = self.awaited.iter().position(|(awaited, ..)| *awaited == id) else {
                told.append(&mut self.answers.begun);
                self.answers.passing = whole - ANSWER_HEAD;
                continue;
            };
            if whole > MAX_FRAME {
                return None;
            }
            if !self.answers.take(&mut bytes, whole) {
                break;
            }
            let (_, api, version) = self.awaited.remove(place)?;
            let frame = std::mem::take(&mut self.answers.begun);
            told.extend(rewritten(frame, api, version, &self.addresses)?);
        }
        Some(told)
    }
}

impl Cut {
    /// The next bytes of a frame that passes as it is.
    fn pass<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (now, later) = bytes.split_at_checked(self.passing.min(bytes.len())).filter(|_| self.passing > 0)?;
        self.passing -= now.len();
        *bytes = later;
        Some(now)
    }

    /// Takes bytes until so many of the frame are there, and whether they are.
    fn take(&mut self, bytes: &mut &[u8], until: usize) -> bool {
        let missing = until.saturating_sub(self.begun.len());
        if let Some((now, later)) = bytes.split_at_checked(missing.min(bytes.len())) {
            self.begun.extend_from_slice(now);
            *bytes = later;
        }
        self.begun.len() >= until
    }
}

fn rewritten(mut frame: Vec<u8>, api: i16, version: i16, addresses: &Addresses) -> Option<Vec<u8>> {
    if api == API_VERSIONS {
        limit_versions(&mut frame, version)?;
        return Some(frame);
    }
    let mut answer =
        Rewriter { fields: Fields { bytes: &frame, at: ANSWER_HEAD }, told: Vec::new(), copied: 0, addresses };
    match api {
        METADATA => answer.metadata(version)?,
        _ => answer.coordinator(version)?,
    }
    let mut told = answer.whole()?;
    let size = i32::try_from(told.len() - 4).ok()?;
    told.get_mut(..4)?.copy_from_slice(&size.to_be_bytes());
    Some(told)
}

/// Lowers the highest versions where they lie.
fn limit_versions(frame: &mut [u8], version: i16) -> Option<()> {
    // The header of this answer has no tags, whatever the version. A broker that does not know the version says so in the
    // words of the first one.
    let mut fields = Fields { bytes: frame, at: ANSWER_HEAD };
    let compact = fields.i16()? == 0 && version >= 3;
    let mut too_high = Vec::new();
    for _ in 0..fields.length(compact)? {
        let api = fields.i16()?;
        // The lowest version.
        fields.skip(2)?;
        let at = fields.at;
        let highest = fields.i16()?;
        too_high
            .extend(HIGHEST.iter().filter(|(of, limit)| *of == api && highest > *limit).map(|(_, limit)| (at, *limit)));
        if compact {
            fields.tags()?;
        }
    }
    for (at, limit) in too_high {
        frame.get_mut(at..at + 2)?.copy_from_slice(&limit.to_be_bytes());
    }
    Some(())
}

/// Copies an answer, with other addresses.
struct Rewriter<'a> {
    fields: Fields<'a>,
    told: Vec<u8>,
    /// The answer has been told up to here.
    copied: usize,
    addresses: &'a Addresses,
}

impl Rewriter<'_> {
    /// The brokers come first: nothing behind them is looked at.
    fn metadata(&mut self, version: i16) -> Option<()> {
        let compact = version >= 9;
        if compact {
            self.fields.tags()?;
        }
        if version >= 3 {
            // How long the broker throttled.
            self.fields.skip(4)?;
        }
        for _ in 0..self.fields.length(compact)? {
            // Its number.
            self.fields.skip(4)?;
            self.address(compact)?;
            if version >= 1 {
                // Its rack.
                self.fields.text(compact)?;
            }
            if compact {
                self.fields.tags()?;
            }
        }
        Some(())
    }

    fn coordinator(&mut self, version: i16) -> Option<()> {
        let compact = version >= 3;
        if compact {
            self.fields.tags()?;
        }
        // How long the broker throttled, from version 1 on; the error's code.
        self.fields.skip(if version >= 1 { 6 } else { 2 })?;
        if version >= 1 {
            // The error in words.
            self.fields.text(compact)?;
        }
        // The broker's number.
        self.fields.skip(4)?;
        self.address(compact)
    }

    /// Tells the proxy's address instead. What is no broker's, such as that of nobody, stays as it is.
    fn address(&mut self, compact: bool) -> Option<()> {
        let begin = self.fields.at;
        let host = std::str::from_utf8(self.fields.text(compact)?).ok()?.to_owned();
        let broker = (host, self.fields.i32()?);
        if let Some((host, port)) = self.addresses.get(&broker) {
            self.told.extend_from_slice(self.fields.bytes.get(self.copied..begin)?);
            let length = i16::try_from(host.len()).ok()?;
            match compact {
                // One more than the length, in one byte: a proxy has a short name.
                true => self.told.push(u8::try_from(length + 1).ok().filter(|length| *length < 0x80)?),
                false => self.told.extend(length.to_be_bytes()),
            }
            self.told.extend_from_slice(host.as_bytes());
            self.told.extend(port.to_be_bytes());
            self.copied = self.fields.at;
        }
        Some(())
    }

    fn whole(mut self) -> Option<Vec<u8>> {
        self.told.extend_from_slice(self.fields.bytes.get(self.copied..)?);
        Some(self.told)
    }
}

/// Reads fields one after the other. `None`: the bytes end before the field does.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let until = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..until)?;
        self.at = until;
        Some(taken)
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.take(length).map(drop)
    }

    fn i16(&mut self) -> Option<i16> {
        self.take(2)?.try_into().ok().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take(4)?.try_into().ok().map(i32::from_be_bytes)
    }

    fn varint(&mut self) -> Option<usize> {
        let mut number = 0_usize;
        for shift in [0, 7, 14, 21, 28] {
            let byte = *self.take(1)?.first()?;
            number |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// Of an array; none is as good as empty.
    fn length(&mut self, compact: bool) -> Option<usize> {
        match compact {
            true => self.varint().map(|length| length.saturating_sub(1)),
            false => self.i32().map(|length| usize::try_from(length).unwrap_or(0)),
        }
    }

    /// None is as good as empty.
    fn text(&mut self, compact: bool) -> Option<&'a [u8]> {
        let length = match compact {
            true => self.varint()?.saturating_sub(1),
            false => usize::try_from(self.i16()?).unwrap_or(0),
        };
        self.take(length)
    }

    fn tags(&mut self) -> Option<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = self.varint()?;
            self.skip(length)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Frames {
        let proxy = |host: &str, port, to: i32| ((host.to_owned(), port), ("127.0.0.1".to_owned(), to));
        Frames::new(Arc::new([proxy("kafka-1.example", 9092, 40_001), proxy("kafka-2", 9092, 40_002)].into()))
    }

    fn framed(body: &[u8]) -> Vec<u8> {
        [&i32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
    }

    fn request(api: i16, version: i16, id: i32) -> Vec<u8> {
        framed(&[&api.to_be_bytes()[..], &version.to_be_bytes(), &id.to_be_bytes(), b"\0\x04test"].concat())
    }

    fn text(text: &str, compact: bool) -> Vec<u8> {
        let mut bytes = match compact {
            true => vec![u8::try_from(text.len() + 1).unwrap()],
            false => i16::try_from(text.len()).unwrap().to_be_bytes().to_vec(),
        };
        bytes.extend(text.as_bytes());
        bytes
    }

    fn count(count: u8, compact: bool) -> Vec<u8> {
        if compact { vec![count + 1] } else { vec![0, 0, 0, count] }
    }

    /// As a broker says it: two brokers, one of them without a rack, then bytes that are none of our business.
    fn metadata(version: i16, id: i32, brokers: [(&str, i32); 2]) -> Vec<u8> {
        let compact = version >= 9;
        let mut body = id.to_be_bytes().to_vec();
        body.extend(compact.then_some(0));
        body.extend(vec![0; if version >= 3 { 4 } else { 0 }]);
        body.extend(count(2, compact));
        for (number, (host, port)) in brokers.into_iter().enumerate() {
            body.extend(
                [&[0, 0, 0, u8::try_from(number).unwrap()], &text(host, compact)[..], &port.to_be_bytes()].concat(),
            );
            if version >= 1 {
                body.extend(match (number, compact) {
                    (0, _) => text("rack", compact),
                    (_, true) => vec![0],
                    (_, false) => (-1_i16).to_be_bytes().to_vec(),
                });
            }
            // One tag that nobody knows.
            body.extend(if compact { vec![1, 7, 2, 0xaa, 0xbb] } else { vec![] });
        }
        body.extend(b"all the rest");
        framed(&body)
    }

    fn coordinator(version: i16, id: i32, host: &str, port: i32) -> Vec<u8> {
        let compact = version >= 3;
        let mut body = id.to_be_bytes().to_vec();
        body.extend(compact.then_some(0));
        body.extend(vec![0; if version >= 1 { 6 } else { 2 }]);
        if version >= 1 {
            body.extend(text("NONE", compact));
        }
        body.extend([&[0, 0, 0, 1], &text(host, compact)[..], &port.to_be_bytes()].concat());
        body.extend(compact.then_some(0));
        framed(&body)
    }

    /// Fed in pieces of every size: as what was asked for, and what came of it.
    fn told(requests: &[u8], answers: &[u8], step: usize) -> Option<Vec<u8>> {
        let mut frames = frames();
        assert!(requests.chunks(step).all(|bytes| frames.asked(bytes)));
        let pieces: Option<Vec<_>> = answers.chunks(step).map(|bytes| frames.answered(bytes)).collect();
        pieces.map(|pieces| pieces.concat())
    }

    const BROKERS: [(&str, i32); 2] = [("kafka-1.example", 9092), ("kafka-2", 9092)];
    const PROXIES: [(&str, i32); 2] = [("127.0.0.1", 40_001), ("127.0.0.1", 40_002)];

    #[test]
    fn every_version_of_the_answers_names_the_proxies_whatever_pieces_they_come_in() {
        for step in [1, 3, 7, 1_000] {
            for version in 0..=12 {
                let asked = [request(METADATA, version, 7), request(FETCH, 11, 8)].concat();
                let other = framed(&[&8_i32.to_be_bytes()[..], b"kafka-2 stands in a record"].concat());
                let answered = [metadata(version, 7, BROKERS), other.clone()].concat();
                let expected = [metadata(version, 7, PROXIES), other].concat();
                assert_eq!(told(&asked, &answered, step), Some(expected), "metadata {version} in {step}");
            }
            for version in 0..=3 {
                let asked = request(FIND_COORDINATOR, version, 1);
                let answered = coordinator(version, 1, "kafka-2", 9092);
                let expected = coordinator(version, 1, "127.0.0.1", 40_002);
                assert_eq!(told(&asked, &answered, step), Some(expected), "coordinator {version} in {step}");
            }
        }
    }

    #[test]
    fn what_is_no_address_of_a_known_broker_stays_as_it_is() {
        let nobody = coordinator(2, 1, "", -1);
        assert_eq!(told(&request(FIND_COORDINATOR, 2, 1), &nobody, 5), Some(nobody));
        let unknown = metadata(12, 1, [("kafka-3", 9092), ("kafka-2", 9093)]);
        assert_eq!(told(&request(METADATA, 12, 1), &unknown, 5), Some(unknown));
    }

    #[test]
    fn versions_whose_answers_would_tell_addresses_elsewhere_are_hidden() {
        let versions = |version: i16, highest: [i16; 3]| {
            let compact = version >= 3;
            let mut body = [&3_i32.to_be_bytes()[..], &[0, 0], &count(3, compact)].concat();
            for (api, highest) in [FETCH, 2, METADATA].into_iter().zip(highest) {
                body.extend([api.to_be_bytes(), 0_i16.to_be_bytes(), highest.to_be_bytes()].concat());
                body.extend(compact.then_some(0));
            }
            body.extend([0; 5]);
            framed(&body)
        };
        for version in 0..=4 {
            let found = told(&request(API_VERSIONS, version, 3), &versions(version, [18, 11, 13]), 4);
            assert_eq!(found, Some(versions(version, [15, 11, 12])), "version {version}");
            let low = versions(version, [4, 2, 1]);
            assert_eq!(told(&request(API_VERSIONS, version, 3), &low, 4), Some(low), "an old broker's stay");
        }
    }

    #[test]
    fn what_cannot_be_read_ends_the_connection_and_never_panics() {
        let asked = request(METADATA, 9, 7);
        let whole = metadata(9, 7, BROKERS);
        for length in ANSWER_HEAD..whole.len() - 12 {
            let cut = framed(whole.get(4..length).unwrap());
            assert_eq!(told(&asked, &cut, 1_000), None, "cut at {length}");
        }
        assert_eq!(told(&asked, &[0xff; 64], 64), None);
        assert!(!frames().asked(&[0xff; 64]));
    }
}
