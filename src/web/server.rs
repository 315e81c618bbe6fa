//! The HTTP server: binds, routes, stops.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::Addr;
use actix_http::HttpService;
use actix_server::Server;
use actix_service::{IntoServiceFactory as _, ServiceFactoryExt as _, fn_service, map_config};
use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::dev::AppConfig;
use actix_web::rt::net::TcpStream;
use actix_web::web::{self, Data, Path};
use actix_web::{App, Error, HttpResponse};
use socket2::{Domain, Socket, Type};

use super::admin::{self, Admin};
use super::assets;
use super::clients;
use super::reset;
use super::status::{self, ObserverRule, Observers, StatusSource};
use super::websocket::{self, WebsocketDeps};
use crate::actors::supervisor::{Sabotage, Strike, Supervisor};

const BACKLOG: i32 = 4096;
/// How long a client may take for the head of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to close.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Threads that serve connections.
    pub workers: usize,
    /// WebSocket connections at the same time; some more serve health and metrics.
    pub max_connections: usize,
    /// Acknowledgements outstanding for longer end a connection.
    pub user_timeout: Duration,
    /// How long open requests may hold a stop.
    pub shutdown_timeout: Duration,
}

/// What the routes need.
#[derive(Clone, Debug)]
pub struct Web {
    /// Health, metrics, version.
    pub status: Arc<StatusSource>,
    /// The upgrade.
    pub websocket: Arc<WebsocketDeps>,
    /// The admin routes.
    pub admin: Arc<Admin>,
    /// Who can make actors fail, for tests of the whole service.
    pub supervisor: Arc<Mutex<Option<Addr<Supervisor>>>>,
}

/// Binds the address without serving yet; port 0 takes a free one.
///
/// # Errors
/// When the name does not resolve or no address of it can be bound.
pub fn listen(host: &str, port: u16) -> std::io::Result<TcpListener> {
    let mut last = std::io::Error::new(std::io::ErrorKind::AddrNotAvailable, "the host name has no address");
    for address in (host, port).to_socket_addrs()? {
        match bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restart must not wait for connections of the last run that linger.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    All,
    /// Browsers; operators have a listener of their own.
    Clients,
    /// Metrics, health and the admin routes.
    Operators,
}

/// A bound address, and what is served there.
#[derive(Debug)]
pub struct Door {
    /// Where.
    pub listener: TcpListener,
    /// How connections are encrypted, if they are.
    pub tls: Option<rustls::ServerConfig>,
    /// What.
    pub role: Role,
}

/// Builds the server behind a door. It runs when it is awaited.
///
/// # Errors
/// When the listener cannot be used.
pub fn start(
    settings: &ServerSettings,
    door: Door,
    web: &Web,
    allow_sabotage: bool,
) -> std::io::Result<(Server, Vec<SocketAddr>)> {
    let Door { listener, tls, role } = door;
    let status = Data::from(Arc::clone(&web.status));
    let supervisor = Data::from(Arc::clone(&web.supervisor));
    let admin = Data::from(Arc::clone(&web.admin));
    let rule = match role {
        Role::All => ObserverRule::Admitted(web.admin.access.clone()),
        Role::Clients => ObserverRule::Nobody,
        Role::Operators => ObserverRule::All,
    };
    let local = listener.local_addr()?.ip().to_canonical().is_loopback();
    let observers = Data::new(Observers { rule, local });
    let app = move || {
        let app = App::new().app_data(status.clone()).app_data(supervisor.clone());
        app.app_data(admin.clone()).app_data(observers.clone()).configure(|config| routes(config, role, allow_sabotage))
    };
    let address = listener.local_addr()?;
    let builder = Server::build()
        .workers(if role == Role::Operators { 1 } else { settings.workers })
        // The limit is per worker; who is over it in total is refused by the admission, with an answer.
        .max_concurrent_connections(settings.max_connections.saturating_add(256))
        .shutdown_timeout(settings.shutdown_timeout.as_secs())
        .disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let websocket = (role != Role::Operators).then(|| Arc::clone(&web.websocket));
    let user_timeout = settings.user_timeout;
    // The same for either kind of connection; the types of its parts have no names.
    macro_rules! http {
        ($kind:ty, $socket:expr) => {{
            let (app, websocket, stopping) = (app.clone(), websocket.clone(), stopping.clone());
            HttpService::build()
                .client_request_timeout(REQUEST_TIMEOUT)
                .client_disconnect_timeout(DISCONNECT_TIMEOUT)
                .local_addr(address)
                .graceful_shutdown_signal(move || {
                    let stopping = stopping.clone();
                    async move { stopping.notified().await }
                })
                .on_connect_ext(move |io: &$kind, extensions| {
                    let socket: fn(&$kind) -> &TcpStream = $socket;
                    websocket::prepare(socket(io), user_timeout, extensions);
                })
                .upgrade(fn_service(move |(request, io)| websocket::upgrade::<$kind>(request, io, websocket.clone())))
                .finish(map_config(app().into_factory().map_err(|error: Error| error.error_response()), |()| {
                    AppConfig::default()
                }))
        }};
    }
    let builder = match tls {
        None => builder.listen("http", listener, move || http!(TcpStream, |io| io).tcp())?,
        Some(tls) => builder.listen("https", listener, move || {
            http!(TlsStream<TcpStream>, |io| io.get_ref().0).rustls_0_23(tls.clone())
        })?,
    };
    Ok((builder.run(), vec![address]))
}

/// The whole route table.
fn routes(config: &mut web::ServiceConfig, role: Role, allow_sabotage: bool) {
    config
        .route("/health", web::get().to(status::health))
        .route("/ready", web::get().to(status::ready))
        .route("/live", web::get().to(status::live))
        .route("/version", web::get().to(status::version));
    if role != Role::Clients {
        config
            .route("/metrics", web::get().to(status::metrics))
            .route("/admin/clients", web::get().to(clients::list))
            .service(
                web::resource("/admin/ingest/continue")
                    .app_data(web::PayloadConfig::new(admin::MAX_BODY))
                    .route(web::post().to(admin::continue_ingest)),
            );
        config.service(
            web::resource("/admin/reset")
                .app_data(web::PayloadConfig::new(admin::MAX_BODY))
                .route(web::post().to(reset::reset)),
        );
    }
    if role != Role::Operators {
        if allow_sabotage {
            config.route("/test/sabotage/{actor}/{fault}", web::post().to(sabotage));
        }
        config
            .route(websocket::PATH, web::get().to(websocket::not_an_upgrade))
            .default_service(web::get().to(assets::page));
    }
}

/// `POST /test/sabotage/{actor}/{fault}`: exists only in a process that was started for such tests.
async fn sabotage(path: Path<(String, String)>, supervisor: Data<Mutex<Option<Addr<Supervisor>>>>) -> HttpResponse {
    let (actor, fault) = path.into_inner();
    let supervisor = supervisor.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (Some(supervisor), Some(fault)) = (supervisor, Sabotage::by_name(&fault)) else {
        return HttpResponse::BadRequest().body("no such fault\n");
    };
    match supervisor.send(Strike { actor, fault }).await {
        Ok(Ok(())) => HttpResponse::Ok().finish(),
        Ok(Err(error)) => HttpResponse::BadRequest().body(format!("{error}\n")),
        Err(error) => HttpResponse::ServiceUnavailable().body(format!("{error}\n")),
    }
}
