//! Many v2 clients that cost little: each checks that frames touch each other and counts, nothing more.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use super::client::SUBPROTOCOL;
use super::contract::offset;
use super::eventually::eventually;
use super::{runtime, socket};

/// The head of a frame; its items are passed over.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Head {
    #[prost(int32, tag = "1")]
    partition: i32,
    #[prost(int64, tag = "2")]
    first_offset: i64,
    #[prost(int64, tag = "3")]
    next_offset: i64,
}

#[derive(Default)]
struct One {
    next: Mutex<BTreeMap<i32, i64>>,
    bytes: AtomicU64,
    welcomed: AtomicBool,
    ended: Mutex<Option<String>>,
}

pub struct Swarm {
    clients: Vec<Arc<One>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Swarm {
    /// Connects `count` clients, from `latest` on, and waits until all are welcomed.
    #[track_caller]
    pub fn connect(address: &str, count: usize) -> Self {
        let clients: Vec<Arc<One>> = (0..count).map(|_| Arc::default()).collect();
        let mut tasks = Vec::new();
        // In steps, so that no listener overflows.
        for some in clients.chunks(100) {
            for one in some {
                let (one, address) = (Arc::clone(one), address.to_owned());
                tasks.push(runtime().spawn(async move {
                    let end = run(&address, &one).await.err().unwrap_or_else(|| "end of stream".to_owned());
                    *one.ended.lock().expect("no panic under this lock") = Some(end);
                }));
            }
            eventually("the swarm to be welcomed", Duration::from_secs(60), || {
                match some.iter().filter(|one| !one.welcomed.load(Ordering::Relaxed)).count() {
                    0 => Ok(()),
                    left => Err(format!("{left} of {} are not", some.len())),
                }
            });
        }
        let swarm = Self { clients, tasks };
        swarm.all_are_open();
        swarm
    }

    #[track_caller]
    pub fn all_are_open(&self) {
        for one in &self.clients {
            let ended = one.ended.lock().expect("no panic under this lock").clone();
            assert_eq!(ended, None, "a client of the swarm has ended");
        }
    }

    /// Waits until each client has been brought to `ends`, without a hole.
    #[track_caller]
    pub fn wait_for(&self, ends: &BTreeMap<i32, i64>, bound: Duration) {
        eventually("the swarm to have everything", bound, || {
            self.all_are_open();
            let behind = |one: &&Arc<One>| {
                let next = one.next.lock().expect("no panic under this lock");
                ends.iter().any(|(partition, end)| next.get(partition).is_none_or(|next| next < end))
            };
            match self.clients.iter().filter(behind).count() {
                0 => Ok(()),
                left => Err(format!("{left} of {} are behind", self.clients.len())),
            }
        });
    }

    /// Bytes of binary frames, over all clients.
    pub fn bytes(&self) -> u64 {
        self.clients.iter().map(|one| one.bytes.load(Ordering::Relaxed)).sum()
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn run(address: &str, one: &One) -> Result<(), String> {
    let mut socket = socket::open(address, Some(SUBPROTOCOL), None).await?;
    let hello = json!({ "type": "hello", "from": "latest" }).to_string();
    socket.send(Message::text(hello)).await.map_err(|error| error.to_string())?;
    while let Some(message) = socket.next().await {
        match message.map_err(|error| error.to_string())? {
            Message::Binary(bytes) => {
                let head = <Head as prost::Message>::decode(&*bytes).map_err(|error| error.to_string())?;
                one.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                let mut next = one.next.lock().map_err(|error| error.to_string())?;
                match next.insert(head.partition, head.next_offset) {
                    Some(cursor) if cursor == head.first_offset => {}
                    cursor => return Err(format!("{head:?} comes at {cursor:?}")),
                }
            }
            Message::Text(text) => {
                let text: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
                match text["type"].as_str() {
                    Some("welcome") => {
                        let mut next = one.next.lock().map_err(|error| error.to_string())?;
                        for (partition, position) in text["partitions"].as_object().into_iter().flatten() {
                            let partition = partition.parse().map_err(|_| format!("no partition: {partition}"))?;
                            next.insert(partition, offset(position, "from")?);
                        }
                        one.welcomed.store(true, Ordering::Relaxed);
                    }
                    Some("error" | "cursor_reset") => return Err(text.to_string()),
                    _ => {}
                }
            }
            Message::Close(frame) => return Err(format!("closed: {frame:?}")),
            _ => {}
        }
    }
    Ok(())
}
