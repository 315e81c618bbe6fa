//! A Redis of a benchmark's own, one that answers late, and an address that accepts and never answers.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use deadpool_redis::redis::{Client, Connection, cmd};

use super::Result;

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Pieces of answers that wait in a relay; more wait in the sockets.
const RELAYED: usize = 4_096;

/// A `redis-server` that keeps nothing on disk; it is killed when this is dropped.
pub struct Server {
    /// `redis://host:port`.
    pub url: String,
    child: Child,
}

impl Server {
    /// Starts it on a free port and waits until it answers.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// The same, with arguments of its own.
    pub fn start_with(arguments: &[&str]) -> Result<Self> {
        let port = free_port()?;
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("redis-server cannot be run ({error}); `scripts/setup` installs it"))?;
        let server = Self { url: format!("redis://127.0.0.1:{port}"), child };
        let begun = Instant::now();
        while server.client().is_err() {
            if begun.elapsed() > START_TIMEOUT {
                return Err("redis-server does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// A connection past everything of ours.
    pub fn client(&self) -> Result<Connection> {
        Ok(Client::open(self.url.as_str())?.get_connection()?)
    }

    /// A number of its `INFO`: what follows a text like `evicted_keys:`. What it did not write is 0.
    pub fn info(&self, section: &str, before: &str) -> Result<u64> {
        let text: String = cmd("INFO").arg(section).query(&mut self.client()?)?;
        let number = text.lines().find_map(|line| line.strip_prefix(before)?.trim().parse().ok());
        Ok(number.unwrap_or(0))
    }

    /// Bytes that a key uses.
    pub fn memory(&self, key: &str) -> Result<u64> {
        Ok(cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0).query(&mut self.client()?)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port on which nobody listens.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A listener with a thread of its own that accepts until it is stopped.
struct Door {
    url: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Door {
    /// Starts on a free port; `enter` is given every connection.
    fn open(mut enter: impl FnMut(TcpStream) + Send + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let url = format!("redis://{}", listener.local_addr()?);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut accepted = 0;
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        accepted += 1;
                        enter(stream);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    Err(_) => break,
                }
            }
            accepted
        });
        Ok(Self { url, stop, thread: Some(thread) })
    }

    /// Ends it; how many connections it had accepted.
    fn close(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or(0, |thread| thread.join().unwrap_or(0))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A listener that accepts everybody and never says a word: a Redis that hangs.
pub struct Hung(Door);

impl Hung {
    /// Starts on a free port.
    pub fn start() -> Result<Self> {
        // What was said is left in the sockets, which stay open.
        let mut open = Vec::new();
        Ok(Self(Door::open(move |stream| open.push(stream))?))
    }

    /// `redis://host:port`.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// Ends it; how many connections it had accepted.
    pub fn stop(self) -> usize {
        self.0.close()
    }
}

/// The way to a server by which every answer comes later. Questions pass at once, and answers do not wait for each other.
pub struct Slow {
    door: Door,
    delayed: Arc<AtomicU64>,
}

impl Slow {
    /// Starts on a free port.
    pub fn start(server: &Server, delay: Duration) -> Result<Self> {
        let address = server.url.trim_start_matches("redis://").to_owned();
        let delayed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&delayed);
        let door = Door::open(move |near| {
            // Without a way on, the connection is closed, which whoever asks takes for a dead server.
            if let Ok(far) = TcpStream::connect(&address) {
                let _ = relay(near, far, delay, &count);
            }
        })?;
        Ok(Self { door, delayed })
    }

    /// `redis://host:port`.
    pub fn url(&self) -> &str {
        &self.door.url
    }

    /// Ends it; how many connections it had accepted, and how many pieces of answers came later.
    pub fn stop(self) -> (usize, u64) {
        (self.door.close(), self.delayed.load(Ordering::Relaxed))
    }
}

/// Three threads that end with their connection: questions, answers as they come, and answers as they are due.
fn relay(near: TcpStream, far: TcpStream, delay: Duration, count: &Arc<AtomicU64>) -> std::io::Result<()> {
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (mut asks, mut asked) = (near.try_clone()?, far.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut asks, &mut asked);
        let _ = asked.shutdown(Shutdown::Write);
    });
    let (mut answers, mut answered) = (far, near);
    let (come, due) = sync_channel::<(Instant, Vec<u8>)>(RELAYED);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = answers.read(&mut buffer) {
            if come.send((Instant::now() + delay, buffer[..length].to_vec())).is_err() {
                break;
            }
        }
    });
    let count = Arc::clone(count);
    std::thread::spawn(move || {
        for (at, piece) in due {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if answered.write_all(&piece).is_err() {
                break;
            }
            count.fetch_add(1, Ordering::Relaxed);
        }
        let _ = answered.shutdown(Shutdown::Both);
    });
    Ok(())
}
