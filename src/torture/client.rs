//! One client that misbehaves.

use std::time::{Duration, Instant};

use fastrand::Rng;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::crowd::Verdict;
use super::ledger::{Ledger, Violation};
use super::{Goal, Settings, Shared, Telling};

type Socket = WebSocketStream<tokio::net::TcpStream>;

/// The kernel's buffer of a client that shall be slow: what it holds is not the service's business any more.
const RECEIVE_BUFFER: u32 = 16 * 1024;
/// One try to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// Between tries to connect, and before a client asks on.
const PAUSE: Duration = Duration::from_millis(500);
/// How long it behaves well before it looks whether it still has to.
const CALM: Duration = Duration::from_millis(200);
/// Between reports of what was applied.
const REPORT: Duration = Duration::from_millis(200);

/// What a client does for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conduct {
    Reads,
    ReadsSlowly,
    Stalls,
    Leaves,
    ComesAndGoes,
}

const CONDUCTS: [(Conduct, &str); 5] = [
    (Conduct::Reads, "reads"),
    (Conduct::ReadsSlowly, "reads slowly"),
    (Conduct::Stalls, "reads nothing"),
    (Conduct::Leaves, "leaves without a word"),
    (Conduct::ComesAndGoes, "comes and goes"),
];

/// Why reading ended.
enum End {
    /// The time was up.
    Time,
    /// The connection has ended.
    Connection,
}

pub(super) struct Client {
    number: u32,
    settings: Settings,
    shared: Shared,
    random: Rng,
    ledger: Ledger,
    socket: Option<Socket>,
    reported: Instant,
    /// Frames that had come by then.
    reported_frames: u64,
    /// Losses of all connections, when this one was opened.
    cuts: u64,
    ask_on: Option<Instant>,
    /// Records that were counted.
    counted: u64,
    /// A promise was broken to it: what it holds since then is not all.
    broken: bool,
}

impl Client {
    pub(super) fn new(number: u32, settings: &Settings, shared: Shared) -> Self {
        let random = Rng::with_seed(settings.seed ^ (u64::from(number) << 32));
        let (ledger, settings) = (Ledger::default(), settings.clone());
        let (reported, ask_on) = (Instant::now(), None);
        Self {
            number,
            settings,
            shared,
            random,
            ledger,
            socket: None,
            reported,
            reported_frames: 0,
            cuts: 0,
            ask_on,
            counted: 0,
            broken: false,
        }
    }

    /// Behaves in one way after the other until `end`, or until it is over for all.
    pub(super) async fn misbehave(&mut self, end: Instant) {
        while Instant::now() < end && !self.shared.lock().at_an_end {
            if self.shared.lock().calm {
                self.read(Instant::now() + CALM, Duration::ZERO).await;
                continue;
            }
            let (conduct, name) = CONDUCTS.get(self.random.usize(..CONDUCTS.len())).copied().unwrap_or(CONDUCTS[0]);
            let until = end.min(Instant::now() + Duration::from_millis(self.random.u64(200..3_000)));
            self.shared.count(name);
            match conduct {
                Conduct::Reads => self.read(until, Duration::ZERO).await,
                Conduct::ReadsSlowly => {
                    let pause = Duration::from_millis(self.random.u64(1..50));
                    self.read(until, pause).await;
                }
                Conduct::Stalls => tokio::time::sleep_until(until.into()).await,
                Conduct::Leaves => {
                    self.socket = None;
                    tokio::time::sleep_until(until.into()).await;
                }
                Conduct::ComesAndGoes => {
                    for _ in 0..self.random.u32(2..8) {
                        self.socket = None;
                        let stay = Duration::from_millis(self.random.u64(5..100));
                        self.read(Instant::now() + stay, Duration::ZERO).await;
                    }
                }
            }
        }
    }

