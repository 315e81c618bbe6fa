//! A TCP proxy that keeps its port and breaks on command.
//!
//! Like a network, it closes connections or holds bytes back, and loses or alters none; only where it stands before a
//! broker of Kafka it writes the addresses of proxies into the answers that name brokers.

pub mod kafka_frames;

mod connection;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use self::connection::carry_until_end;
use self::kafka_frames::Addresses;

/// What the proxy does to its connections, present and future.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// None: bytes pass at once.
    Healed,
    /// Open connections are reset, new ones are refused.
    Cut,
    /// Connections are accepted and stay open; nothing is forwarded. What was held back goes on after it.
    BlackHole,
    /// Each byte arrives this much later, in both directions.
    Delay(Duration),
    /// At most this many bytes per second and direction of each connection.
    Throttle(u64),
}

/// A fault, whose connections it hits (all, or those whose client id contains the text), and whom to tell once it holds.
type Command = (Fault, Option<String>, std_mpsc::Sender<()>);

/// What holds for everybody, and for the connections of some clients.
#[derive(Clone, Debug)]
struct Faults {
    all: Fault,
    some: Option<(String, Fault)>,
}

impl Faults {
    /// What holds for a connection that began with `greeting`: Kafka's clients say their id in each request.
    fn of(&self, greeting: &[u8]) -> Fault {
        let hit = |id: &str| greeting.windows(id.len().max(1)).any(|window| window == id.as_bytes());
        match &self.some {
            Some((id, fault)) if self.all == Fault::Healed && hit(id) => *fault,
            _ => self.all,
        }
    }
}

/// Where connections lead.
#[derive(Clone, Debug, Default)]
struct Target {
    /// `host:port`; until it is known, connections wait.
    upstream: Option<String>,
    /// What is told instead of the brokers' addresses, before a broker of Kafka.
    addresses: Option<Arc<Addresses>>,
}

type Upstream = Arc<Mutex<Target>>;

/// Runs on a thread of its own, so that a busy runtime does not look like a slow network. Its commands block.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    upstream: Upstream,
    open: Arc<AtomicUsize>,
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Takes a free port on 127.0.0.1. Connections wait until [`Proxy::forward_to`] has said where to.
    ///
    /// # Errors
    /// When there is no free port, or no thread.
    pub fn start() -> io::Result<Self> {
        Self::start_on(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// As [`Proxy::start`], on another address of this machine.
    ///
    /// # Errors
    /// As there.
    pub fn start_on(host: IpAddr) -> io::Result<Self> {
        // A second socket on the port, never listening: the port stays ours while connections are refused.
        let holder = bind(SocketAddr::from((host, 0)))?;
        let address = holder.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let upstream = Upstream::default();
        let open = Arc::new(AtomicUsize::new(0));
        let (commands, receiver) = mpsc::channel(1);
        let shared = (Arc::clone(&upstream), Arc::clone(&open));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("proxy".into()).spawn(move || {
            runtime.block_on(serve(address, shared.0, shared.1, receiver));
            drop(holder);
        })?;
        let proxy = Self { address, upstream, open, commands: Some(commands), thread: Some(thread) };
        proxy.heal();
        Ok(proxy)
    }

    /// `host:port` that clients are given; the same for the whole life of the proxy.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Where new connections lead from now on, `host:port`.
    pub fn forward_to(&self, upstream: &str) {
        self.target(|target| target.upstream = Some(upstream.to_owned()));
    }

    /// Where new connections lead from now on: to a broker of Kafka, whose clients are kept behind the proxies of these
    /// addresses.
    pub fn forward_to_broker(&self, broker: &str, addresses: Arc<Addresses>) {
        self.target(|target| *target = Target { upstream: Some(broker.to_owned()), addresses: Some(addresses) });
    }

    fn target(&self, change: impl FnOnce(&mut Target)) {
        change(&mut self.upstream.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// See [`Fault::Cut`].
    pub fn cut(&self) {
        self.set(Fault::Cut);
    }

    /// See [`Fault::BlackHole`].
    pub fn black_hole(&self) {
        self.set(Fault::BlackHole);
    }

    /// See [`Fault::Delay`].
    pub fn delay(&self, by: Duration) {
        self.set(Fault::Delay(by));
    }

    /// See [`Fault::Throttle`].
    pub fn throttle(&self, bytes_per_second: u64) {
        self.set(Fault::Throttle(bytes_per_second.max(1)));
    }

    /// All is well again.
    pub fn heal(&self) {
        self.set(Fault::Healed);
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Holds for every connection once this returns.
    pub fn set(&self, fault: Fault) {
        self.command(fault, None);
    }

    /// Holds for the connections of those Kafka clients whose id contains `client`, once this returns. One such fault at a
    /// time; a cut hits connections that are open or will be, but refuses none.
    pub fn set_for(&self, client: &str, fault: Fault) {
        self.command(fault, Some(client.to_owned()));
    }

    fn command(&self, fault: Fault, whom: Option<String>) {
        let (done, wait) = std_mpsc::channel();
        if let Some(commands) = &self.commands
            && commands.blocking_send((fault, whom, done)).is_ok()
        {
            // The thread lives as long as the proxy: it always answers.
            let _ = wait.recv();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address)?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

async fn serve(address: SocketAddr, upstream: Upstream, open: Arc<AtomicUsize>, mut commands: mpsc::Receiver<Command>) {
    let (faults, _) = watch::channel(Faults { all: Fault::Healed, some: None });
    let mut listener = None;
    loop {
        tokio::select! {
            command = commands.recv() => {
                let Some((next, whom, done)) = command else { return };
                match whom {
                    Some(client) => faults.send_modify(|faults| faults.some = Some((client, next))),
                    None => {
                        listener = if next == Fault::Cut { None } else { listener.or_else(|| listen(address).ok()) };
                        faults.send_modify(|faults| faults.all = next);
                        if next == Fault::Cut {
                            all_closed(&open).await;
                        }
                    }
                }
                // Every connection hears of it in its own task first.
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                let _ = done.send(());
            }
            client = accept(listener.as_ref()) => {
                let Ok(client) = client else { continue };
                open.fetch_add(1, Ordering::Relaxed);
                let (upstream, open, faults) = (Arc::clone(&upstream), Arc::clone(&open), faults.subscribe());
                tokio::spawn(async move {
                    carry_until_end(client, upstream, faults).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        }
    }
}

async fn all_closed(open: &AtomicUsize) {
    while open.load(Ordering::Relaxed) > 0 {
        tokio::task::yield_now().await;
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}
