//! `POST /admin/reset`: an operator has the stream begin anew at the end of the log, for every client of every instance.
//!
//! Everything that was asked is in the log.

use std::time::Duration;

use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::json;

use super::admin::{Admin, refuse};
use crate::wire::control::{cut, offset_map};

/// How long Kafka may take.
const WITHIN: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The topic, so that nobody resets another stream than they think.
    topic: String,
}

/// `POST /admin/reset` with `{"topic": "NAME"}`.
pub(super) async fn reset(request: HttpRequest, body: Bytes, admin: Data<Admin>) -> HttpResponse {
    let peer = request.peer_addr().map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
    let who = match admin.access.may_change(&request) {
        Ok(who) => who,
        Err(refusal) => {
            return refuse(&peer, &refusal);
        }
    };
    let error = |error: &str, message: String| json!({"error": error, "message": message});
    match serde_json::from_slice::<Asked>(&body) {
        Ok(Asked { topic }) if topic == admin.topic => {}
        Ok(Asked { topic }) => {
            let message = format!("this service does not read {:?}; nothing was reset", cut(&topic, 256));
            return HttpResponse::Conflict().json(error("other_topic", message));
        }
        Err(why) => {
            let message = format!("{why}; expected {{\"topic\":\"NAME\"}}");
            return HttpResponse::BadRequest().json(error("invalid_request", message));
        }
    }
    tracing::warn!(peer, who, topic = admin.topic, "an operator resets the stream");
    match admin.resets.reset(WITHIN).await {
        Ok(stream) => {
            let floors =
                stream.reset.iter().flat_map(|reset| &reset.floors).map(|(partition, floor)| (*partition, *floor));
            let next = offset_map(floors);
            tracing::warn!(peer, who, topic = admin.topic, epoch = stream.name(), %next, "the stream was reset by an operator");
            HttpResponse::Ok().json(json!({"epoch": stream.name(), "nextOffsets": next}))
        }
        Err(message) => {
            tracing::error!(peer, who, topic = admin.topic, message, "a reset by an operator failed");
            HttpResponse::ServiceUnavailable().json(error("not_done", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use actix_web::http::header::CONTENT_TYPE;
    use actix_web::test::{TestRequest, call_service, init_service, read_body_json};
    use actix_web::{App, web};
    use futures_util::future::BoxFuture;
    use serde_json::Value;

    use super::*;
    use crate::actors::tiers::ManualResets;
    use crate::board::{Epoch, Stream};
    use crate::pauses::Pauses;
    use crate::pipeline::manual_reset::ManualReset;
    use crate::web::access::OperatorAccess;

    #[derive(Debug, Default)]
    struct Fake {
        fails: bool,
        made: AtomicU32,
    }

    impl ManualResets for Fake {
        fn reset(&self, _: Duration) -> BoxFuture<'static, Result<Stream, String>> {
            self.made.fetch_add(1, Ordering::Relaxed);
            let reset = ManualReset { id: "07".into(), floors: BTreeMap::from([(0, 5), (3, i64::MAX)]) };
            let epoch = Epoch { number: 1, name: "c/t/id".into() };
            let made = Stream { epoch, reset: Some(Arc::new(reset)) };
            let result = if self.fails { Err("kafka is away".into()) } else { Ok(made) };
            Box::pin(async move { result })
        }
    }

    async fn ask(resets: &Arc<Fake>, peer: &str, body: &'static str) -> (u16, Value) {
        let admin = Admin {
            pauses: Pauses::default(),
            access: OperatorAccess::default(),
            resets: resets.clone(),
            topic: "t".into(),
        };
        let app = App::new().app_data(Data::new(admin)).route("/admin/reset", web::post().to(reset));
        let app = init_service(app).await;
        let request = TestRequest::post().uri("/admin/reset").peer_addr(peer.parse().unwrap());
        let request = request.insert_header((CONTENT_TYPE, "application/json")).set_payload(body);
        let response = call_service(&app, request.to_request()).await;
        (response.status().as_u16(), read_body_json(response).await)
    }

    #[actix::test]
    async fn a_reset_is_made_for_who_may_and_names_the_topic_and_told_with_its_offsets() {
        let resets = Arc::new(Fake::default());
        for (peer, body, status) in [
            ("10.0.0.1:5", r#"{"topic":"t"}"#, 403),
            ("127.0.0.1:5", "", 400),
            ("127.0.0.1:5", "{}", 400),
            ("127.0.0.1:5", r#"{"topic":"t","force":true}"#, 400),
            ("127.0.0.1:5", r#"{"topic":"other"}"#, 409),
        ] {
            assert_eq!(ask(&resets, peer, body).await.0, status, "{peer} {body}");
        }
        assert_eq!(resets.made.load(Ordering::Relaxed), 0);
        let (status, body) = ask(&resets, "127.0.0.1:5", r#"{"topic":"t"}"#).await;
        let want = json!({"epoch": "c/t/id@07", "nextOffsets": {"0": "5", "3": "9223372036854775807"}});
        assert_eq!((status, body), (200, want));
        let fails = Arc::new(Fake { fails: true, ..Fake::default() });
        let (status, body) = ask(&fails, "127.0.0.1:5", r#"{"topic":"t"}"#).await;
        assert_eq!((status, &body["message"]), (503, &json!("kafka is away")));
    }
}
