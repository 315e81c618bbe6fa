//! The listener of the exporter of quality: `/metrics`, and how the exporter does.
//!
//! It must not know what is measured, or how the exporter is judged.

use std::net::TcpListener;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{self, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use serde_json::{Value, json};

use super::admin::refused;
use super::status::Observers;

/// How long a client may take for the head of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long open requests may hold a stop.
const STOP_SECONDS: u64 = 1;
/// Connections at a time: those who scrape, and probes.
const CONNECTIONS: usize = 256;

/// What the routes show.
pub struct Pages {
    /// The exposition text.
    pub scrape: Box<dyn Fn() -> Result<String, String> + Send + Sync>,
    /// The status, and whether the figures are up to date.
    pub status: Box<dyn Fn() -> (&'static str, bool) + Send + Sync>,
    /// The whole of `/health`.
    pub health: Box<dyn Fn() -> Value + Send + Sync>,
    /// Who may see it in full, and the metrics.
    pub observers: Observers,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

/// Builds the server. It runs when it is awaited.
///
/// # Errors
/// When the listener cannot be used.
pub fn start(listener: TcpListener, pages: Pages) -> std::io::Result<Server> {
    let pages = Data::new(pages);
    let app = move || {
        App::new()
            .app_data(pages.clone())
            .route("/metrics", web::get().to(metrics))
            .route("/health", web::get().to(health))
            .route("/ready", web::get().to(ready))
            .route("/live", web::get().to(super::status::live))
    };
    let server = HttpServer::new(app)
        .workers(1)
        .max_connections(CONNECTIONS)
        .client_request_timeout(REQUEST_TIMEOUT)
        .shutdown_timeout(STOP_SECONDS)
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
}

/// `GET /metrics`.
async fn metrics(request: HttpRequest, pages: Data<Pages>) -> HttpResponse {
    if let Err(refusal) = pages.observers.allow(&request) {
        return refused(&refusal);
    }
    match (pages.scrape)() {
        Ok(text) => {
            HttpResponse::Ok().insert_header((CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")).body(text)
        }
        Err(error) => {
            tracing::error!(error, "cannot encode the metrics");
            HttpResponse::InternalServerError().body(format!("cannot encode the metrics: {error}\n"))
        }
    }
}

/// `GET /health`: always 200; the status is in the body. Who may not see the metrics gets no more than that.
async fn health(request: HttpRequest, pages: Data<Pages>) -> HttpResponse {
    let body = match pages.observers.allow(&request) {
        Ok(()) => (pages.health)(),
        Err(_) => json!({"status": (pages.status)().0}),
    };
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(body)
}

/// `GET /ready`: 200 while the figures are up to date, else 503.
async fn ready(pages: Data<Pages>) -> HttpResponse {
    let (status, is_ready) = (pages.status)();
    let mut answer = if is_ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    answer.insert_header((CACHE_CONTROL, "no-store")).json(json!({"ready": is_ready, "status": status}))
}
