//! What a browser sends, on its way to the session: past the [`FrameGate`], or not at all.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::Stream;

use crate::actors::session_queue::SessionQueue;
use crate::metrics::Metrics;
use crate::wire::close_code::CloseCode;
use crate::wire::frame_gate::{FrameGate, Violation};

/// The bytes of the connection. It ends when the client is gone; after a violation it only swallows, so that the client
/// gets to read the close frame.
pub(super) struct Inbound<S> {
    received: S,
    gate: FrameGate,
    queue: Arc<SessionQueue>,
    metrics: Arc<Metrics>,
    refused: bool,
}

impl<S> Inbound<S> {
    /// Before the first byte; frames may hold `max_frame_bytes` each.
    pub(super) const fn new(
        received: S,
        max_frame_bytes: usize,
        queue: Arc<SessionQueue>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { received, gate: FrameGate::new(max_frame_bytes), queue, metrics, refused: false }
    }

    fn refuse(&mut self, why: Violation) {
        self.refused = true;
        let code = match why {
            Violation::TooLarge => {
                self.metrics.control_oversized.inc();
                CloseCode::TooLarge
            }
            Violation::Protocol => CloseCode::ProtocolError,
        };
        self.queue.close(code, Instant::now());
    }
}

impl<S> std::fmt::Debug for Inbound<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound").field("gate", &self.gate).field("refused", &self.refused).finish_non_exhaustive()
    }
}

impl<S: Stream<Item = Result<Bytes, PayloadError>> + Unpin> Stream for Inbound<S> {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Poll::Ready(chunk) = Pin::new(&mut self.received).poll_next(cx) else { return Poll::Pending };
            match chunk {
                Some(Ok(_)) if self.refused => {}
                Some(Ok(chunk)) => match self.gate.pass(&chunk) {
                    Ok(()) => return Poll::Ready(Some(Ok(chunk))),
                    Err(refused) => {
                        self.refuse(refused.why);
                        if refused.good > 0 {
                            return Poll::Ready(Some(Ok(chunk.slice(..refused.good))));
                        }
                    }
                },
                // How the connection ended makes no difference to the session.
                Some(Err(_)) | None => return Poll::Ready(None),
            }
        }
    }
}
