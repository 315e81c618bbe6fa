//! A TCP proxy that keeps its port and breaks on command.
//!
//! Bytes are never lost or altered: like a network, it closes connections or holds bytes back.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

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

type Upstream = Arc<Mutex<Option<String>>>;

/// Runs on a thread of its own, so that a busy test runtime does not look like a slow network.
pub struct Proxy {
    address: SocketAddr,
    upstream: Upstream,
    open: Arc<AtomicUsize>,
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Takes a free port on 127.0.0.1. Connections wait until [`Proxy::forward_to`] has said where to.
    pub fn start() -> Self {
        Self::start_on(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// As [`Proxy::start`], on another address of this machine.
    pub fn start_on(host: IpAddr) -> Self {
        // A second socket on the port, never listening: the port stays ours while connections are refused.
        let holder = bind(SocketAddr::from((host, 0))).expect("a free port");
        let address = holder.local_addr().ok().and_then(|address| address.as_socket()).expect("an IP address");
        let upstream = Upstream::default();
        let open = Arc::new(AtomicUsize::new(0));
        let (commands, receiver) = mpsc::channel(1);
        let shared = (Arc::clone(&upstream), Arc::clone(&open));
        let thread = std::thread::Builder::new()
            .name("proxy".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(serve(address, shared.0, shared.1, receiver));
                drop(holder);
            })
            .expect("a thread");
        let proxy = Self { address, upstream, open, commands: Some(commands), thread: Some(thread) };
        proxy.heal();
        proxy
    }

    /// `host:port` that clients are given; the same for the whole life of the proxy.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Where new connections lead from now on, `host:port`.
    pub fn forward_to(&self, upstream: &str) {
        *self.upstream.lock().expect("no panic under this lock") = Some(upstream.to_owned());
    }

    pub fn cut(&self) {
        self.set(Fault::Cut);
    }

    pub fn black_hole(&self) {
        self.set(Fault::BlackHole);
    }

    pub fn delay(&self, by: Duration) {
        self.set(Fault::Delay(by));
    }

    pub fn throttle(&self, bytes_per_second: u64) {
        self.set(Fault::Throttle(bytes_per_second.max(1)));
    }

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
        let sent = self.commands.as_ref().is_some_and(|commands| commands.blocking_send((fault, whom, done)).is_ok());
        assert!(sent && wait.recv().is_ok(), "the proxy's thread has ended");
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

/// What holds for one connection. Whose it is shows in its first bytes.
struct Connection {
    faults: watch::Receiver<Faults>,
    greeting: OnceLock<Vec<u8>>,
    effective: watch::Sender<Fault>,
}

impl Connection {
    fn new(faults: watch::Receiver<Faults>) -> Self {
        let effective = watch::Sender::new(faults.borrow().all);
        Self { faults, greeting: OnceLock::new(), effective }
    }

    /// The client has said its first bytes.
    fn greeted(&self, bytes: &[u8]) {
        if self.greeting.set(bytes.to_vec()).is_ok() {
            self.refresh();
        }
    }

    fn refresh(&self) {
        let fault = self.faults.borrow().of(self.greeting.get().map(Vec::as_slice).unwrap_or_default());
        self.effective.send_if_modified(|now| std::mem::replace(now, fault) != fault);
    }

    /// Applies every change; never ends before the connection.
    async fn follow(&self) {
        let mut faults = self.faults.clone();
        self.refresh();
        while faults.changed().await.is_ok() {
            self.refresh();
        }
        std::future::pending().await
    }
}

async fn carry_until_end(client: TcpStream, upstream: Upstream, faults: watch::Receiver<Faults>) {
    let connection = Connection::new(faults);
    tokio::select! {
        () = connection.follow() => {}
        () = carry(client, upstream, &connection) => {}
    }
}

/// One connection until it ends by itself or is cut.
async fn carry(mut client: TcpStream, upstream: Upstream, connection: &Connection) {
    let fault = connection.effective.subscribe();
    let mut cut = fault.clone();
    let was_cut = async move { cut.wait_for(|fault| *fault == Fault::Cut).await.is_ok() };
    tokio::pin!(was_cut);
    let dial = dial(upstream, fault.clone());
    let mut server = tokio::select! {
        _ = &mut was_cut => return reset(&client),
        server = dial => match server {
            Ok(server) => server,
            Err(_) => return reset(&client),
        },
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let finished = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        tokio::select! {
            _ = &mut was_cut => false,
            _ = async { tokio::join!(
                pump(client_read, server_write, fault.clone(), |bytes| connection.greeted(bytes)),
                pump(server_read, client_write, fault.clone(), |_| ()),
            ) } => true,
        }
    };
    if !finished {
        reset(&client);
        reset(&server);
    }
}

/// Lets the close that follows be a reset.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

async fn dial(upstream: Upstream, mut fault: watch::Receiver<Fault>) -> io::Result<TcpStream> {
    loop {
        forwarding(&mut fault).await;
        let target = upstream.lock().ok().and_then(|target| target.clone());
        match target {
            Some(target) => return TcpStream::connect(target).await,
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Waits while the fault holds everything back.
async fn forwarding(fault: &mut watch::Receiver<Fault>) -> Fault {
    let now = fault.wait_for(|fault| *fault != Fault::BlackHole).await.map(|fault| *fault);
    match now {
        Ok(now) => now,
        // The proxy ends, and with it its runtime.
        Err(_) => std::future::pending().await,
    }
}

/// One direction. Reading and writing are apart, so that a delay does not become a limit of the rate.
async fn pump(
    mut from: tokio::net::tcp::ReadHalf<'_>,
    mut to: tokio::net::tcp::WriteHalf<'_>,
    fault: watch::Receiver<Fault>,
    seen: impl Fn(&[u8]),
) {
    let (chunks, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(256);
    let mut read_fault = fault.clone();
    let read = async move {
        loop {
            let mut chunk = vec![0; 16 * 1024];
            forwarding(&mut read_fault).await;
            let Ok(length @ 1..) = from.read(&mut chunk).await else { return };
            chunk.truncate(length);
            seen(&chunk);
            let fault = *read_fault.borrow();
            let by = if let Fault::Delay(by) = fault { by } else { Duration::ZERO };
            let due = Instant::now() + by;
            if chunks.send((due, chunk)).await.is_err() {
                return;
            }
        }
    };
    let mut write_fault = fault;
    let write = async move {
        while let Some((due, chunk)) = waiting.recv().await {
            tokio::time::sleep_until(due).await;
            if forward(&mut to, &chunk, &mut write_fault).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

async fn forward(
    to: &mut tokio::net::tcp::WriteHalf<'_>,
    mut chunk: &[u8],
    fault: &mut watch::Receiver<Fault>,
) -> io::Result<()> {
    while !chunk.is_empty() {
        let Fault::Throttle(rate) = forwarding(fault).await else {
            return to.write_all(chunk).await;
        };
        // Twenty steps a second.
        let step = usize::try_from(rate / 20).unwrap_or(usize::MAX).clamp(1, chunk.len());
        let (now, later) = chunk.split_at(step);
        to.write_all(now).await?;
        tokio::time::sleep(Duration::from_secs_f64(now.len() as f64 / rate as f64)).await;
        chunk = later;
    }
    Ok(())
}