    /// Behaves well until it has come as far as the others.
    pub(super) async fn reach(&mut self, goal: &Goal) {
        let deadline = Instant::now() + self.settings.patience;
        let mut goal = goal.clone();
        loop {
            {
                let state = self.shared.lock();
                if state.newest != goal.epoch {
                    goal = state.goal();
                }
            }
            let is_behind = |(partition, next): &(&i32, &i64)| {
                self.ledger.epoch_of(**partition) != goal.epoch.as_deref()
                    || self.ledger.cursor().get(partition).is_none_or(|at| at < next)
            };
            let missing = goal.furthest.iter().filter(is_behind).count();
            if missing == 0 {
                return;
            }
            if Instant::now() >= deadline {
                let what =
                    format!("it did not reach the end of {missing} partitions within {:?}", self.settings.patience);
                return self.shared.violation(self.number, &what);
            }
            self.read(deadline.min(Instant::now() + PAUSE), Duration::ZERO).await;
        }
    }

    /// Behaves well until it has all that was published.
    pub(super) async fn face(&mut self, verdict: &Verdict) {
        let deadline = Instant::now() + self.settings.patience;
        while !self.broken
            && !self.shared.lock().abandoned
            && let Err(why) = verdict.judge(self.number, self.is_from_the_start(), &self.ledger)
        {
            if Instant::now() >= deadline {
                self.shared.violation(self.number, &why);
                break;
            }
            self.read(deadline.min(Instant::now() + PAUSE), Duration::ZERO).await;
        }
        self.count_gaps();
    }

    fn is_from_the_start(&self) -> bool {
        self.settings.telling == Telling::AgainstTheTruth && !self.number.is_multiple_of(2)
    }

