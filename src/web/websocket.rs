//! The upgrade of `/ws`: admission, subprotocol, and the stream that joins a session's control plane and its queue.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_http::ws::Codec;
use actix_web::rt::net::TcpStream as ActixStream;
use actix_web::web::{Data, Payload};
use actix_web::{Error, HttpRequest, HttpResponse};
use actix_web_actors::ws::{self, WebsocketContext};
use bytes::Bytes;
use futures_util::Stream;
use ipnet::IpNet;
use tokio::time::Sleep;

use super::admission::{Admission, Slot};
use super::client_address::client_address;
use super::inbound::Inbound;
use crate::actors::client_session::{ClientSession, SessionShared};
use crate::actors::link::Link;
use crate::actors::session_queue::{SessionInfo, SessionQueue};
use crate::actors::sessions::{OpenSession, Registered, Sessions, SocketHandle};
use crate::messages::Join;
use crate::metrics::Metrics;
use crate::pipeline::filter::Grant;
use crate::wire::control::Dialect;

/// Unacknowledged bytes that the kernel keeps for one client: more would be stale data nobody sees.
const SEND_BUFFER: usize = 128 * 1024;
/// How long a client may take to answer a close frame that it has read.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// What the upgrade needs.
#[derive(Debug)]
pub struct WebsocketDeps {
    /// What sessions share.
    pub shared: Arc<SessionShared>,
    /// The open sessions.
    pub sessions: Sessions,
    /// The limits.
    pub admission: Admission,
    /// Proxies whose word counts.
    pub trusted_proxies: Vec<IpNet>,
    /// Where sessions join.
    pub join: Link<Join>,
}

/// Prepares an accepted connection: options that bound what a dead or slow client holds, and a second handle on the
/// socket for the watchdog.
pub fn on_connect(socket: &ActixStream, user_timeout: Duration, extensions: &mut actix_web::dev::Extensions) {
    let options = socket2::SockRef::from(socket);
    let prepared = options
        .set_tcp_nodelay(true)
        .and_then(|()| options.set_send_buffer_size(SEND_BUFFER))
        .and_then(|()| options.set_tcp_user_timeout(Some(user_timeout)))
        .and_then(|()| options.try_clone());
    match prepared {
        Ok(duplicate) => {
            extensions.insert(Arc::new(SocketHandle::new(TcpStream::from(duplicate))));
        }
        Err(error) => tracing::warn!(%error, "connection without a watchdog: cannot set its socket options"),
    }
}

/// `GET /ws`.
///
/// # Errors
/// When the request is not a WebSocket upgrade.
pub async fn upgrade(request: HttpRequest, payload: Payload, deps: Data<WebsocketDeps>) -> Result<HttpResponse, Error> {
    let metrics = &deps.shared.metrics;
    let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    let forwarded: Vec<&str> =
        request.headers().get_all("x-forwarded-for").filter_map(|value| value.to_str().ok()).collect();
    let address = client_address(peer, forwarded.into_iter(), &deps.trusted_proxies);
    let slot = match deps.admission.admit(address) {
        Ok(slot) => slot,
        Err(refused) => {
            metrics.rejected_connections.with_label_values(&[refused.as_str()]).inc();
            return Ok(HttpResponse::TooManyRequests().insert_header(("retry-after", "5")).body(refused.to_string()));
        }
    };
    let mut response = ws::handshake_with_protocols(&request, &[Dialect::SUBPROTOCOL])?;
    let asked = request.headers().get("sec-websocket-protocol").and_then(|value| value.to_str().ok());
    let v2 = asked.is_some_and(|asked| asked.split(',').any(|name| name.trim() == Dialect::SUBPROTOCOL));
    let dialect = if v2 { Dialect::V2 } else { Dialect::V1 };
    metrics.sessions_opened.with_label_values(&[dialect.as_str()]).inc();

    let info = SessionInfo { session: deps.sessions.next_number(), dialect, address, opened: Instant::now() };
    let queue = Arc::new(SessionQueue::new(info, deps.shared.settings.queue, deps.join.clone()));
    let socket = request.conn_data::<Arc<SocketHandle>>().cloned();
    let registered = deps.sessions.register(OpenSession { queue: Arc::clone(&queue), socket });
    let session = ClientSession::new(Arc::clone(&deps.shared), Arc::clone(&queue), Grant::ALL);
    let max_frame_bytes = deps.shared.settings.max_control_bytes;
    let inbound = Inbound::new(payload, max_frame_bytes, Arc::clone(&queue), Arc::clone(metrics));
    let control = WebsocketContext::with_codec(session, inbound, Codec::new().max_size(max_frame_bytes));
    Ok(response.streaming(SessionStream {
        control: Some(Box::pin(control)),
        queue,
        turn: VecDeque::new(),
        grace: None,
        metrics: Arc::clone(metrics),
        _registered: registered,
        _slot: slot,
    }))
}

/// What the session's actor writes.
type ControlStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>>>>;

/// The response body: pongs and pings of the control plane first, then the queue.
///
/// It ends when both have ended: the queue with its close frame, the control plane when the client has answered that or is
/// gone. A client that reads the close frame and does not answer is left after a grace.
struct SessionStream {
    control: Option<ControlStream>,
    queue: Arc<SessionQueue>,
    /// Frames of the queue that the socket takes next.
    turn: VecDeque<Bytes>,
    grace: Option<Pin<Box<Sleep>>>,
    metrics: Arc<Metrics>,
    // After the control plane: the session is over when nothing of it is left.
    _registered: Registered,
    _slot: Slot,
}

impl Stream for SessionStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(frame) = self.turn.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(control) = &mut self.control {
            match control.as_mut().poll_next(cx) {
                Poll::Pending => {}
                Poll::Ready(Some(bytes)) => return Poll::Ready(Some(bytes)),
                // Its end closes the queue.
                Poll::Ready(None) => self.control = None,
            }
        }
        let this = &mut *self;
        match this.queue.poll_frames(cx, &mut this.turn) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(true) => {
                let bytes: usize = this.turn.iter().map(Bytes::len).sum();
                this.metrics.sent_bytes.inc_by(bytes as u64);
                return Poll::Ready(this.turn.pop_front().map(Ok));
            }
            Poll::Ready(false) => {}
        }
        if self.control.is_none() {
            return Poll::Ready(None);
        }
        let grace = self.grace.get_or_insert_with(|| Box::pin(tokio::time::sleep(CLOSE_GRACE)));
        grace.as_mut().poll(cx).map(|()| None)
    }
}
