//! An independent v1 client: what existing browser clients do, with the checks that they should make.
//!
//! Checked on every frame: a `cursor` before each binary frame and none without one; offsets rise strictly per
//! partition, until a `cursor_reset` says otherwise.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use super::client::Closed;
use super::contract::{Fingerprint, offset};
use super::eventually::eventually;
use super::producer::Published;
use super::records::Expect;
use super::runtime;
use super::socket::{self, Socket};

const CONNECT_BOUND: Duration = Duration::from_secs(30);

/// What a v1 client has seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub records: BTreeMap<(i32, i64), Fingerprint>,
    /// Text frames other than `cursor`, in order.
    pub texts: Vec<Value>,
    pub closed: Option<Closed>,
    /// A `cursor` whose binary frame has not come yet.
    announced: Option<(i32, i64)>,
    last: BTreeMap<i32, i64>,
    violation: Option<String>,
}

impl Seen {
    /// Per partition the last offset, as `resume` sends it.
    pub fn last_offsets(&self) -> BTreeMap<String, String> {
        self.last.iter().map(|(partition, offset)| (partition.to_string(), offset.to_string())).collect()
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        let message: Value = serde_json::from_str(text).map_err(|error| format!("no JSON ({error}): {text}"))?;
        if let Some(place) = self.announced {
            return Err(format!("the cursor {place:?} is followed by {text}"));
        }
        match message["type"].as_str() {
            Some("cursor") => return self.cursor(&message),
            Some("cursor_reset") => drop(self.last.remove(&partition(&message)?)),
            Some(_) => {}
            None => return Err(format!("a text frame without a type: {text}")),
        }
        self.texts.push(message);
        Ok(())
    }

    fn cursor(&mut self, message: &Value) -> Result<(), String> {
        let place = (partition(message)?, offset(message, "offset")?);
        if let Some(last) = self.last.get(&place.0).filter(|last| **last >= place.1) {
            return Err(format!("the cursor {place:?} comes after offset {last}"));
        }
        self.announced = Some(place);
        Ok(())
    }

    fn binary(&mut self, value: &[u8]) -> Result<(), String> {
        let place = self.announced.take().ok_or("a binary frame without a cursor before it")?;
        self.last.insert(place.0, place.1);
        self.records.insert(place, Fingerprint::of(value));
        Ok(())
    }

    /// Whether every good record that was published is there, byte for byte, and nothing else.
    pub fn compare(&self, published: &Published) -> Result<(), String> {
        for sent in published.records.values().filter(|sent| sent.expect == Expect::Record) {
            let got = self.records.get(&(sent.partition, sent.offset));
            if got != sent.value.as_deref().map(Fingerprint::of).as_ref() {
                let place = (sent.partition, sent.offset);
                return Err(format!("{place:?}: received {got:?}; {} records so far", self.records.len()));
            }
        }
        match self.records.keys().find(|place| !published.records.contains_key(place)) {
            Some(place) => Err(format!("{place:?} was never published")),
            None => Ok(()),
        }
    }
}

pub struct V1Client {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl V1Client {
    /// Connects to `address` (`host:port`) without a subprotocol; `resume` is the first frame if given.
    #[track_caller]
    pub fn connect(address: &str, resume: Option<&Value>) -> Self {
        Self::connect_with(address, resume, &[])
    }

    /// As [`V1Client::connect`], with more headers of the upgrade.
    #[track_caller]
    pub fn connect_with(address: &str, resume: Option<&Value>, headers: &socket::Headers) -> Self {
        let mut socket = eventually("a WebSocket connection", CONNECT_BOUND, || {
            runtime().block_on(socket::open_with(address, None, None, headers))
        });
        if let Some(resume) = resume {
            runtime().block_on(socket.send(Message::text(resume.to_string()))).expect("a fresh connection");
        }
        let seen = Arc::<Mutex<Seen>>::default();
        let task = runtime().spawn(run(socket, Arc::clone(&seen)));
        Self { seen, task }
    }

    /// # Panics
    /// When the protocol was broken.
    #[track_caller]
    pub fn look<T>(&self, into: impl FnOnce(&Seen) -> T) -> T {
        let seen = lock(&self.seen);
        if let Some(violation) = &seen.violation {
            panic!("the service broke the v1 protocol: {violation}");
        }
        into(&seen)
    }

    /// Waits until all good records are there, byte for byte.
    #[track_caller]
    pub fn wait_for_all(&self, published: &Published, bound: Duration) {
        let good = published.good();
        eventually("all records at the v1 client", bound, || {
            self.look(|seen| match seen.records.len() >= good {
                true => seen.compare(published),
                false => Err(format!("{} of {good} records, closed: {:?}", seen.records.len(), seen.closed)),
            })
        });
    }

    #[track_caller]
    pub fn wait_until_closed(&self, bound: Duration) -> Closed {
        eventually("the v1 connection to be closed", bound, || {
            self.look(|seen| seen.closed.clone().ok_or_else(|| "open".to_owned()))
        })
    }
}

impl Drop for V1Client {
    fn drop(&mut self) {
        self.task.abort();
        if !std::thread::panicking() {
            self.look(|_| ());
        }
    }
}

async fn run(mut socket: Socket, seen: Arc<Mutex<Seen>>) {
    loop {
        let message = socket.next().await;
        let mut seen = lock(&seen);
        let checked = match message {
            Some(Ok(Message::Text(text))) => seen.text(&text),
            Some(Ok(Message::Binary(bytes))) => seen.binary(&bytes),
            Some(Ok(Message::Close(frame))) => {
                seen.closed = Some(Closed::by(frame));
                return;
            }
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => {
                seen.closed = Some(Closed::without_code(error));
                return;
            }
            None => {
                seen.closed = Some(Closed::without_code("end of stream"));
                return;
            }
        };
        if let Err(violation) = checked {
            seen.violation = Some(violation);
            return;
        }
    }
}

fn lock(seen: &Arc<Mutex<Seen>>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn partition(message: &Value) -> Result<i32, String> {
    let number = message["partition"].as_i64().and_then(|number| i32::try_from(number).ok());
    number.ok_or_else(|| format!("partition must be a JSON number: {message}"))
}
