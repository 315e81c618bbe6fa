//! Many browsers in one thread: raw sockets behind one epoll, which read, check the promise, count, and report what they
//! have applied.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::Result;
use super::figures::Histogram;
use super::kafka::now_us;
use super::stream_parser::{json_number, producer_time_us, text_frame, v2_frame, ws_frame};

/// What has been applied is reported after so many bytes, or so much time, whichever comes first.
const REPORT_BYTES: usize = 256 * 1024;
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The service takes at most 100 control frames in a second.
const REPORT_PAUSE: Duration = Duration::from_millis(20);
const PING_INTERVAL: Duration = Duration::from_secs(10);
const READ_BUFFER: usize = 256 * 1024;

/// Which protocol the clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `dashstream.v2`, from this position: `latest` or `earliest`.
    V2(&'static str),
    /// No subprotocol; live from the connect on.
    V1,
    /// Frames of v2 that come without a beginning and again and again: counted, not checked.
    Bare,
}

/// What a crowd has seen.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Records.
    pub records: u64,
    /// Bytes, everything included.
    pub bytes: u64,
    /// Binary frames.
    pub frames: u64,
    /// Reads of sockets.
    pub reads: u64,
    /// Offsets that the service told as lost.
    pub lost: u64,
}

/// One browser.
struct Client {
    stream: TcpStream,
    partial: Vec<u8>,
    cursors: BTreeMap<usize, i64>,
    records: u64,
    unreported: usize,
    spoken: Instant,
    announced: Option<(usize, i64)>,
    welcome: bool,
    closed: Option<String>,
}

/// All browsers.
pub struct Crowd {
    epoll: Epoll,
    clients: Vec<Client>,
    buffer: Vec<u8>,
    dialect: Dialect,
    swept: Instant,
    /// What was seen so far.
    pub totals: Totals,
    /// Time from the producer's stamp to here, of every record while [`Crowd::measuring`].
    pub latency: Histogram,
    /// Whether latencies are counted.
    pub measuring: bool,
    /// Binary frames as they came to the first client, up to this many bytes.
    pub capture_limit: usize,
    /// What was captured.
    pub captured: Vec<u8>,
}

impl Crowd {
    /// Connects, says hello, and waits until every client is welcome.
    pub fn connect(address: SocketAddr, count: usize, dialect: Dialect) -> Result<Self> {
        let mut crowd = Self::prepare(dialect)?;
        crowd.add(address, count)?;
        Ok(crowd)
    }

