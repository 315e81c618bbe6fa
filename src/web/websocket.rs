//! The upgrade of `/ws`: admission, subprotocol, and the stream that joins a session's control plane and its queue.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_codec::Framed;
use actix_http::body::MessageBody as _;
use actix_http::h1::{self, SendResponse};
use actix_http::ws::{self, Codec};
use actix_http::{ConnectionType, Extensions, HttpMessage as _, Request, Response};
use actix_web::http::header::{HeaderMap, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL, WWW_AUTHENTICATE};
use actix_web::rt::net::TcpStream as ActixStream;
use actix_web::{Error, HttpResponse, ResponseError as _};
use actix_web_actors::ws::WebsocketContext;
use bytes::Bytes;
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Sleep;

use super::admission::{Admission, Slot};
use super::auth::{self, Authenticator, Denied};
use super::client_address::ProxyTrust;
use super::connection::{self, Source};
use super::inbound::Inbound;
use super::origin::OriginPolicy;
use super::when_woken::WhenWoken;
use crate::actors::bell::Bell;
use crate::actors::client_session::{ClientSession, SessionShared, Visitor};
use crate::actors::link::Link;
use crate::actors::session_queue::{SessionInfo, SessionQueue};
use crate::actors::sessions::{OpenSession, Registered, Sessions, SocketHandle};
use crate::messages::Join;
use crate::metrics::Metrics;
use crate::pipeline::filter::Grant;
use crate::pipeline::trace_parent::{TRACEPARENT, TraceParent};
use crate::wire::control::Dialect;

/// Where sessions are served.
pub const PATH: &str = "/ws";
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
    pub proxies: ProxyTrust,
    /// Pages that may connect.
    pub origins: OriginPolicy,
    /// Checks tokens; without it nobody has to say who they are.
    pub auth: Option<Arc<Authenticator>>,
    /// Where sessions join.
    pub join: Link<Join>,
}

/// Prepares an accepted connection: options that bound what a dead or slow client holds, and a second handle on the
/// socket for the watchdog.
pub fn prepare(socket: &ActixStream, user_timeout: Duration, extensions: &mut Extensions) {
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

/// A request to upgrade: a session on [`PATH`], or an answer that says why not. It lasts as long as the connection.
///
/// # Errors
/// When the connection breaks before it is answered.
pub async fn upgrade<T>(
    request: Request,
    framed: Framed<T, h1::Codec>,
    deps: Option<Arc<WebsocketDeps>>,
) -> Result<(), Error>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let answer = match deps.filter(|_| request.path() == PATH) {
        Some(deps) => admit(&request, &deps).map(|admitted| (deps, admitted)),
        None => Err(Box::new(HttpResponse::NotFound().body("WebSockets are served at /ws\n"))),
    };
    let (deps, admitted) = match answer {
        Ok(admitted) => admitted,
        Err(mut refusal) => {
            refusal.head_mut().set_connection_type(ConnectionType::Close);
            // All of them are short texts, which lie there as bytes.
            let answer = Response::from(*refusal).map_body(|_, body| body.try_into_bytes().unwrap_or_default());
            SendResponse::new(framed, answer).await?.into_parts().io.shutdown().await?;
            return Ok(());
        }
    };
    let Admitted { response, dialect, address, visitor, slot } = admitted;
    let (session, trace) = (deps.sessions.next_number(), trace(&request));
    let info = SessionInfo { session, dialect, address, opened: Instant::now(), trace };
    let queue = SessionQueue::new(info, deps.shared.settings.queue, deps.join.clone());
    let queue = Arc::new(queue.with_bell(Bell::here()));
    let socket = request.conn_data::<Arc<SocketHandle>>().cloned();
    let registered = deps.sessions.register(OpenSession { queue: Arc::clone(&queue), socket });
    // What is left of the request would last as long as the session.
    drop(request);
    let parts = SendResponse::new(framed, response).await?.into_parts();
    let (received, sending) = connection::split(parts.io, parts.read_buf.freeze());
    // From here on its end is counted, too.
    deps.shared.metrics.sessions_opened.with_label_values(&[dialect.as_str()]).inc();
    let max_frame_bytes = deps.shared.settings.max_control_bytes;
    let inbound = Inbound::new(received, max_frame_bytes, Arc::clone(&queue), Arc::clone(&deps.shared.metrics));
    let actor = ClientSession::new(Arc::clone(&deps.shared), Arc::clone(&queue), visitor);
    let control = WebsocketContext::with_codec(actor, inbound, Codec::new().max_size(max_frame_bytes));
    let frames = SessionFrames {
        control: Some(WhenWoken::new(Box::pin(control))),
        queue,
        grace: None,
        metrics: Arc::clone(&deps.shared.metrics),
        _registered: registered,
        _slot: slot,
    };
    drop(deps);
    // How the connection ended makes no difference: the session is over.
    let _ = sending(frames).await;
    Ok(())
}

