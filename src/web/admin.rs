//! What an operator may change while the service runs: how ingest goes on after it stopped at a record.
//!
//! Everything that was asked is in the log.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::{OperatorAccess, Refusal};
use crate::actors::tiers::ManualResets;
use crate::pauses::{Answer, Pause, Pauses};
use crate::telemetry::RateLimited;

/// Bytes of a request at most.
pub const MAX_BODY: usize = 4 * 1024;

/// What the routes need.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where ingest stands still.
    pub pauses: Pauses,
    /// Who may ask.
    pub access: OperatorAccess,
    /// Who makes resets by hand.
    pub resets: Arc<dyn ManualResets>,
    /// The topic.
    pub topic: String,
}

/// The body of `POST /admin/ingest/continue`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Continue {
    action: Answer,
    /// Only the record at this place, together with `offset`.
    partition: Option<i32>,
    /// A decimal string.
    offset: Option<String>,
}

/// `POST /admin/ingest/continue` with `{"action": "retry" | "set_aside"}`, optionally only for the record at `partition`
/// and `offset`.
pub async fn continue_ingest(request: HttpRequest, body: Bytes, admin: Data<Admin>) -> HttpResponse {
    let peer = request.peer_addr().map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
    let who = match admin.access.may_change(&request) {
        Ok(who) => who,
        Err(refusal) => {
            return refuse(&peer, &refusal);
        }
    };
    let (answer, only) = match parse(&body) {
        Ok(asked) => asked,
        Err(message) => {
            return HttpResponse::BadRequest().json(json!({"error": "invalid_request", "message": message}));
        }
    };
    let answered = admin.pauses.answer(answer, only);
    tracing::info!(peer, who, action = answer.as_str(), records = answered.len(), "an operator continues ingest");
    for Pause { partition, offset, kind, .. } in &answered {
        let (action, kind) = (answer.as_str(), kind.as_str());
        tracing::info!(peer, who, action, partition, offset, kind, "an operator decided about a record");
    }
    if answered.is_empty() {
        let message = "ingest does not stand still at a record that this instance decides about";
        return HttpResponse::Conflict().json(json!({"error": "not_paused", "message": message}));
    }
    HttpResponse::Ok().json(json!({"continued": answered.iter().map(|pause| shown(pause, answer)).collect::<Vec<_>>()}))
}

/// The answer to a request that may not be made, and a line in the log: whoever reaches the service can cause one.
pub(super) fn refuse(peer: &str, refusal: &Refusal) -> HttpResponse {
    static LINES: RateLimited = RateLimited::new(5, Duration::from_secs(10));
    if let Some(suppressed) = LINES.admit() {
        tracing::warn!(peer, %refusal, suppressed, "an admin request was refused");
    }
    refused(refusal)
}

/// The answer to a request that may not be made.
pub fn refused(refusal: &Refusal) -> HttpResponse {
    let body = json!({"error": "refused", "message": refusal.to_string()});
    match refusal {
        Refusal::Token => HttpResponse::Unauthorized().insert_header(("www-authenticate", "Bearer")).json(body),
        Refusal::Elsewhere | Refusal::Scope(_) => HttpResponse::Forbidden().json(body),
        Refusal::Page => HttpResponse::UnsupportedMediaType().json(body),
    }
}

fn parse(body: &[u8]) -> Result<(Answer, Option<(i32, i64)>), String> {
    let Continue { action, partition, offset } = serde_json::from_slice(body)
        .map_err(|error| format!("{error}; expected {{\"action\":\"retry\"}} or {{\"action\":\"set_aside\"}}"))?;
    let only = match (partition, offset) {
        (None, None) => None,
        (Some(partition), Some(offset)) => {
            Some((partition, offset.parse().map_err(|_| "offset must be a decimal string".to_owned())?))
        }
        _ => return Err("partition and offset belong together".into()),
    };
    Ok((action, only))
}

fn shown(pause: &Pause, answer: Answer) -> Value {
    json!({
        "partition": pause.partition,
        "offset": pause.offset.to_string(),
        "kind": pause.kind.as_str(),
        "action": answer.as_str(),
    })
}

