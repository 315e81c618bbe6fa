//! An independent v2 client that holds every frame against the promise.
//!
//! It reads on the harness runtime; the test steers it and looks into its [`Ledger`]. The first broken promise stops it
//! and fails the test at the next look, at the latest when the client is dropped.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::contract::{Judged as _, Ledger};
use super::eventually::eventually;
use super::producer::Published;
use super::runtime;
use super::socket::{self, Socket};

pub const SUBPROTOCOL: &str = "dashstream.v2";

const WELCOME_BOUND: Duration = Duration::from_secs(30);
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
const APPLIED_EVERY: Duration = Duration::from_millis(100);
/// Control frames that may wait to be sent.
const OUTGOING: usize = 1_000;
/// Text frames that are kept for tests to look at.
const TEXTS_KEPT: usize = 10_000;

/// Where a client begins at its first connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Latest,
    Earliest,
}

/// How a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Fast,
    /// Waits this long after each frame.
    Slow(Duration),
    /// Leaves everything in the socket, and says nothing either.
    Stopped,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub from: From,
    pub reading: Reading,
    /// Whether `applied` is reported.
    pub reports_applied: bool,
    /// Bytes of the kernel's receive buffer; `None` leaves it to the kernel.
    pub receive_buffer: Option<u32>,
    /// More headers of the upgrade.
    pub headers: Vec<(&'static str, String)>,
    /// The filter of each hello; null: none is named.
    pub filter: Value,
    /// What it calls itself.
    pub name: &'static str,
    /// Whether it asks on by itself when a resume was capped, as browsers do.
    pub asks_on: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            from: From::Latest,
            reading: Reading::Fast,
            reports_applied: true,
            receive_buffer: None,
            headers: Vec::new(),
            filter: Value::Null,
            name: "system-test/1",
            asks_on: true,
        }
    }
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The close code, if the service sent one.
    pub code: Option<u16>,
    pub reason: String,
}

impl Closed {
    pub fn by(frame: Option<CloseFrame>) -> Self {
        let code = frame.as_ref().map(|frame| u16::from(frame.code));
        Self { code, reason: frame.map(|frame| frame.reason.to_string()).unwrap_or_default() }
    }

    pub fn without_code(reason: impl ToString) -> Self {
        Self { code: None, reason: reason.to_string() }
    }
}

#[derive(Default)]
struct State {
    ledger: Ledger,
    texts: Vec<Value>,
    closed: Option<Closed>,
    violation: Option<String>,
    last_frame: Option<Instant>,
    longest_pause: Duration,
}

type Shared = Arc<Mutex<State>>;

pub struct Client {
    options: Options,
    state: Shared,
    reading: watch::Sender<Reading>,
    connection: Option<Connection>,
}

struct Connection {
    outgoing: mpsc::Sender<Message>,
    task: JoinHandle<()>,
}

impl Client {
    /// Connects to the service at `address` (`host:port`), says hello and waits for the welcome.
    #[track_caller]
    pub fn connect(address: &str, options: Options) -> Self {
        let reading = watch::Sender::new(options.reading);
        let mut client = Self { options, state: Shared::default(), reading, connection: None };
        client.reconnect(address);
        client
    }

    /// Connects with default options, from the point of the log that is named.
    #[track_caller]
    pub fn from(address: &str, from: From) -> Self {
        Self::connect(address, Options { from, ..Options::default() })
    }

    /// Connects with a first frame of the test's choice, and waits for the welcome.
    #[track_caller]
    pub fn connect_to(address: &str, hello: &Value) -> Self {
        let options = Options::default();
        let reading = watch::Sender::new(options.reading);
        let mut client = Self { options, state: Shared::default(), reading, connection: None };
        client.connect_with(address, hello);
        client.wait_for_welcome();
        client
    }

    /// The first frame of its next connection.
    #[track_caller]
    pub fn next_hello(&self) -> Value {
        self.look(|ledger| hello(ledger, &self.options))
    }

    /// Leaves the old connection, if there is one, and goes on from its own cursor, as a browser does.
    #[track_caller]
    pub fn reconnect(&mut self, address: &str) {
        self.disconnect();
        let mut hello = self.next_hello();
        if !self.options.filter.is_null() {
            hello["filter"] = self.options.filter.clone();
        }
        self.connect_with(address, &hello);
        if self.reading() != Reading::Stopped {
            self.wait_for_welcome();
        }
    }

    #[track_caller]
    fn wait_for_welcome(&self) {
        eventually("a welcome", WELCOME_BOUND, || match self.state(|state| state.ledger.is_welcomed()) {
            true => Ok(()),
            false => Err(self.state(|state| format!("{:?}, {:?}", state.texts.last(), state.closed))),
        });
    }

