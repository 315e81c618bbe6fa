//! Reads what the service sends, with code of its own and as cheaply as possible: WebSocket frames, the envelope of v2
//! frames, and the producer's time inside of a record.

/// A WebSocket frame at the start of some bytes.
pub struct WsFrame {
    /// The opcode.
    pub opcode: u8,
    /// Bytes before the payload.
    pub header: usize,
    /// Bytes of the payload.
    pub payload: usize,
}

/// The frame that begins here; `None` when its header is not complete yet. Server frames are not masked.
pub fn ws_frame(bytes: &[u8]) -> Option<WsFrame> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (header, payload) = match second & 0x7f {
        126 => (4, u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into()),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        length => (2, length.into()),
    };
    Some(WsFrame { opcode: first & 0x0f, header, payload })
}

/// A text frame from the client, masked with zeros.
pub fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

/// Walks protobuf fields.
struct Fields<'a> {
    bytes: &'a [u8],
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn skip(&mut self, count: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(field)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Field<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => self.skip(8).map(Field::Bytes)?,
            2 => {
                let length = self.varint()?;
                self.skip(length as usize).map(Field::Bytes)?
            }
            5 => self.skip(4).map(Field::Bytes)?,
            _ => return None,
        };
        Some((key >> 3, field))
    }
}

/// What a v2 frame covers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// The partition.
    pub partition: usize,
    /// The first offset.
    pub first: i64,
    /// The offset after the last.
    pub next: i64,
    /// Records in it.
    pub records: u64,
    /// Offsets told as lost.
    pub lost: u64,
}

/// Checks that the frame covers its range without a hole or an overlap. `each` sees every record value.
pub fn v2_frame<'a>(bytes: &'a [u8], mut each: impl FnMut(&'a [u8])) -> Result<Covered, &'static str> {
    let mut covered = Covered::default();
    let mut expected = None;
    let mut fields = Fields { bytes };
    for (number, field) in &mut fields {
        match (number, field) {
            (1, Field::Number(value)) => covered.partition = value as usize,
            (2, Field::Number(value)) => covered.first = value as i64,
            (3, Field::Number(value)) => covered.next = value as i64,
            (4, Field::Bytes(item)) => {
                let at = expected.get_or_insert(covered.first);
                let (kind, Field::Bytes(item)) = Fields { bytes: item }.next().ok_or("empty item")? else {
                    return Err("bad item");
                };
                let (mut first, mut next) = (0, 0);
                for field in (Fields { bytes: item }) {
                    match (kind, field) {
                        (1, (3, Field::Bytes(value))) => each(value),
                        (_, (1, Field::Number(value))) => first = value as i64,
                        (2 | 3, (2, Field::Number(value))) => next = value as i64,
                        _ => {}
                    }
                }
                if kind == 1 {
                    next = first + 1;
                    covered.records += 1;
                } else if kind == 3 {
                    covered.lost += (next - first).unsigned_abs();
                }
                if first != *at || next <= first {
                    return Err("items do not touch");
                }
                *at = next;
            }
            _ => {}
        }
    }
    if !fields.bytes.is_empty() {
        return Err("not protobuf");
    }
    if expected != Some(covered.next) {
        return Err("the frame does not cover its range");
    }
    Ok(covered)
}

/// The producer's time of a flat load record: message → token chunk → header → timestamp. Raw framing only.
pub fn producer_time_us(value: &[u8]) -> Option<u64> {
    let (framing, message) = value.split_first()?;
    if *framing != 0 {
        return None;
    }
    let (3, Field::Bytes(chunk)) = (Fields { bytes: message }).next()? else { return None };
    let (1, Field::Bytes(header)) = (Fields { bytes: chunk }).next()? else { return None };
    (Fields { bytes: header }).find_map(|field| match field {
        (2, Field::Number(at)) => Some(at),
        _ => None,
    })
}

/// The digits that follow `"name":` or `"name":"` in a flat JSON text.
pub fn json_number(text: &str, name: &str) -> Option<i64> {
    let (_, rest) = text.split_once(&format!("\"{name}\":"))?;
    let rest = rest.trim_start().trim_start_matches('"');
    let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '-').unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}
