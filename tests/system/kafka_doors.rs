//! Every way into a secured Kafka works for every client of the service, and what cannot work says so.

use std::net::{Ipv6Addr, TcpListener};
use std::process::Command;
use std::time::Duration;

use crate::harness::authority::Authority;
use crate::harness::client::{Client, From};
use crate::harness::dead_letters;
use crate::harness::eventually::eventually;
use crate::harness::producer::Producer;
use crate::harness::records;
use crate::harness::service::{Config, Service};
use crate::harness::services::{self, SecureKafka};
use crate::harness::topic::Topic;
use dashstream::torture::proxy::Proxy;

const BOUND: Duration = Duration::from_secs(60);
const EXIT_BOUND: Duration = Duration::from_secs(10);

/// A key, and the same one under the password `key-secret`: made for these tests and used nowhere else.
const CLIENT_KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg3G+mTFrWF3E7dgWF
CldwuGeZl8PNur5Nlr0VJ75MfPKhRANCAATaA9bT+ZU3pHqneJqqRjwxrX2FIBKo
8Qc0NxdyBjK5pvy8P03ZxUrFybC5ZXaACZcotdcvseyLv5xSIrTJXRKL
-----END PRIVATE KEY-----
";
const ENCRYPTED_CLIENT_KEY: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAj5hfoDygWs5wICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEAHG3xORV7xqGDsYgpOLtQIEgZCq
bRmSVOZ9wzkcQsssuPRsW1VDuzVKR5rpar63H8b/qNv3xrWRweFle+umAvBZq1gU
k+Lgzo3qHv5eDLdp8EzfEztgYMFcHhJb/NQdoKwfNKq2m2nG8lIWZRS1rAM4Gcu8
BYmWzi7PY14zBf1Zn30mcrzBio2PlEdd1w+NYRWxD+rVCQzKrtelpwqH0hYKx4s=
-----END ENCRYPTED PRIVATE KEY-----
";

type Variables<'a> = Vec<(&'static str, &'a str)>;

struct Doors {
    authority: Authority,
    kafka: SecureKafka,
}

impl Doors {
    fn open() -> Self {
        let authority = Authority::new();
        let broker = authority.sign(&["127.0.0.1"]);
        authority.write("broker.pem", &format!("{}{}", broker.key, broker.certificate));
        let key = rcgen::KeyPair::from_pem(CLIENT_KEY).expect("a key");
        let client = authority.sign_key(&["alice"], key);
        authority.write("client.pem", &client.certificate);
        authority.write("client.key", CLIENT_KEY);
        authority.write("client-encrypted.key", ENCRYPTED_CLIENT_KEY);
        let kafka = services::secure_kafka(authority.folder());
        Self { authority, kafka }
    }

    fn config(&self, topic: &Topic, brokers: &str, variables: &Variables<'_>) -> Config {
        // No password is in the log, however much it tells.
        let base =
            Config::new(topic).set("KAFKA_BROKERS", brokers).set("RUST_LOG", "info,dashstream=debug,rdkafka=debug");
        variables.iter().fold(base, |config, (name, value)| {
            let value = value.strip_prefix('@').map_or_else(|| (*value).to_owned(), |name| self.authority.path(name));
            config.set(name, value)
        })
    }
}

const CA: (&str, &str) = ("KAFKA_SSL_CA_LOCATION", "@ca.pem");
const TLS: (&str, &str) = ("KAFKA_SECURITY_PROTOCOL", "ssl");
const SASL: (&str, &str) = ("KAFKA_SECURITY_PROTOCOL", "sasl_plaintext");
const SASL_TLS: (&str, &str) = ("KAFKA_SECURITY_PROTOCOL", "sasl_ssl");
const ALICE: (&str, &str) = ("KAFKA_SASL_USERNAME", "alice");

fn mechanism(name: &'static str) -> (&'static str, &'static str) {
    ("KAFKA_SASL_MECHANISM", name)
}

fn password(text: &'static str) -> (&'static str, &'static str) {
    ("KAFKA_SASL_PASSWORD", text)
}

