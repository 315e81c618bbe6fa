//! The reference for deliveries: a process of one thread that does nothing but write given frames to its clients.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::Result;
use super::stream_parser::ws_frame;

const FRAMES: &str = "BENCH_BARE_WRITER_FRAMES";
const RATE: &str = "BENCH_BARE_WRITER_RATE";
/// Bytes of a write when nothing paces it.
const WRITE: usize = 64 * 1024;
const LISTENER: u64 = u64::MAX;

/// A running reference; it is killed when this is dropped.
pub struct BareWriter {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl BareWriter {
    /// Starts it in a process of its own. It writes `frames` over and over: as fast as its clients read, or, with a rate, one
    /// frame to each client so many times a second.
    pub fn start(frames: &[u8], rate: Option<f64>) -> Result<Self> {
        let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/bare-writer-frames");
        std::fs::write(file, frames)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.env(FRAMES, file).stdout(Stdio::piped());
        if let Some(rate) = rate {
            command.env(RATE, rate.to_string());
        }
        let mut child = command.spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse()? })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for BareWriter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Is the reference, if this process was started as one; it ends with its parent's kill.
pub fn serve_if_asked() -> Result<bool> {
    let Ok(file) = std::env::var(FRAMES) else { return Ok(false) };
    let frames = std::fs::read(file)?;
    let mut clients = Clients::listen()?;
    match std::env::var(RATE) {
        Ok(rate) => clients.write_paced(&frames, rate.parse()?)?,
        Err(_) => clients.write_always(&frames)?,
    }
    Ok(true)
}

struct Clients {
    listener: TcpListener,
    epoll: Epoll,
    streams: Vec<(TcpStream, usize)>,
}

impl Clients {
    fn listen() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        println!("{}", listener.local_addr()?);
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new(EpollCreateFlags::empty())?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        Ok(Self { listener, epoll, streams: Vec::new() })
    }

    fn accept(&self) -> Result<TcpStream> {
        let (mut stream, _) = self.listener.accept()?;
        stream.set_nonblocking(false)?;
        let mut request = [0; 4096];
        let _ = stream.read(&mut request)?;
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// 64 KiB a write, whenever a socket has room.
    fn write_always(&mut self, frames: &[u8]) -> Result<()> {
        let mut events = [EpollEvent::empty(); 256];
        loop {
            let ready = self.epoll.wait(&mut events, EpollTimeout::NONE)?;
            for event in &events[..ready] {
                if event.data() == LISTENER {
                    let stream = self.accept()?;
                    let number = self.streams.len() as u64;
                    self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLOUT, number))?;
                    self.streams.push((stream, 0));
                    continue;
                }
                let (stream, at) = &mut self.streams[event.data() as usize];
                let end = frames.len().min(*at + WRITE);
                match stream.write(&frames[*at..end]) {
                    Ok(written) => *at = (*at + written) % frames.len(),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => return Ok(()),
                }
            }
        }
    }

    /// One frame and write per client and step.
    fn write_paced(&mut self, frames: &[u8], rate: f64) -> Result<()> {
        let step = Duration::from_secs_f64(1.0 / rate);
        let (mut due, mut at) = (Instant::now() + step, 0);
        let mut events = [EpollEvent::empty(); 1];
        loop {
            let left = due.saturating_duration_since(Instant::now());
            let timeout = EpollTimeout::try_from(left + Duration::from_micros(999))?;
            if self.epoll.wait(&mut events, timeout)? > 0 {
                let stream = self.accept()?;
                self.streams.push((stream, 0));
                continue;
            }
            let frame = ws_frame(&frames[at..]).ok_or("no whole frame")?;
            let end = at + frame.header + frame.payload;
            for (stream, _) in &mut self.streams {
                if stream.write(&frames[at..end]).is_err() {
                    return Ok(());
                }
            }
            at = if end < frames.len() { end } else { 0 };
            due += step;
        }
    }
}
