//! `GET /admin/clients`: who is connected, and how far each client has come. In pages, since there may be many.

use std::time::Instant;

use actix_web::web::{Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::admin::{Admin, refused};
use super::status::StatusSource;
use crate::actors::session_queue::{Position, SessionQueue, Snapshot};
use crate::pipeline::filter::Filter;
use crate::wire::control::cut;

/// Clients of a page, unless asked otherwise, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;
/// Positions of a page: it ends with the client that reaches them.
const MAX_POSITIONS: usize = 20_000;
/// Entries that are shown of each list of a filter, and bytes of each.
const SHOWN: usize = 20;
const SHOWN_BYTES: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The number of a session: those after it are listed.
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

/// `GET /admin/clients?after=SESSION&limit=COUNT`. `next` is the `after` of the next page, null on the last one.
pub(super) async fn list(request: HttpRequest, admin: Data<Admin>, status: Data<StatusSource>) -> HttpResponse {
    if let Err(refusal) = admin.access.may_look(&request) {
        return refused(&refusal);
    }
    let asked = Query::<Asked>::from_query(request.query_string()).map(Query::into_inner);
    let (after, limit) = match asked {
        Ok(Asked { after, limit }) if limit.is_none_or(|limit| (1..=MAX_PAGE).contains(&limit)) => {
            (after, limit.unwrap_or(PAGE))
        }
        Ok(_) => return invalid(&format!("limit must be from 1 to {MAX_PAGE}")),
        Err(error) => return invalid(&error.to_string()),
    };
    let now = Instant::now();
    // One more than is shown tells whether there is another page.
    let sessions = status.sessions.page(after, limit.saturating_add(1));
    let (mut clients, mut positions, mut last) = (Vec::new(), 0, None);
    for session in sessions.iter().take(limit) {
        if positions >= MAX_POSITIONS {
            break;
        }
        let snapshot = session.queue.snapshot(now);
        positions += snapshot.positions.len();
        clients.push(shown(&session.queue, &snapshot, now));
        last = Some(session.queue.info.session);
    }
    let next = last.filter(|_| clients.len() < sessions.len()).map(|last| last.to_string());
    HttpResponse::Ok().json(json!({"total": status.sessions.len(), "clients": clients, "next": next}))
}

fn invalid(message: &str) -> HttpResponse {
    HttpResponse::BadRequest().json(json!({"error": "invalid_request", "message": message}))
}

fn shown(queue: &SessionQueue, snapshot: &Snapshot, now: Instant) -> Value {
    json!({
        "session": queue.info.session.to_string(),
        "address": queue.info.address,
        "client": snapshot.client.as_deref(),
        "protocol": queue.info.dialect.as_str(),
        "state": snapshot.feed.name(),
        "connected_seconds": now.saturating_duration_since(queue.info.opened).as_secs(),
        "filter": snapshot.filter.as_deref().map(filter),
        "positions": snapshot.positions.iter().map(position).collect::<Map<_, _>>(),
        "apply_lag": snapshot.apply_lag_messages.map(|messages| json!({
            "messages": messages.to_string(),
            "seconds": snapshot.apply_lag.unwrap_or_default().as_secs_f64(),
        })),
        "queued_bytes": snapshot.queued_bytes,
        "sent_bytes": snapshot.sent_bytes.to_string(),
    })
}

fn position(position: &Position) -> (String, Value) {
    let offsets = json!({
        "start": position.start.to_string(),
        "sent": position.sent.to_string(),
        "applied": position.applied.to_string(),
    });
    (position.partition.to_string(), offsets)
}

/// What the client asked for, of long lists the beginning, and whether its token restricts what it may see.
fn filter(filter: &Filter) -> Value {
    fn list<T>(all: &Option<Vec<T>>, show: impl Fn(&T) -> Value) -> Option<Value> {
        let all = all.as_ref()?;
        Some(json!({"count": all.len(), "first": all.iter().take(SHOWN).map(show).collect::<Vec<_>>()}))
    }
    let text = |text: &String| Value::from(cut(text, SHOWN_BYTES));
    let mut shown = Map::new();
    if let Some(request) = filter.request() {
        let types = request.types.map(|types| types.names().collect::<Vec<_>>().into());
        let fields = [
            ("tenants", list(&request.tenants, text)),
            ("threads", list(&request.threads, text)),
            ("types", types),
            ("partitions", list(&request.partitions, |partition| (*partition).into())),
        ];
        shown.extend(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    }
    shown.insert("restricted".into(), filter.is_restricted().into());
    shown.into()
}
