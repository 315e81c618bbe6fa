//! The HTTP server: binds, routes, stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::web::{self, Data};
use actix_web::{App, HttpServer};

use super::assets;
use super::status::{self, StatusSource};
use super::websocket::{self, WebsocketDeps};

/// Where and how to listen.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Host name or address.
    pub host: String,
    /// Port; 0 takes a free one.
    pub port: u16,
    /// Threads that serve connections.
    pub workers: usize,
    /// Connections at the same time, WebSockets included.
    pub max_connections: usize,
    /// Acknowledgements outstanding for longer end a connection.
    pub user_timeout: Duration,
    /// How long open requests may hold a stop.
    pub shutdown_timeout: Duration,
}

/// Binds and builds the server. It runs when it is awaited.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(
    settings: &ServerSettings,
    status: Arc<StatusSource>,
    websocket: Arc<WebsocketDeps>,
) -> std::io::Result<(Server, Vec<SocketAddr>)> {
    let status = Data::from(status);
    let websocket = Data::from(websocket);
    let user_timeout = settings.user_timeout;
    let server =
        HttpServer::new(move || App::new().app_data(status.clone()).app_data(websocket.clone()).configure(routes))
            .on_connect(move |socket, extensions| {
                if let Some(socket) = socket.downcast_ref::<actix_web::rt::net::TcpStream>() {
                    websocket::on_connect(socket, user_timeout, extensions);
                }
            })
            .workers(settings.workers)
            .max_connections(settings.max_connections)
            .backlog(4096)
            .client_request_timeout(Duration::from_secs(10))
            .shutdown_timeout(settings.shutdown_timeout.as_secs())
            .disable_signals()
            .bind((settings.host.as_str(), settings.port))?;
    let addresses = server.addrs();
    Ok((server.run(), addresses))
}

/// The whole route table.
fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/ws", web::get().to(websocket::upgrade))
        .route("/health", web::get().to(status::health))
        .route("/ready", web::get().to(status::ready))
        .route("/live", web::get().to(status::live))
        .route("/version", web::get().to(status::version))
        .route("/metrics", web::get().to(status::metrics))
        .default_service(web::get().to(assets::page));
}