#[test]
fn each_listener_is_entered_by_every_client_of_the_service() {
    let doors = Doors::open();
    let SecureKafka { direct, ssl, mtls, sasl_plaintext, sasl_ssl, .. } = &doors.kafka;
    let with_certificate = |key, more: &[(&'static str, &'static str)]| {
        let own = [TLS, CA, ("KAFKA_SSL_CERTIFICATE_LOCATION", "@client.pem"), ("KAFKA_SSL_KEY_LOCATION", key)];
        [&own, more].concat()
    };
    let mut ways: Vec<(&str, Variables<'_>)> = vec![
        (direct, vec![("KAFKA_SECURITY_PROTOCOL", "plaintext")]),
        (ssl, vec![TLS, CA]),
        (ssl, vec![TLS, CA, ("KAFKA_SSL_ENDPOINT_ALGORITHM", "none")]),
        (mtls, with_certificate("@client.key", &[])),
        (mtls, with_certificate("@client-encrypted.key", &[("KAFKA_SSL_KEY_PASSWORD", "key-secret")])),
    ];
    for (listener, protocol) in [(sasl_plaintext, vec![SASL]), (sasl_ssl, vec![SASL_TLS, CA])] {
        for (name, secret) in [
            ("PLAIN", Some("PLAIN-secret")),
            ("SCRAM-SHA-256", Some("SCRAM-SHA-256-secret")),
            ("SCRAM-SHA-512", Some("SCRAM-SHA-512-secret")),
            ("OAUTHBEARER", None),
        ] {
            let mut way = [&protocol[..], &[mechanism(name), ALICE]].concat();
            way.extend(secret.map(password));
            ways.push((listener, way));
        }
    }
    for (brokers, variables) in &ways {
        println!("{variables:?}");
        let topic = Topic::create(direct, "door", 2);
        enter(&topic, &doors.config(&topic, brokers, variables));
    }
}

/// Every client of the service, and its commands, come in by the way that the configuration says.
fn enter(topic: &Topic, config: &Config) {
    let letters = topic.beside("dlq", 1);
    let service = Service::start_healthy(config);
    let client = Client::from(service.address(), From::Earliest);
    let sent = [records::good("t", 1), records::garbage("t"), records::zstd("t", 2, 500)];
    let sent = sent.into_iter().cycle().take(30).enumerate();
    let sent = sent.map(|(index, record)| record.on_partition(i32::try_from(index % 2).expect("0 or 1")));
    let published = Producer::new(&topic.kafka).publish(&topic.name, sent);
    // Reader, membership, dead letters and lag each have a client of their own.
    client.wait_for_all(&published, BOUND);
    topic.wait_until_all_committed(config.group(), BOUND);
    dead_letters::wait_for(&letters, published.bad(), BOUND);
    eventually("the lag of both partitions", BOUND, || {
        let known = service.metrics().keys().filter(|name| name.starts_with("websocket_kafka_consumer_lag{")).count();
        if known == 2 { Ok(()) } else { Err(known.to_string()) }
    });
    assert!(!service.log().contains("-secret"), "no password is in the log");
    // Commands take the same door.
    let listed = Command::new(env!("CARGO_BIN_EXE_dashstream"))
        .args(["dlq", "list", "--json"])
        .env_clear()
        .envs(config.variables())
        .output()
        .expect("the binary can be run");
    let lines = String::from_utf8_lossy(&listed.stdout).lines().count();
    assert!(listed.status.success() && lines == published.bad(), "{listed:?}");
}

#[test]
fn a_broker_that_has_only_an_address_of_ipv6_is_entered_by_every_client_of_the_service() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("this machine has no IPv6: nothing was tested");
        return;
    }
    // It advertises that address alone to those who come by it.
    let kafka = services::kafka_behind(Proxy::start_on(Ipv6Addr::LOCALHOST.into()).expect("a free port"));
    let topic = Topic::create(&kafka.direct, "ipv6", 2);
    let brokers = kafka.proxy.address();
    assert!(brokers.starts_with("[::1]:"), "{brokers}");
    for family in ["auto", "v6"] {
        let topic = Topic::create(&kafka.direct, "ipv6", 2);
        let config = Config::new(&topic).set("KAFKA_BROKERS", &brokers).set("KAFKA_BROKER_ADDRESS_FAMILY", family);
        enter(&topic, &config);
    }
    // IPv4 alone does not get there, and says so.
    let config = Config::new(&topic).set("KAFKA_BROKERS", &brokers).set("KAFKA_BROKER_ADDRESS_FAMILY", "v4");
    let service = Service::start(&config);
    eventually("faults of the connection", BOUND, || match faults(&service).is_empty() {
        false => Ok(()),
        true => Err("none".to_owned()),
    });
    assert_ne!(service.verdict().expect("/health answers").0, "healthy");
}

