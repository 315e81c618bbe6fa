//! One upgraded connection: what the client sends, as a stream, and a writer for what it is sent.
//!
//! Frames are shared by all sessions, so they go to the socket from where they lie. HTTP's own writer would copy them into a
//! buffer of the connection, and keep that. It must not know what the bytes mean.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::error::PayloadError;
use bytes::{Buf as _, Bytes};
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Frames that one write takes.
const WRITE_FRAMES: usize = 64;
/// Bytes of a read. Clients say little.
const READ_BYTES: usize = 4096;
/// How long a client has to read the last frame and close. What it sends meanwhile is read: closing over unread bytes, or before
/// it has answered what it reads first, would take that frame back.
const LINGER: Duration = Duration::from_secs(5);

/// A socket with two users in one task.
type Shared<T> = Rc<RefCell<T>>;

/// What the client sends, until it is gone.
#[derive(Debug)]
pub(super) struct Received<T> {
    io: Shared<T>,
    /// What came together with the request.
    early: Option<Bytes>,
}

impl<T: AsyncRead + Unpin> Stream for Received<T> {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(early) = self.early.take() {
            return Poll::Ready(Some(Ok(early)));
        }
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut read = ReadBuf::uninit(&mut space);
        let result = ready!(Pin::new(&mut *self.io.borrow_mut()).poll_read(cx, &mut read));
        Poll::Ready(match result {
            Ok(()) if read.filled().is_empty() => None,
            Ok(()) => Some(Ok(Bytes::copy_from_slice(read.filled()))),
            Err(error) => Some(Err(error.into())),
        })
    }
}

/// Where frames come from.
pub(super) trait Source {
    /// Adds the next frames, none of them empty, to `unsent`, which is; false when there will be none. It is asked again only when the socket
    /// has taken them all.
    fn poll_frames(&mut self, cx: &mut Context<'_>, unsent: &mut VecDeque<Bytes>) -> Poll<bool>;
}

/// Writes what a source gives until it ends, then closes the connection.
pub(super) struct Sending<T, S> {
    io: Shared<T>,
    /// Gone as soon as it has ended, and what it holds with it.
    source: Option<S>,
    unsent: VecDeque<Bytes>,
    /// Written, but possibly still in a buffer of the encryption.
    unflushed: bool,
    /// Our side is closed.
    lingering: Option<Pin<Box<Sleep>>>,
}

/// Takes a connection apart: what it receives, and a function that makes the sender from its source.
pub(super) fn split<T, S>(io: T, early: Bytes) -> (Received<T>, impl FnOnce(S) -> Sending<T, S>)
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Source + Unpin,
{
    let io = Rc::new(RefCell::new(io));
    let received = Received { io: Rc::clone(&io), early: Some(early).filter(|early| !early.is_empty()) };
    (received, move |source| Sending {
        io,
        source: Some(source),
        unsent: VecDeque::new(),
        unflushed: false,
        lingering: None,
    })
}

impl<T, S> std::fmt::Debug for Sending<T, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sending").field("unsent", &self.unsent.len()).finish_non_exhaustive()
    }
}

