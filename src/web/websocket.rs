//! The upgrade of `/ws`: admission, subprotocol, and the stream that joins a session's control plane and its queue.

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
use prometheus::IntCounter;

use super::admission::{Admission, Slot};
use super::client_address::client_address;
use crate::actors::client_session::{ClientSession, SessionShared};
use crate::actors::link::Link;
use crate::actors::session_queue::{SessionInfo, SessionQueue};
use crate::actors::sessions::{OpenSession, Sessions, SocketHandle};
use crate::messages::Join;
use crate::wire::control::Dialect;

/// Unacknowledged bytes that the kernel keeps for one client: more would be stale data nobody sees.
const SEND_BUFFER: usize = 128 * 1024;

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
    let session = ClientSession::new(Arc::clone(&deps.shared), Arc::clone(&queue), registered);
    let codec = Codec::new().max_size(deps.shared.settings.max_control_bytes);
    let control = WebsocketContext::with_codec(session, payload, codec);
    let sent_bytes = metrics.sent_bytes.clone();
    Ok(response.streaming(SessionStream { control: Box::pin(control), queue, sent_bytes, _slot: slot }))
}

/// The response body: pongs and pings of the control plane first, then the queue.
struct SessionStream {
    control: Pin<Box<dyn Stream<Item = Result<Bytes, Error>>>>,
    queue: Arc<SessionQueue>,
    sent_bytes: IntCounter,
    _slot: Slot,
}

impl Stream for SessionStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.control.as_mut().poll_next(cx) {
            Poll::Pending => self.queue.poll_frame(cx).map(|frame| {
                self.sent_bytes.inc_by(frame.as_ref().map_or(0, Bytes::len) as u64);
                frame.map(Ok)
            }),
            ready => ready,
        }
    }
}