    /// Reads until then, connecting as often as it takes; waits after each frame.
    async fn read(&mut self, until: Instant, pause: Duration) {
        while Instant::now() < until {
            if self.socket.is_none() && !self.connect().await {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            match self.frames(until, pause).await {
                Ok(End::Time) => return,
                Ok(End::Connection) => self.socket = None,
                Err(violation) => {
                    self.shared.violation(self.number, &violation);
                    // It begins anew: one broken promise is told once.
                    self.ledger = Ledger::default();
                    (self.counted, self.broken) = (0, true);
                    self.socket = None;
                }
            }
        }
    }

    async fn frames(&mut self, until: Instant, pause: Duration) -> Result<End, Violation> {
        while let Some(socket) = &mut self.socket {
            if self.shared.lock().cuts != self.cuts {
                return Ok(End::Connection);
            }
            // A timeout does not tell while something is always there.
            if Instant::now() >= until {
                return Ok(End::Time);
            }
            // Who was parked, or has not said what it applied, may be told nothing before it speaks.
            let due = until.min(Instant::now() + REPORT);
            let message = match tokio::time::timeout_at(due.into(), socket.next()).await {
                Err(_) if due < until => {
                    self.speak().await;
                    continue;
                }
                Err(_) => return Ok(End::Time),
                Ok(Some(Ok(message))) => message,
                Ok(None | Some(Err(_))) => return Ok(End::Connection),
            };
            match message {
                Message::Binary(bytes) => {
                    self.ledger.binary(bytes)?;
                    self.compare()?;
                }
                Message::Text(text) => {
                    let text: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
                    let resets = self.ledger.resets.len();
                    self.ledger.text(&text)?;
                    for reset in self.ledger.resets.iter().skip(resets).cloned() {
                        let epoch = self.ledger.epoch_of(reset.partition).unwrap_or_default();
                        self.shared.lock().reset(reset, epoch);
                    }
                    if self.ledger.is_to_ask_on() {
                        self.ask_on = Some(Instant::now() + PAUSE);
                    }
                }
                Message::Close(frame) => {
                    let code = frame.map_or(0, |frame| u16::from(frame.code));
                    return match code {
                        1002 | 1008 | 1009 | 4500.. => {
                            Err(format!("the service closed with {code}: the client is at fault"))
                        }
                        _ => Ok(End::Connection),
                    };
                }
                _ => {}
            }
            self.speak().await;
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        Ok(End::Connection)
    }

    /// Holds what came against what other clients got, or keeps it for the truth.
    fn compare(&mut self) -> Result<(), Violation> {
        let mut state = self.shared.lock();
        state.report.records += self.ledger.received - self.counted;
        self.counted = self.ledger.received;
        if self.settings.telling == Telling::AgainstEachOther {
            for (place, record) in std::mem::take(&mut self.ledger.records) {
                let epoch = self.ledger.epoch_of(place.0).unwrap_or_default();
                if !state.compare(epoch, place, record) {
                    return Err(format!("another client got another record at {place:?}"));
                }
            }
        }
        for (partition, next) in self.ledger.cursor() {
            let epoch = self.ledger.epoch_of(*partition).unwrap_or_default();
            state.has_come(epoch, *partition, *next);
            if *next > 0 {
                state.known.entry(self.number).or_default().insert(*partition);
            }
        }
        drop(state);
        if self.settings.telling == Telling::AgainstEachOther {
            self.count_gaps();
            self.ledger.forget();
        }
        Ok(())
    }

    fn count_gaps(&self) {
        let mut state = self.shared.lock();
        for gap in &self.ledger.gaps {
            *state.report.gaps.entry(gap.reason.as_str_name().to_owned()).or_default() += 1;
        }
    }

    /// Says what is due: what was applied, and that it wants more.
    async fn speak(&mut self) {
        let mut say = None;
        if self.ask_on.is_some_and(|due| due <= Instant::now()) {
            self.ask_on = None;
            say = Some(self.hello("resume"));
        } else if self.reported.elapsed() >= REPORT
            && self.reported_frames != self.ledger.frames
            && self.ledger.is_welcomed()
        {
            (self.reported, self.reported_frames) = (Instant::now(), self.ledger.frames);
            say = Some(json!({ "type": "applied", "offsets": self.ledger.last_offsets() }));
        }
        if let (Some(say), Some(socket)) = (say, &mut self.socket) {
            // An end is told by reading.
            let _ = tokio::time::timeout(CONNECT, socket.send(Message::text(say.to_string()))).await;
        }
    }

    fn hello(&self, kind: &str) -> Value {
        const NAME: &str = "dashstream-torture";
        let last = self.ledger.last_offsets();
        if last.is_empty() {
            // Known partitions at offset 0: their start is where it is.
            let is_new = self.ledger.cursor().is_empty() && !self.is_from_the_start();
            let from = if is_new { "latest" } else { "earliest" };
            return json!({ "type": kind, "from": from, "client": NAME });
        }
        let epoch = self.ledger.cursor_epoch();
        json!({ "type": kind, "from": "cursor", "lastOffsetsByPartition": last, "epoch": epoch, "client": NAME })
    }

    async fn connect(&mut self) -> bool {
        let address = {
            let mut state = self.shared.lock();
            self.cuts = state.cuts;
            match self.random.choice(&mut state.addresses) {
                Some(address) => address.clone(),
                None => return false,
            }
        };
        let opened = tokio::time::timeout(CONNECT, open(&address, self.settings.token.as_deref())).await;
        let Ok(Ok(mut socket)) = opened else { return false };
        self.ledger.connected();
        self.ask_on = None;
        self.shared.lock().report.connections += 1;
        let said = socket.send(Message::text(self.hello("hello").to_string())).await.is_ok();
        self.socket = said.then_some(socket);
        said
    }
}

async fn open(address: &str, token: Option<&str>) -> Result<Socket, Box<dyn std::error::Error + Send + Sync>> {
    let target = tokio::net::lookup_host(address).await?.next().ok_or("the name has no address")?;
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    let stream = socket.connect(target).await?;
    let mut request = format!("ws://{address}/ws").into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("dashstream.v2"));
    if let Some(token) = token {
        request.headers_mut().insert("authorization", HeaderValue::from_str(&format!("Bearer {token}"))?);
    }
    // A batch of large records is one message.
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    Ok(tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?.0)
}