    /// Nobody yet.
    pub fn prepare(dialect: Dialect) -> Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::empty())?,
            clients: Vec::new(),
            buffer: vec![0; READ_BUFFER],
            dialect,
            swept: Instant::now(),
            totals: Totals::default(),
            latency: Histogram::default(),
            measuring: false,
            capture_limit: 0,
            captured: Vec::new(),
        })
    }

    /// Connects more clients.
    pub fn add(&mut self, address: SocketAddr, count: usize) -> Result<()> {
        for _ in 0..count {
            let client = Client::connect(address, self.dialect)?;
            let event = EpollEvent::new(EpollFlags::EPOLLIN, self.clients.len() as u64);
            self.epoll.add(&client.stream, event)?;
            self.clients.push(client);
        }
        if matches!(self.dialect, Dialect::V2(_)) {
            let deadline = Instant::now() + Duration::from_secs(30);
            while self.clients.iter().any(|client| !client.welcome) {
                self.turn(Duration::from_millis(100))?;
                self.all_open()?;
                if Instant::now() > deadline {
                    return Err("not every client was welcome within 30 s".into());
                }
            }
        }
        Ok(())
    }

    /// Reads for that long.
    pub fn run_for(&mut self, time: Duration) -> Result<()> {
        self.run_until(Instant::now() + time, |_| false).map(drop)
    }

    /// Reads until `done` or the deadline; whether it was `done`.
    pub fn run_until(&mut self, deadline: Instant, mut done: impl FnMut(&Self) -> bool) -> Result<bool> {
        while !done(self) {
            if Instant::now() > deadline {
                return Ok(false);
            }
            self.turn(Duration::from_millis(20))?;
        }
        Ok(true)
    }

    /// An error when a client was closed.
    pub fn all_open(&self) -> Result<()> {
        let closed: Vec<_> = self.clients.iter().filter_map(|client| client.closed.as_deref()).collect();
        match closed.first() {
            Some(first) => {
                Err(format!("{} of {} clients were closed, the first: {first}", closed.len(), self.clients.len())
                    .into())
            }
            None => Ok(()),
        }
    }

    /// How many records the client that has the fewest has.
    pub fn fewest_records(&self) -> u64 {
        self.clients.iter().map(|client| client.records).min().unwrap_or_default()
    }

    fn turn(&mut self, timeout: Duration) -> Result<()> {
        let mut events = [EpollEvent::empty(); 256];
        let ready = match self.epoll.wait(&mut events, EpollTimeout::try_from(timeout)?) {
            Err(nix::errno::Errno::EINTR) => 0,
            other => other?,
        };
        for event in &events[..ready] {
            self.read(event.data() as usize)?;
        }
        if self.swept.elapsed() > REPORT_PAUSE && self.dialect != Dialect::Bare {
            self.swept = Instant::now();
            let due =
                |client: &&mut Client| client.unreported >= REPORT_BYTES || client.spoken.elapsed() > REPORT_INTERVAL;
            self.clients.iter_mut().filter(due).for_each(|client| client.speak(self.dialect));
        }
        Ok(())
    }

    fn read(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        let count = match client.stream.read(&mut self.buffer) {
            Ok(0) => return self.close(index, "end of stream".to_owned()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return self.close(index, error.to_string()),
        };
        self.totals.reads += 1;
        self.totals.bytes += count as u64;
        let mut carried = std::mem::take(&mut client.partial);
        let mut buffer = std::mem::take(&mut self.buffer);
        let used = if carried.is_empty() {
            let used = self.frames(index, &buffer[..count]);
            carried.extend_from_slice(&buffer[used.as_ref().copied().unwrap_or(0)..count]);
            used.map(|_| 0)
        } else {
            carried.extend_from_slice(&buffer[..count]);
            self.frames(index, &carried)
        };
        std::mem::swap(&mut self.buffer, &mut buffer);
        match used {
            Ok(used) => {
                carried.drain(..used);
                // An idle client must not keep what one large frame needed.
                if carried.is_empty() {
                    carried = Vec::new();
                }
                self.clients[index].partial = carried;
                Ok(())
            }
            Err(problem) => Err(format!("client {index}: {problem}").into()),
        }
    }

    /// Takes whole frames from the start of `bytes`; gives how many bytes they were.
    fn frames(&mut self, index: usize, bytes: &[u8]) -> Result<usize> {
        let mut used = 0;
        while let Some(frame) = ws_frame(&bytes[used..]) {
            let (start, end) = (used + frame.header, used + frame.header + frame.payload);
            let Some(payload) = bytes.get(start..end) else { break };
            match frame.opcode {
                1 => self.text(index, std::str::from_utf8(payload)?)?,
                2 => {
                    self.binary(index, payload)?;
                    if index == 0 && self.captured.len() < self.capture_limit {
                        self.captured.extend_from_slice(&bytes[used..end]);
                    }
                }
                8 => {
                    let code = payload.get(..2).map_or(0, |code| u16::from_be_bytes([code[0], code[1]]));
                    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                    self.close(index, format!("close {code} {reason}"))?;
                }
                9 => {
                    let mut pong = text_frame(std::str::from_utf8(payload).unwrap_or_default());
                    pong[0] = 0x8a;
                    let _ = self.clients[index].stream.write(&pong);
                }
                10 => {}
                other => return Err(format!("unexpected opcode {other}").into()),
            }
            used = end;
        }
        let client = &mut self.clients[index];
        client.unreported += used;
        if client.unreported >= REPORT_BYTES {
            client.speak(self.dialect);
        }
        Ok(used)
    }

    fn text(&mut self, index: usize, text: &str) -> Result<()> {
        let client = &mut self.clients[index];
        // Every cursor of v1 is such a frame: no JSON parser for it.
        if text.contains("\"type\":\"cursor\"") {
            let partition = json_number(text, "partition").ok_or("cursor without partition")?;
            client.announced = Some((partition as usize, json_number(text, "offset").ok_or("cursor without offset")?));
        } else if text.contains("\"welcome\"") {
            let welcome: serde_json::Value = serde_json::from_str(text)?;
            let partitions = welcome["partitions"].as_object().ok_or("welcome without partitions")?;
            for (partition, position) in partitions {
                let from = position["from"].as_str().ok_or("welcome without from")?.parse()?;
                client.cursors.insert(partition.parse()?, from);
            }
            client.welcome = true;
        } else if text.contains("\"error\"") || text.contains("\"cursor_reset\"") || text.contains("\"gap\"") {
            return Err(text.to_owned().into());
        }
        Ok(())
    }

    fn binary(&mut self, index: usize, payload: &[u8]) -> Result<()> {
        self.totals.frames += 1;
        let now = if self.measuring { now_us() } else { 0 };
        let latency = &mut self.latency;
        let mut see = |value: &[u8]| {
            if now > 0
                && let Some(sent) = producer_time_us(value)
            {
                latency.add(now.saturating_sub(sent));
            }
        };
        let client = &mut self.clients[index];
        let (partition, first, next, records) = match self.dialect {
            Dialect::V1 => {
                let (partition, offset) = client.announced.take().ok_or("a record without its cursor")?;
                see(payload);
                client.cursors.entry(partition).or_insert(offset);
                (partition, offset, offset + 1, 1)
            }
            Dialect::V2(_) | Dialect::Bare => {
                let covered = v2_frame(payload, see)?;
                self.totals.lost += covered.lost;
                (covered.partition, covered.first, covered.next, covered.records)
            }
        };
        self.totals.records += records;
        client.records += records;
        if self.dialect != Dialect::Bare {
            let cursor = client.cursors.get_mut(&partition).ok_or("a partition that welcome did not name")?;
            if *cursor != first {
                return Err(format!("partition {partition}: expected offset {cursor}, got {first}").into());
            }
            *cursor = next;
        }
        Ok(())
    }

    fn close(&mut self, index: usize, reason: String) -> Result<()> {
        let client = &mut self.clients[index];
        if client.closed.is_none() {
            self.epoll.delete(&client.stream)?;
            client.closed = Some(reason);
        }
        Ok(())
    }
}