/// Who may begin a session, and how that is answered.
struct Admitted {
    response: Response<()>,
    dialect: Dialect,
    address: IpAddr,
    visitor: Visitor,
    slot: Slot,
}

fn admit(request: &Request, deps: &WebsocketDeps) -> Result<Admitted, Box<HttpResponse>> {
    let metrics = &deps.shared.metrics;
    let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    let refuse = |reason| metrics.rejected_connections.with_label_values(&[reason]).inc();
    if !deps.origins.allows(request.headers()) {
        refuse("origin");
        return Err(Box::new(HttpResponse::Forbidden().body("this page may not connect (web.allowed_origins)\n")));
    }
    let address = deps.proxies.client(peer, request.headers());
    let slot = deps.admission.admit(address).map_err(|refused| {
        refuse(refused.as_str());
        HttpResponse::TooManyRequests().insert_header((RETRY_AFTER, "5")).body(refused.to_string())
    })?;
    let visitor = visitor(deps, request.headers()).map_err(|denied| {
        refuse(denied.as_str());
        tracing::debug!(%address, %denied, "a client was not let in");
        not_let_in(&denied)
    })?;
    let mut response = ws::handshake(request.head()).map_err(|error| error.error_response())?;
    // The first one offered that is known.
    let chosen = auth::protocols(request.headers()).find(|name| Dialect::SUBPROTOCOLS.contains(name));
    if let Some(chosen) = chosen {
        response.insert_header((SEC_WEBSOCKET_PROTOCOL, chosen));
    }
    let dialect = if chosen == Some(Dialect::SUBPROTOCOL) { Dialect::V2 } else { Dialect::V1 };
    Ok(Admitted { response: response.finish().drop_body(), dialect, address, visitor, slot })
}

/// `GET /ws` that asks for no upgrade.
///
/// # Errors
/// Always: it is told what is missing.
pub async fn not_an_upgrade() -> Result<HttpResponse, Error> {
    Err(ws::HandshakeError::NoWebsocketUpgrade.into())
}

/// The span that a request belongs to.
fn trace(request: &Request) -> Option<TraceParent> {
    TraceParent::parse(request.headers().get(TRACEPARENT)?.to_str().ok()?)
}

/// Whom a request comes from, and what they may see.
fn visitor(deps: &WebsocketDeps, headers: &HeaderMap) -> Result<Visitor, Denied> {
    let Some(auth) = &deps.auth else { return Ok(Visitor { grant: Grant::ALL, expires: None }) };
    let access = auth.admit(headers)?;
    let expires = Instant::now().checked_add(auth.remaining(&access));
    let nobodys = || Denied::Forbidden("it names no tenants whose records may be seen".into());
    Ok(Visitor { grant: access.grant.ok_or_else(nobodys)?, expires })
}