    /// As [`Client::reconnect`], with a first frame of the test's choice and without waiting for an answer.
    #[track_caller]
    pub fn connect_with(&mut self, address: &str, hello: &Value) {
        self.disconnect();
        let mut socket = eventually("a WebSocket connection", WELCOME_BOUND, || {
            let Options { receive_buffer, headers, .. } = &self.options;
            runtime().block_on(socket::open_with(address, Some(SUBPROTOCOL), *receive_buffer, headers))
        });
        self.state(|state| {
            state.ledger.connected();
            state.closed = None;
        });
        let first = Message::text(hello.to_string());
        runtime().block_on(socket.send(first)).expect("a fresh connection takes a hello");
        let (outgoing, receiver) = mpsc::channel(OUTGOING);
        let (state, reading) = (Arc::clone(&self.state), self.reading.subscribe());
        let task = runtime().spawn(run(socket, state, reading, receiver, self.options.clone()));
        self.connection = Some(Connection { outgoing, task });
    }

    /// Cuts the connection without a close frame.
    pub fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.task.abort();
            // Waits, so that nothing of the old connection touches the ledger later.
            let _ = runtime().block_on(connection.task);
        }
    }

    /// Changes how it reads.
    pub fn read(&self, how: Reading) {
        self.reading.send_replace(how);
    }

    fn reading(&self) -> Reading {
        *self.reading.borrow()
    }

    /// Asks on from its own cursor, on the open connection, as after a capped resume.
    #[track_caller]
    pub fn ask_on(&self) {
        let mut resume = self.look(|ledger| hello(ledger, &self.options));
        resume["type"] = "resume".into();
        self.send(&resume);
    }

    /// Sends a control frame.
    pub fn send(&self, message: &Value) {
        self.send_raw(Message::text(message.to_string()));
    }

    pub fn send_raw(&self, message: Message) {
        let connection = self.connection.as_ref().expect("the client is connected");
        // A connection that has ended takes nothing.
        let _ = connection.outgoing.blocking_send(message);
    }

    /// Looks into the ledger.
    ///
    /// # Panics
    /// When a promise was broken.
    #[track_caller]
    pub fn look<T>(&self, into: impl FnOnce(&Ledger) -> T) -> T {
        self.state(|state| into(&state.ledger))
    }

    /// Records received over all connections.
    #[track_caller]
    pub fn received(&self) -> u64 {
        self.look(|ledger| ledger.received)
    }

    /// Text frames of a type, oldest first.
    #[track_caller]
    pub fn texts(&self, of_type: &str) -> Vec<Value> {
        self.state(|state| state.texts.iter().filter(|text| text["type"] == of_type).cloned().collect())
    }

    /// How the connection ended; `None` while it is open.
    #[track_caller]
    pub fn closed(&self) -> Option<Closed> {
        self.state(|state| state.closed.clone())
    }

    /// When the last binary frame came.
    #[track_caller]
    pub fn last_frame(&self) -> Option<Instant> {
        self.state(|state| state.last_frame)
    }

    /// The longest time between two binary frames since this was last asked, the time since the last one included.
    #[track_caller]
    pub fn longest_pause(&self) -> Duration {
        self.state(|state| {
            let open = state.last_frame.map_or(Duration::ZERO, |last| last.elapsed());
            std::mem::take(&mut state.longest_pause).max(open)
        })
    }

    /// Waits until a condition on the ledger holds; the error is what is shown when it never does.
    #[track_caller]
    pub fn wait_until<T>(&self, what: &str, bound: Duration, condition: impl Fn(&Ledger) -> Result<T, String>) -> T {
        eventually(what, bound, || self.look(&condition).map_err(|seen| self.with_end(seen)))
    }

    /// Waits until the connection has ended.
    #[track_caller]
    pub fn wait_until_closed(&self, bound: Duration) -> Closed {
        eventually("the connection to be closed", bound, || self.closed().ok_or_else(|| "open".to_owned()))
    }

    /// Waits until the stream has come to the end of all that was published, and holds it against that: every good
    /// record byte for byte, every bad one a skip with its reason, no gap, no reset.
    #[track_caller]
    pub fn wait_for_all(&self, published: &Published, bound: Duration) {
        self.wait_for_all_but(published, bound, |_, _| false);
    }

    /// As [`Client::wait_for_all`]; a gap may excuse the offsets for which `excused(partition, offset)` holds.
    #[track_caller]
    pub fn wait_for_all_but(&self, published: &Published, bound: Duration, excused: impl Fn(i32, i64) -> bool) {
        self.wait_until("the end of the stream", bound, |ledger| ledger.has_reached_the_end_of(published));
        self.look(|ledger| {
            assert_eq!(ledger.resets, [], "offsets started again");
            if let Err(difference) = ledger.compare(published, excused) {
                panic!("the stream is not what was published: {difference}");
            }
        });
    }

    fn with_end(&self, seen: String) -> String {
        match self.state(|state| state.closed.clone()) {
            Some(closed) => format!("{seen}; the connection ended: {closed:?}"),
            None => seen,
        }
    }

    #[track_caller]
    fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        // A test that panicked under the lock has failed already.
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(violation) = &state.violation {
            panic!("the service broke its promise: {violation}");
        }
        with(&mut state)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.disconnect();
        if !std::thread::panicking() {
            self.state(|_| ());
        }
    }
}