#[test]
fn a_door_that_stays_shut_is_told_by_its_kind_and_opens_no_other() {
    let doors = Doors::open();
    let SecureKafka { direct, ssl, mtls, sasl_plaintext, sasl_ssl, .. } = &doors.kafka;
    let other = Authority::new();
    let other_ca = other.path("ca.pem");
    let by_name = ssl.replace("127.0.0.1", "localhost");
    let wrong: [(&str, Variables<'_>, &str); 8] = [
        (sasl_ssl, vec![SASL_TLS, CA, mechanism("PLAIN"), ALICE, password("wrong")], "authentication"),
        (sasl_ssl, vec![SASL_TLS, CA, mechanism("SCRAM-SHA-256"), ALICE, password("PLAIN-secret")], "authentication"),
        (
            sasl_plaintext,
            vec![SASL, mechanism("SCRAM-SHA-512"), ("KAFKA_SASL_USERNAME", "bob"), password("x")],
            "authentication",
        ),
        (ssl, vec![TLS], "tls"),
        (ssl, vec![TLS, ("KAFKA_SSL_CA_LOCATION", &other_ca)], "tls"),
        // The certificate names the address, not the host.
        (&by_name, vec![TLS, CA], "tls"),
        (mtls, vec![TLS, CA], ""),
        (ssl, vec![], ""),
    ];
    for (brokers, variables, kind) in &wrong {
        println!("{variables:?}");
        let topic = Topic::create(direct, "shut", 1);
        let service = Service::start(&doors.config(&topic, brokers, variables));
        let label = format!(r#"error_type="{kind}"#);
        eventually(&format!("a fault of type {kind:?}"), BOUND, || {
            match service.metric("websocket_kafka_errors_by_type_total", &[&label]) {
                count if count > 0.0 => Ok(()),
                _ => Err(format!("{:?}", faults(&service))),
            }
        });
        let (status, _) = service.verdict().expect("/health answers");
        assert_ne!(status, "healthy", "a service that reads nothing does not look well");
        assert_eq!(service.get("/ready").expect("/ready answers").0, 503);
        assert!(!service.log().contains("-secret"), "no password is in the log");
    }
}

fn faults(service: &Service) -> Vec<(String, f64)> {
    let by_type = |name: &String| name.starts_with("websocket_kafka_errors_by_type_total");
    service.metrics().into_iter().filter(|(name, count)| by_type(name) && *count > 0.0).collect()
}

#[test]
fn a_combination_that_cannot_work_stops_the_start_and_names_the_variable() {
    let topic = Topic::planned("127.0.0.1:1", "never");
    let authority = Authority::new();
    let signed = authority.sign(&["x"]);
    let (ca, certificate) = (authority.path("ca.pem"), authority.write("c.pem", &signed.certificate));
    let (certificate, key) = (certificate.to_str().expect("a path"), authority.write("k.pem", &signed.key));
    let key = key.to_str().expect("a path");
    let certificate_of = ("KAFKA_SSL_CERTIFICATE_LOCATION", certificate);
    let key_of = ("KAFKA_SSL_KEY_LOCATION", key);
    let cases: Vec<(Variables<'_>, &str)> = vec![
        (vec![("KAFKA_SECURITY_PROTOCOL", "tls")], "KAFKA_SECURITY_PROTOCOL"),
        (vec![SASL], "sasl_mechanism"),
        (vec![SASL, mechanism("GSSAPI")], "KAFKA_SASL_MECHANISM"),
        (vec![SASL, mechanism("PLAIN")], "sasl_username"),
        (vec![SASL, mechanism("PLAIN"), ALICE], "sasl_password"),
        (vec![SASL_TLS, mechanism("SCRAM-SHA-256"), password("x")], "sasl_username"),
        (vec![SASL, mechanism("OAUTHBEARER")], "sasl_username"),
        (vec![SASL, mechanism("OAUTHBEARER"), ALICE, password("x")], "sasl_password"),
        (vec![SASL, mechanism("OAUTHBEARER"), ("KAFKA_SASL_USERNAME", "a b")], "sasl_username"),
        (vec![TLS, ALICE, password("x")], "sasl_username"),
        (vec![mechanism("PLAIN")], "sasl_mechanism"),
        (vec![password("x")], "sasl_username"),
        (vec![("KAFKA_SSL_CA_LOCATION", &ca)], "ssl_ca_location"),
        (vec![TLS, ("KAFKA_SSL_CA_LOCATION", "/no/such/file")], "KAFKA_SSL_CA_LOCATION"),
        (vec![TLS, certificate_of], "ssl_key_location"),
        (vec![TLS, key_of], "ssl_certificate_location"),
        (vec![certificate_of, key_of], "ssl_certificate_location"),
        (vec![TLS, ("KAFKA_SSL_KEY_PASSWORD", "x")], "ssl_key_password"),
        (vec![("KAFKA_SSL_ENDPOINT_ALGORITHM", "none")], "ssl_endpoint_algorithm"),
        (vec![TLS, ("KAFKA_SSL_ENDPOINT_ALGORITHM", "dns")], "KAFKA_SSL_ENDPOINT_ALGORITHM"),
    ];
    for (variables, named) in cases {
        let base = Config::new(&topic);
        let config = variables.iter().fold(base, |config, (name, value)| config.set(name, *value));
        let mut service = Service::spawn(&config);
        let status = service.wait_for_exit(EXIT_BOUND);
        let log = service.log();
        assert!(!status.success() && log.contains(named), "{variables:?}: {status}, {log}");
    }
    // Contents that only TLS can judge: a key that belongs to another certificate.
    let other = authority.write("other.pem", &authority.sign(&["x"]).key);
    let config = Config::new(&topic)
        .set("KAFKA_SECURITY_PROTOCOL", "ssl")
        .set("KAFKA_SSL_CERTIFICATE_LOCATION", certificate)
        .set("KAFKA_SSL_KEY_LOCATION", other.display());
    let mut service = Service::spawn(&config);
    let status = service.wait_for_exit(EXIT_BOUND);
    assert!(!status.success(), "{}", service.log());
}