#[cfg(test)]
mod tests {
    use actix_web::http::StatusCode;
    use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE};
    use actix_web::test::{TestRequest, call_service, init_service, read_body_json};
    use actix_web::{App, web};
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::board::Stream;
    use crate::config::secret::Secret;
    use crate::pipeline::decode::Kind;
    use crate::pipeline::record::Origin;

    const BODY: &str = r#"{"action":"set_aside"}"#;

    #[derive(Debug)]
    struct NoResets;

    impl ManualResets for NoResets {
        fn reset(&self, _: Duration) -> BoxFuture<'static, Result<Stream, String>> {
            Box::pin(async { Err("none".to_owned()) })
        }
    }

    fn admin(token: &str) -> Admin {
        let pauses = Pauses::default();
        pauses.begin(1, std::iter::empty());
        pauses.meet(&Origin { epoch: 1, partition: 2, first: 0, next: 9 }, 7, Kind::UnknownFraming, true);
        let access = OperatorAccess { token: Secret::new(token), auth: None };
        Admin { pauses, access, resets: Arc::new(NoResets), topic: "t".into() }
    }

    fn request(peer: &str) -> TestRequest {
        TestRequest::post()
            .uri("/admin/ingest/continue")
            .peer_addr(peer.parse().unwrap())
            .insert_header((CONTENT_TYPE, "application/json"))
            .set_payload(BODY)
    }

    async fn ask(admin: &Admin, request: TestRequest) -> (StatusCode, Value) {
        let app = App::new().app_data(Data::new(admin.clone()));
        let app = init_service(app.route("/admin/ingest/continue", web::post().to(continue_ingest))).await;
        let response = call_service(&app, request.to_request()).await;
        (response.status(), read_body_json(response).await)
    }

    #[actix::test]
    async fn without_a_token_only_this_machine_may_decide() {
        for (case, status) in [
            (request("127.0.0.1:5"), 200),
            (request("[::1]:5"), 200),
            (request("[::ffff:127.0.0.1]:5"), 200),
            (request("10.0.0.1:5"), 403),
            (request("[2001:db8::1]:5"), 403),
            (request("127.0.0.1:5").insert_header(("X-Forwarded-For", "127.0.0.1")), 403),
            (request("127.0.0.1:5").insert_header(("Forwarded", "for=127.0.0.1")), 403),
            (request("127.0.0.1:5").insert_header(("Host", "localhost:3002")), 200),
            (request("127.0.0.1:5").insert_header(("Host", "evil.example:3002")), 403),
            (request("127.0.0.1:5").insert_header(("Origin", "http://127.0.0.1:3002")), 415),
            (request("127.0.0.1:5").insert_header((CONTENT_TYPE, "text/plain")), 415),
        ] {
            let admin = admin("");
            assert_eq!(ask(&admin, case).await.0, status);
            assert_eq!(admin.pauses.all()[0].stands(), status != 200);
        }
    }

    #[actix::test]
    async fn with_a_token_nobody_may_decide_without_it() {
        let with = |peer, token: &str| request(peer).insert_header((AUTHORIZATION, token.to_owned()));
        for (case, status) in [
            (request("127.0.0.1:5"), 401),
            (with("127.0.0.1:5", "Bearer wrong"), 401),
            (with("127.0.0.1:5", "Bearer "), 401),
            (with("127.0.0.1:5", "correct horse"), 401),
            (with("127.0.0.1:5", "Bearer correct horse"), 200),
            (with("127.0.0.1:5", "bearer correct horse"), 200),
            (with("10.0.0.1:5", "Bearer correct horse"), 200),
        ] {
            let admin = admin("correct horse");
            assert_eq!(ask(&admin, case).await.0, status);
            assert_eq!(admin.pauses.all()[0].stands(), status != 200);
        }
    }

    #[actix::test]
    async fn the_answer_names_what_was_decided_and_a_second_one_finds_nothing() {
        let admin = admin("");
        let (status, body) = ask(&admin, request("127.0.0.1:5")).await;
        let record = json!({"partition": 2, "offset": "7", "kind": "unknown_framing", "action": "set_aside"});
        assert_eq!((status, body), (StatusCode::OK, json!({"continued": [record]})));
        let (status, body) = ask(&admin, request("127.0.0.1:5")).await;
        assert_eq!((status, &body["error"]), (StatusCode::CONFLICT, &json!("not_paused")));
    }

    #[actix::test]
    async fn a_bad_request_decides_nothing() {
        for body in [
            "",
            "{}",
            "null",
            r#"{"action":"skip"}"#,
            r#"{"action":"retry","force":true}"#,
            r#"{"action":"retry","partition":2}"#,
            r#"{"action":"retry","partition":2,"offset":7}"#,
            r#"{"action":"retry","partition":2,"offset":"x"}"#,
        ] {
            let admin = admin("");
            let (status, answer) = ask(&admin, request("127.0.0.1:5").set_payload(body)).await;
            assert_eq!((status, &answer["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")), "{body}");
            assert!(admin.pauses.all()[0].stands());
        }
        let admin = admin("");
        let other = r#"{"action":"retry","partition":2,"offset":"8"}"#;
        assert_eq!(ask(&admin, request("127.0.0.1:5").set_payload(other)).await.0, StatusCode::CONFLICT);
        let this = r#"{"action":"retry","partition":2,"offset":"7"}"#;
        assert_eq!(ask(&admin, request("127.0.0.1:5").set_payload(this)).await.0, StatusCode::OK);
    }
}