fn not_let_in(denied: &Denied) -> HttpResponse {
    let body = format!("{denied}\n");
    match denied {
        Denied::Missing => HttpResponse::Unauthorized().insert_header((WWW_AUTHENTICATE, "Bearer")).body(body),
        Denied::Invalid(_) | Denied::Expired => {
            HttpResponse::Unauthorized().insert_header((WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#)).body(body)
        }
        Denied::Forbidden(_) => {
            let why = r#"Bearer error="insufficient_scope""#;
            HttpResponse::Forbidden().insert_header((WWW_AUTHENTICATE, why)).body(body)
        }
        Denied::NoKeys => HttpResponse::ServiceUnavailable().insert_header((RETRY_AFTER, "5")).body(body),
    }
}

/// What the session's actor writes.
type ControlStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>>>>;

/// What the connection writes: pongs and pings of the control plane first, then the queue.
///
/// It ends when both have ended: the queue with its close frame, the control plane when the client has answered that or is
/// gone. A client that reads the close frame and does not answer is left after a grace.
struct SessionFrames {
    control: Option<WhenWoken<ControlStream>>,
    queue: Arc<SessionQueue>,
    grace: Option<Pin<Box<Sleep>>>,
    metrics: Arc<Metrics>,
    // After the control plane: the session is over when nothing of it is left.
    _registered: Registered,
    _slot: Slot,
}

impl Source for SessionFrames {
    fn poll_frames(&mut self, cx: &mut Context<'_>, unsent: &mut VecDeque<Bytes>) -> Poll<bool> {
        if let Some(control) = &mut self.control {
            match Pin::new(control).poll_next(cx) {
                Poll::Pending => {}
                Poll::Ready(Some(Ok(frame))) => {
                    unsent.push_back(frame);
                    return Poll::Ready(true);
                }
                // Its end closes the queue.
                Poll::Ready(Some(Err(_)) | None) => self.control = None,
            }
        }
        match self.queue.poll_frames(cx, unsent) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(true) => {
                let bytes: usize = unsent.iter().map(Bytes::len).sum();
                self.metrics.sent_bytes.inc_by(bytes as u64);
                return Poll::Ready(true);
            }
            Poll::Ready(false) => {}
        }
        if self.control.is_none() {
            return Poll::Ready(false);
        }
        let grace = self.grace.get_or_insert_with(|| Box::pin(tokio::time::sleep(CLOSE_GRACE)));
        grace.as_mut().poll(cx).map(|()| false)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::stream;

    use super::*;
    use crate::actors::session_queue::{QueueLimits, SlowPolicy};

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// A session whose actor does what `control` does.
    fn session(control: ControlStream, admission: &Admission, sessions: &Sessions) -> SessionFrames {
        let now = Instant::now();
        let info = SessionInfo { session: 1, dialect: Dialect::V2, address: ADDRESS, opened: now, trace: None };
        let limits = QueueLimits {
            queued_bytes: 1,
            unapplied_bytes: 1,
            page_records: 1,
            max_total: 1,
            slow: SlowPolicy::CatchUp,
        };
        let queue = Arc::new(SessionQueue::new(info, limits, Link::default()));
        let registered = sessions.register(OpenSession { queue: Arc::clone(&queue), socket: None });
        SessionFrames {
            control: Some(WhenWoken::new(control)),
            queue,
            grace: None,
            metrics: Arc::new(Metrics::new().unwrap()),
            _registered: registered,
            _slot: admission.admit(ADDRESS).unwrap(),
        }
    }

    async fn serve(mut session: SessionFrames) {
        let mut unsent = VecDeque::new();
        while poll_fn(|cx| session.poll_frames(cx, &mut unsent)).await {
            unsent.clear();
        }
    }

    #[actix::test]
    async fn a_session_that_panics_or_is_cut_off_gives_its_place_back() {
        let (admission, sessions) = (Admission::new(1, 1), Sessions::default());
        let panics = Box::pin(stream::poll_fn(|_| panic!("a session fails")));
        let serving = actix::spawn(serve(session(panics, &admission, &sessions)));
        assert!(serving.await.unwrap_err().is_panic());
        assert_eq!(sessions.len(), 0, "it is not listed any more");

        let waits = Box::pin(stream::pending());
        let serving = actix::spawn(serve(session(waits, &admission, &sessions)));
        tokio::task::yield_now().await;
        assert_eq!(sessions.len(), 1);
        assert!(admission.admit(ADDRESS).is_err(), "the place is taken");
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        assert_eq!(sessions.len(), 0);
        admission.admit(ADDRESS).unwrap();
    }
}
