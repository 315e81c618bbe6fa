//! A TCP proxy that keeps its port and breaks on command.
//!
//! Bytes are never lost or altered: like a network, it closes connections or holds bytes back.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc as std_mpsc};
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

/// A fault, and whom to tell once it holds.
type Command = (Fault, std_mpsc::Sender<()>);

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
        // A second socket on the port, never listening: the port stays ours while connections are refused.
        let holder = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
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
        let (done, wait) = std_mpsc::channel();
        let sent = self.commands.as_ref().is_some_and(|commands| commands.blocking_send((fault, done)).is_ok());
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
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
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
    let (fault, _) = watch::channel(Fault::Healed);
    let mut listener = None;
    loop {
        tokio::select! {
            command = commands.recv() => {
                let Some((next, done)) = command else { return };
                listener = if next == Fault::Cut { None } else { listener.or_else(|| listen(address).ok()) };
                fault.send_replace(next);
                if next == Fault::Cut {
                    all_closed(&open).await;
                }
                let _ = done.send(());
            }
            client = accept(listener.as_ref()) => {
                let Ok(client) = client else { continue };
                open.fetch_add(1, Ordering::Relaxed);
                let (upstream, open, fault) = (Arc::clone(&upstream), Arc::clone(&open), fault.subscribe());
                tokio::spawn(async move {
                    carry(client, upstream, fault).await;
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

/// One connection until it ends by itself or is cut.
async fn carry(mut client: TcpStream, upstream: Upstream, fault: watch::Receiver<Fault>) {
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
                pump(client_read, server_write, fault.clone()),
                pump(server_read, client_write, fault.clone()),
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
) {
    let (chunks, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(256);
    let mut read_fault = fault.clone();
    let read = async move {
        loop {
            let mut chunk = vec![0; 16 * 1024];
            forwarding(&mut read_fault).await;
            let Ok(length @ 1..) = from.read(&mut chunk).await else { return };
            chunk.truncate(length);
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
