//! A Redis of a benchmark's own, and an address that accepts and never answers.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use deadpool_redis::redis::{Client, Connection, cmd};

use super::Result;

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A `redis-server` that keeps nothing on disk; it is killed when this is dropped.
pub struct Server {
    /// `redis://host:port`.
    pub url: String,
    child: Child,
}

impl Server {
    /// Starts it on a free port and waits until it answers.
    pub fn start() -> Result<Self> {
        let port = free_port()?;
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
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

/// A listener that accepts everybody and never says a word: a Redis that hangs.
pub struct Hung {
    /// `redis://host:port`.
    pub url: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Hung {
    /// Starts on a free port.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let url = format!("redis://{}", listener.local_addr()?);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            // What was said is left in the sockets, which stay open.
            let mut open = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => open.push(stream),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    Err(_) => break,
                }
            }
            open.len()
        });
        Ok(Self { url, stop, thread: Some(thread) })
    }

    /// Ends it; how many connections it had accepted.
    pub fn stop(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or(0, |thread| thread.join().unwrap_or(0))
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