impl<T, S> Sending<T, S>
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Source + Unpin,
{
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let mut io = self.io.borrow_mut();
        while !self.unsent.is_empty() {
            let mut slices = [IoSlice::new(&[]); WRITE_FRAMES];
            let frames = self.unsent.iter().zip(&mut slices).map(|(frame, slice)| *slice = IoSlice::new(frame)).count();
            let slices = slices.get(..frames).unwrap_or_default();
            let mut written = ready!(Pin::new(&mut *io).poll_write_vectored(cx, slices))?;
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            while let Some(frame) = self.unsent.front_mut() {
                let taken = written.min(frame.len());
                frame.advance(taken);
                written -= taken;
                if !frame.is_empty() {
                    break;
                }
                self.unsent.pop_front();
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut *io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and forgets.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        loop {
            let mut read = ReadBuf::uninit(&mut space);
            match Pin::new(&mut *self.io.borrow_mut()).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<T, S> Future for Sending<T, S>
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Source + Unpin,
{
    /// An error says that the connection broke.
    type Output = std::io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(patience) = &mut this.lingering {
            let over = patience.as_mut().poll(cx).is_ready();
            return if over || this.poll_drain(cx).is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        loop {
            ready!(this.poll_write(cx))?;
            if let Some(source) = &mut this.source {
                if !ready!(source.poll_frames(cx, &mut this.unsent)) {
                    this.source = None;
                }
                continue;
            }
            ready!(Pin::new(&mut *this.io.borrow_mut()).poll_shutdown(cx))?;
            this.lingering = Some(Box::pin(tokio::time::sleep(LINGER)));
            return self.poll(cx);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// Gives what a function makes of the number of the question, until that is nothing.
    struct Asked<F>(usize, F);

    impl<F: FnMut(usize) -> Option<Vec<Bytes>>> Source for Asked<F> {
        fn poll_frames(&mut self, _: &mut Context<'_>, unsent: &mut VecDeque<Bytes>) -> Poll<bool> {
            assert!(unsent.is_empty(), "asked before all was taken");
            self.0 += 1;
            let frames = (self.1)(self.0);
            let some = frames.is_some();
            unsent.extend(frames.into_iter().flatten());
            Poll::Ready(some)
        }
    }

    fn frames(count: usize, bytes: usize) -> Vec<Bytes> {
        (0..count).map(|index| Bytes::from(vec![u8::try_from(index % 251).unwrap(); bytes])).collect()
    }

    #[actix::test]
    async fn what_the_source_gives_arrives_whole_and_in_order_however_little_the_socket_takes() {
        for (count, bytes, room) in [(1, 1, 1), (500, 3, 7), (300, 1_000, 64), (5, 200_000, 1_024)] {
            let frames = frames(count, bytes);
            let expected = frames.concat();
            let (ours, mut theirs) = duplex(room);
            let (_received, sending) = split(ours, Bytes::new());
            let mut turns = frames.chunks(100).map(<[Bytes]>::to_vec).collect::<VecDeque<_>>();
            let sent = actix::spawn(sending(Asked(0, move |_| turns.pop_front())));
            let mut came = Vec::new();
            theirs.read_to_end(&mut came).await.unwrap();
            assert!(came == expected, "{count} frames of {bytes} bytes through {room}");
            drop(theirs);
            sent.await.unwrap().unwrap();
        }
    }

    #[actix::test]
    async fn the_source_is_asked_again_only_when_all_that_it_gave_was_taken() {
        const BYTES: usize = 1_000;
        let asked = Rc::new(RefCell::new(0));
        let counting = Rc::clone(&asked);
        let source = Asked(0, move |question| {
            *counting.borrow_mut() = question;
            Some(vec![Bytes::from_static(&[1; BYTES])])
        });
        let (ours, mut theirs) = duplex(BYTES / 2);
        let (_received, sending) = split(ours, Bytes::new());
        let sending = actix::spawn(sending(source));
        tokio::task::yield_now().await;
        assert_eq!(*asked.borrow(), 1, "half of it is still here");
        theirs.read_exact(&mut [0; BYTES]).await.unwrap();
        while *asked.borrow() < 2 {
            tokio::task::yield_now().await;
        }
        sending.abort();
    }

    #[actix::test]
    async fn what_came_with_the_request_is_received_first_and_the_end_is_told() {
        let (ours, mut theirs) = duplex(64);
        let (received, _sending) =
            split::<_, Asked<fn(usize) -> Option<Vec<Bytes>>>>(ours, Bytes::from_static(b"early"));
        theirs.write_all(b" late").await.unwrap();
        drop(theirs);
        let all: Vec<_> = received.map(Result::unwrap).collect().await;
        assert_eq!(all.concat(), b"early late");
    }

    #[actix::test(start_paused = true)]
    async fn a_client_that_goes_on_talking_after_the_end_is_left() {
        let (ours, mut theirs) = duplex(64);
        let (received, sending) = split(ours, Bytes::new());
        drop(received);
        let sent = actix::spawn(sending(Asked(0, |_| None)));
        let talking = actix::spawn(async move { while theirs.write_all(b"more").await.is_ok() {} });
        sent.await.unwrap().unwrap();
        talking.await.unwrap();
    }

    #[actix::test]
    async fn a_connection_that_breaks_ends_it() {
        let (ours, theirs) = duplex(64);
        let (_received, sending) = split(ours, Bytes::new());
        drop(theirs);
        assert!(sending(Asked(0, |_| Some(vec![Bytes::from_static(b"frame")]))).await.is_err());
    }
}
