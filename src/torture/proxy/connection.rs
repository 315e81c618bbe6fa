//! One connection through a proxy, until it ends by itself or is cut. It must not know who commands the faults.

use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::kafka_frames::Frames;
use super::{Fault, Faults, Target, Upstream};

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

pub(super) async fn carry_until_end(client: TcpStream, upstream: Upstream, faults: watch::Receiver<Faults>) {
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
    let (mut server, frames) = tokio::select! {
        _ = &mut was_cut => return reset(&client),
        dialed = dial => match dialed {
            Ok(dialed) => dialed,
            Err(_) => return reset(&client),
        },
    };
    let lock = |frames: &Mutex<Frames>, pass: &dyn Fn(&mut Frames) -> Option<Vec<u8>>| {
        pass(&mut frames.lock().unwrap_or_else(PoisonError::into_inner))
    };
    let asked = |bytes: Vec<u8>| {
        connection.greeted(&bytes);
        match &frames {
            Some(frames) => lock(frames, &|frames| frames.asked(&bytes).then(|| bytes.clone())),
            None => Some(bytes),
        }
    };
    let answered = |bytes: Vec<u8>| match &frames {
        Some(frames) => lock(frames, &|frames| frames.answered(&bytes)),
        None => Some(bytes),
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let finished = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        tokio::select! {
            _ = &mut was_cut => false,
            _ = async { tokio::join!(
                pump(client_read, server_write, fault.clone(), asked),
                pump(server_read, client_write, fault.clone(), answered),
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

/// The other side, and what has to be rewritten between the two.
type Dialed = (TcpStream, Option<Mutex<Frames>>);

async fn dial(upstream: Upstream, mut fault: watch::Receiver<Fault>) -> io::Result<Dialed> {
    loop {
        forwarding(&mut fault).await;
        let Target { upstream, addresses } = upstream.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match upstream {
            Some(upstream) => {
                let frames = addresses.map(|addresses| Mutex::new(Frames::new(addresses)));
                return TcpStream::connect(upstream).await.map(|server| (server, frames));
            }
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

/// One direction; `pass` gives what goes on, or ends it. Reading and writing are apart, so that a delay does not become a
/// limit of the rate.
async fn pump(
    mut from: tokio::net::tcp::ReadHalf<'_>,
    mut to: tokio::net::tcp::WriteHalf<'_>,
    fault: watch::Receiver<Fault>,
    pass: impl Fn(Vec<u8>) -> Option<Vec<u8>>,
) {
    let (chunks, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(256);
    let mut read_fault = fault.clone();
    let read = async move {
        loop {
            let mut chunk = vec![0; 16 * 1024];
            forwarding(&mut read_fault).await;
            let Ok(length @ 1..) = from.read(&mut chunk).await else { return };
            chunk.truncate(length);
            let Some(chunk) = pass(chunk) else { return };
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