impl Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").field("options", &self.options).finish_non_exhaustive()
    }
}

/// The first frame: a cursor once there is one.
fn hello(ledger: &Ledger, options: &Options) -> Value {
    let last_offsets = ledger.last_offsets();
    let from = match options.from {
        _ if !last_offsets.is_empty() => "cursor",
        // Known partitions at offset 0: their start is where the client is.
        _ if !ledger.cursor().is_empty() => "earliest",
        From::Latest => "latest",
        From::Earliest => "earliest",
    };
    let mut hello = json!({ "type": "hello", "from": from, "client": options.name });
    if from == "cursor" {
        hello["lastOffsetsByPartition"] = json!(last_offsets);
        hello["epoch"] = json!(ledger.cursor_epoch());
    }
    hello
}

async fn run(
    mut socket: Socket,
    state: Shared,
    mut reading: watch::Receiver<Reading>,
    mut outgoing: mpsc::Receiver<Message>,
    options: Options,
) {
    let reports_applied = options.reports_applied;
    let mut report = tokio::time::interval(APPLIED_EVERY);
    let mut reported = Value::Null;
    loop {
        let how = *reading.borrow_and_update();
        let result = tokio::select! {
            changed = reading.changed() => match changed {
                Ok(()) => Ok(()),
                Err(_) => return,
            },
            message = socket.next(), if how != Reading::Stopped => {
                let result = take_in(&state, message);
                if let (Ok(()), Reading::Slow(pause)) = (&result, how) {
                    tokio::time::sleep(pause).await;
                }
                result
            }
            Some(message) = outgoing.recv() => send(&mut socket, message).await,
            _ = report.tick(), if reports_applied && how != Reading::Stopped => {
                let offsets = json!(lock(&state).ledger.last_offsets());
                match offsets != reported && lock(&state).ledger.is_welcomed() {
                    true => {
                        let message = json!({ "type": "applied", "offsets": offsets }).to_string();
                        reported = offsets;
                        send(&mut socket, Message::text(message)).await
                    }
                    false => Ok(()),
                }
            }
        };
        if let Err(closed) = result {
            lock(&state).closed.get_or_insert(closed);
            return;
        }
        if options.asks_on && lock(&state).ledger.is_to_ask_on() {
            // The service takes 20 resumes in 10 s.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let mut resume = hello(&lock(&state).ledger, &options);
            resume["type"] = "resume".into();
            // A connection that has ended is told by reading.
            let _ = send(&mut socket, Message::text(resume.to_string())).await;
        }
    }
}

fn lock(state: &Shared) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn send(socket: &mut Socket, message: Message) -> Result<(), Closed> {
    match tokio::time::timeout(SEND_TIMEOUT, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        // The end is told by reading, with its code.
        Ok(Err(_)) => Ok(()),
        Err(_) => Err(Closed::without_code(format!("the service took nothing for {SEND_TIMEOUT:?}"))),
    }
}

fn take_in(
    state: &Shared,
    message: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>,
) -> Result<(), Closed> {
    let mut state = lock(state);
    let checked = match message {
        Some(Ok(Message::Binary(bytes))) => {
            let now = Instant::now();
            let pause = state.last_frame.replace(now).map_or(Duration::ZERO, |last| now - last);
            state.longest_pause = state.longest_pause.max(pause);
            state.ledger.binary(bytes)
        }
        Some(Ok(Message::Text(text))) => match serde_json::from_str::<Value>(&text) {
            Ok(value) => {
                let checked = state.ledger.text(&value);
                if state.texts.len() < TEXTS_KEPT {
                    state.texts.push(value);
                }
                checked
            }
            Err(error) => Err(format!("a text frame that is no JSON ({error}): {text}")),
        },
        Some(Ok(Message::Close(frame))) => return Err(Closed::by(frame)),
        // Pings are answered by the library.
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => return Err(Closed::without_code(error)),
        None => return Err(Closed::without_code("end of stream")),
    };
    checked.map_err(|violation| {
        state.violation = Some(violation.clone());
        Closed::without_code(violation)
    })
}
