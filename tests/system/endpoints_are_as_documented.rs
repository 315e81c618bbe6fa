//! The endpoints that operators read about are there and answer as the page says.

use crate::harness::client::{Client, From};
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;

const PAGE: &str = include_str!("../../docs/OBSERVABILITY_INFRASTRUCTURE.md");

/// Path and status of each row `| GET | path | status | answer |`.
fn documented() -> Vec<(String, u16, String)> {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| GET | `"));
    rows.map(|row| {
        let (path, rest) = row.split_once("` | ").expect("a path");
        let (status, answer) = rest.split_once(" | ").expect("a status");
        (path.to_owned(), status.parse().expect("a number"), answer.to_owned())
    })
    .collect()
}

#[test]
fn every_documented_endpoint_answers() {
    let topic = Topic::create(services::kafka(), "endpoints", 1);
    let service = Service::start_healthy(&Config::new(&topic));
    let documented = documented();
    assert!(documented.len() >= 7, "the table of endpoints is found");
    for (path, status, answer) in &documented {
        if *status == 101 {
            // It checks the upgrade, the subprotocol and the welcome.
            let client = Client::from(service.address(), From::Latest);
            assert_eq!(client.closed(), None);
            continue;
        }
        let (found, body) = service.get(path).expect("an answer");
        assert_eq!(found, *status, "{path}: {body}");
        let is_json = serde_json::from_str::<serde_json::Value>(&body).is_ok();
        assert_eq!(is_json, answer.starts_with("JSON"), "{path}: {body}");
    }
    let (_, page) = service.get("/").expect("an answer");
    assert!(page.contains("<html"), "{page}");
}

#[test]
fn who_may_not_see_what_others_do_gets_the_status_alone() {
    let topic = Topic::create(services::kafka(), "endpoints", 1);
    let service = Service::start(
        &Config::new(&topic).set("DASHSTREAM_AUTH_JWT_SECRET", "a-secret-of-the-tests-that-is-long-enough"),
    );
    // It is held against the schema, as every answer.
    let health = service.health();
    assert_eq!(health.as_object().map(|fields| fields.keys().cloned().collect()), Some(vec!["status".to_owned()]));
}

#[test]
fn an_unknown_path_is_not_found() {
    let topic = Topic::create(services::kafka(), "endpoints", 1);
    let service = Service::start(&Config::new(&topic));
    let (status, _) = service.get("/metrics/nothing").expect("an answer");
    assert_eq!(status, 404);
    // The way to hurt actors exists only in a process that was started for it.
    let (status, _) = service.get("/test/sabotage/LagMonitor/panic").expect("an answer");
    assert_eq!(status, 404);
}