impl Client {
    fn connect(address: SocketAddr, dialect: Dialect) -> Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let protocol = if dialect == Dialect::V1 { "" } else { "Sec-WebSocket-Protocol: dashstream.v2\r\n" };
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{protocol}\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut head = Vec::new();
        let end = loop {
            let mut part = [0; 1024];
            let count = stream.read(&mut part)?;
            head.extend_from_slice(&part[..count]);
            if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if count == 0 || head.len() > 16_384 {
                return Err(format!("no answer to the upgrade: {}", String::from_utf8_lossy(&head)).into());
            }
        };
        if !head.starts_with(b"HTTP/1.1 101") {
            return Err(String::from_utf8_lossy(&head).into_owned().into());
        }
        if let Dialect::V2(from) = dialect {
            let hello = format!(r#"{{"type":"hello","from":"{from}","client":"bench"}}"#);
            stream.write_all(&text_frame(&hello))?;
        }
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            partial: head.split_off(end),
            cursors: BTreeMap::new(),
            records: 0,
            unreported: 0,
            spoken: Instant::now(),
            announced: None,
            welcome: false,
            closed: None,
        })
    }

    /// Tells what has been applied, which is everything that was read; or only that somebody is there. A full socket loses
    /// a report, not the stream.
    fn speak(&mut self, dialect: Dialect) {
        let frame = match dialect {
            Dialect::V2(_) if self.unreported > 0 && self.spoken.elapsed() >= REPORT_PAUSE => {
                let offsets: Vec<_> =
                    self.cursors.iter().map(|(partition, next)| format!(r#""{partition}":"{}""#, next - 1)).collect();
                format!(r#"{{"type":"applied","offsets":{{{}}}}}"#, offsets.join(","))
            }
            Dialect::V2(_) | Dialect::V1 if self.spoken.elapsed() > PING_INTERVAL => r#"{"type":"ping"}"#.to_owned(),
            _ => return,
        };
        self.unreported = 0;
        self.spoken = Instant::now();
        let _ = self.stream.write(&text_frame(&frame));
    }
}
