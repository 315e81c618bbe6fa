//! Nobody comes in who should not, and who should comes in: tokens, pages, encryption, the listener for operators.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};

use crate::harness::authority::Authority;
use crate::harness::client::{Client, From, Options, SUBPROTOCOL};
use crate::harness::eventually::eventually;
use crate::harness::producer::Producer;
use crate::harness::raw::Raw;
use crate::harness::records;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::token::{self, in_seconds, shown, token};
use crate::harness::topic::Topic;

const BOUND: Duration = Duration::from_secs(60);
const EXIT_BOUND: Duration = Duration::from_secs(60);

fn guarded(topic: &Topic) -> Config {
    Config::new(topic).set("DASHSTREAM_AUTH_JWT_SECRET", token::SECRET)
}

/// What the service answers to an upgrade with these headers.
fn upgrade(address: &str, headers: &[(&'static str, String)]) -> Result<(), String> {
    Raw::try_open_with(address, Some(SUBPROTOCOL), headers).map(drop)
}

#[test]
fn only_who_shows_a_good_token_comes_in_and_refusals_cost_no_place() {
    let topic = Topic::create(services::kafka(), "tokens", 1);
    let config = guarded(&topic).set("WEBSOCKET_MAX_CONNECTIONS_PER_IP", 2).set("DASHSTREAM_AUTH_AUDIENCE", "dash");
    let service = Service::start(&config);
    let address = service.address();
    let with = |claims: Value| shown(&token(&claims));
    let bad = [
        (Vec::new(), "401", "unauthenticated"),
        (shown("nonsense"), "401", "unauthenticated"),
        (
            shown(&token::signed_with("another-secret-that-is-long-enough", &json!({"tenants": "a"}))),
            "401",
            "unauthenticated",
        ),
        (with(json!({"tenants": "a"})), "401", "unauthenticated"),
        (with(json!({"tenants": "a", "aud": "dash", "exp": in_seconds(-100)})), "401", "token_expired"),
        (with(json!({"aud": "dash"})), "403", "forbidden"),
        (with(json!({"tenants": [], "aud": "dash"})), "403", "forbidden"),
    ];
    for round in 1..=3 {
        for (headers, status, reason) in &bad {
            let answer = upgrade(address, headers).expect_err("nobody is let in");
            assert!(answer.contains(status), "round {round}, {reason}: {answer}");
        }
    }
    let good = with(json!({"tenants": "a", "aud": "dash"}));
    let held: Vec<Raw> =
        (0..2).map(|_| Raw::try_open_with(address, Some(SUBPROTOCOL), &good).expect("a place")).collect();
    assert!(upgrade(address, &good).expect_err("both places are taken").contains("429"));
    drop(held);

    // As browsers can: the token is a subprotocol, and another one is answered.
    let token = token(&json!({"tenants": "a", "aud": "dash"}));
    for dialect in [SUBPROTOCOL, "dashstream.v1"] {
        let offered = format!("{dialect}, dashstream.bearer.{token}");
        eventually("a place", BOUND, || Raw::try_open_with(address, Some(&offered), &[]).map(drop));
    }
    let observer = with(json!({"scope": "dashstream:observe", "aud": "dash"}));
    let (status, metrics) = service.get_with("/metrics", &observer).expect("/metrics answers");
    assert_eq!(status, 200);
    for reason in ["unauthenticated", "token_expired", "forbidden", "per_address"] {
        let sample = format!("websocket_rejected_connections_total{{reason=\"{reason}\"}}");
        let line = metrics.lines().find(|line| line.starts_with(&sample)).expect("each reason is counted");
        assert!(!line.ends_with(" 0"), "{line}");
    }
    assert!(!service.log().contains(&token), "no token is in the log");
}

#[test]
fn a_session_ends_with_its_token_by_a_code_of_its_own() {
    let topic = Topic::create(services::kafka(), "expiry", 1);
    let service = Service::start_healthy(&guarded(&topic).set("DASHSTREAM_AUTH_LEEWAY_SECS", 1));
    for subprotocol in [Some(SUBPROTOCOL), None] {
        let headers = shown(&token(&json!({"tenants": "a", "exp": in_seconds(8)})));
        let mut raw = Raw::try_open_with(service.address(), subprotocol, &headers).expect("a connection");
        if subprotocol.is_some() {
            raw.say(&json!({"type": "hello", "from": "latest"}));
            raw.hear_type("welcome");
        }
        let closed = raw.hear_close();
        assert_eq!((closed.code, closed.reason.as_str()), (Some(4501), "token_expired"), "{subprotocol:?}");
    }
}

#[test]
fn pages_of_others_may_not_connect() {
    let topic = Topic::create(services::kafka(), "origins", 1);
    let from = |origin: String| vec![("origin", origin)];
    let local = Service::start(&Config::new(&topic));
    let own = format!("http://{}", local.address());
    for (origin, good) in
        [(own.as_str(), true), ("http://localhost:5173", true), ("https://evil.example", false), ("null", false)]
    {
        assert_eq!(upgrade(local.address(), &from(origin.into())).is_ok(), good, "{origin}");
    }
    // A name that somebody makes point at this machine.
    let mut rebound = from("http://evil.example".into());
    rebound.push(("host", "evil.example".into()));
    assert!(upgrade(local.address(), &rebound).expect_err("a page of another name").contains("403"));
    assert!(local.metric("websocket_rejected_connections_total", &[r#"reason="origin""#]) >= 3.0);

    // Such a page sees nothing else either: to its browser the answers are its own.
    let get = |path: &str, host: &str| http_to(local.address(), host, "GET", path, &[], "");
    for (path, status) in [("/metrics", 403), ("/admin/clients", 403), ("/health", 200)] {
        let (found, body) = get(path, "evil.example:3002");
        assert_eq!(found, status, "{path}");
        assert!(!body.contains("partitions"), "{path}: {body}");
        assert_eq!(get(path, "localhost:3002").0, 200, "{path}");
    }

    let listed = Service::start(&Config::new(&topic).set("DASHSTREAM_WEB_ALLOWED_ORIGINS", "https://dash.example"));
    assert!(upgrade(listed.address(), &from("https://dash.example".into())).is_ok());
    assert!(upgrade(listed.address(), &from(format!("http://{}", listed.address()))).is_err());
    assert!(upgrade(listed.address(), &[]).is_ok(), "programs are no pages");
}

#[test]
fn an_open_address_without_authentication_stops_the_start_unless_it_is_meant() {
    let topic = Topic::planned("127.0.0.1:1", "open");
    let open = Config::new(&topic).set("WEBSOCKET_HOST", "0.0.0.0");
    let mut service = Service::spawn(&open);
    assert!(!service.wait_for_exit(EXIT_BOUND).success());
    for part in ["web.host", "WEBSOCKET_HOST", "web.allow_unauthenticated", "auth.jwt_secret"] {
        assert!(service.log().contains(part), "{part} is missing in: {}", service.log());
    }
    let meant = Service::start(&open.clone().set("DASHSTREAM_WEB_ALLOW_UNAUTHENTICATED", "true"));
    assert!(meant.log().contains("there is no authentication"), "it warns");
    Service::start(&open.set("DASHSTREAM_AUTH_JWT_SECRET", token::SECRET));
    let mut service = Service::spawn(&Config::new(&topic).set("DASHSTREAM_AUTH_JWKS", "/no/such/keys.json"));
    assert!(!service.wait_for_exit(EXIT_BOUND).success());
    assert!(service.log().contains("DASHSTREAM_AUTH_JWKS"), "{}", service.log());
}

#[test]
fn operators_have_a_listener_of_their_own_and_scopes_on_it() {
    let topic = Topic::create(services::kafka(), "operators", 1);
    let config = guarded(&topic).set("DASHSTREAM_WEB_ADMIN_LISTEN", "127.0.0.1:0");
    let service = Service::start(&config);
    let operators = service.operators_address();
    let at = |address: &str, method: &str, path: &str, headers: &[(&str, String)]| {
        http(address, method, path, headers, r#"{"action":"retry"}"#)
    };
    eventually("a healthy service", BOUND, || match at(&operators, "GET", "/health", &[]) {
        (200, body) if body.contains(r#""status":"healthy""#) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(at(&operators, "GET", "/metrics", &[]).0, 200);
    assert_eq!(at(&operators, "GET", "/ws", &[]).0, 404);
    assert_eq!(at(service.address(), "GET", "/metrics", &[]).0, 404);
    let (_, health) = at(service.address(), "GET", "/health", &shown(&token(&json!({"scope": "dashstream:admin"}))));
    assert!(!health.contains("partitions"), "{health}");
    assert_eq!(at(service.address(), "GET", "/ready", &[]).0, 200);
    let json_of = |claims: Value| {
        let mut headers = shown(&token(&claims));
        headers.push(("content-type", "application/json".into()));
        headers
    };
    let path = "/admin/ingest/continue";
    let admin = json_of(json!({"scope": "dashstream:admin"}));
    assert_eq!(at(service.address(), "POST", path, &admin).0, 404, "not where browsers are");
    for (headers, status) in [
        (json_of(json!({"scope": "dashstream:observe"})), 403),
        (json_of(json!({"tenants": "a"})), 403),
        (json_of(json!({"scope": "dashstream:admin", "exp": in_seconds(-100)})), 401),
        (vec![("content-type", "application/json".into())], 401),
        // It may; there is nothing to continue.
        (admin, 409),
    ] {
        assert_eq!(at(&operators, "POST", path, &headers).0, status, "{headers:?}");
    }
    // Whoever reaches it can be refused as often as they like: that fills no log.
    for path in [path, "/admin/reset"].iter().cycle().take(200) {
        assert_eq!(at(&operators, "POST", path, &[]).0, 401);
    }
    let lines = service.log().lines().filter(|line| line.contains("an admin request was refused")).count();
    assert!((1..60).contains(&lines), "{lines} lines");
}

/// A request over a plain connection: status and body.
fn http(address: &str, method: &str, path: &str, headers: &[(&str, String)], body: &str) -> (u16, String) {
    http_to(address, address, method, path, headers, body)
}

/// The same by another name of the address.
fn http_to(
    address: &str,
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, String)],
    body: &str,
) -> (u16, String) {
    let body = if method == "POST" { body } else { "" };
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(BOUND)).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("it takes the request");
    answer(&mut stream)
}

fn answer(stream: &mut impl std::io::Read) -> (u16, String) {
    let mut text = String::new();
    // An encrypted stream may end without its good-bye.
    let _ = stream.read_to_string(&mut text);
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    (status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// What a client sees that trusts `authority` alone: the certificate, and the answer to a GET.
fn over_tls(authority: &Authority, address: &str, path: &str) -> Result<(Vec<u8>, u16, String), String> {
    let mut roots = rustls::RootCertStore::empty();
    let own = CertificateDer::from_pem_slice(authority.certificate().as_bytes()).expect("a certificate");
    roots.add(own).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let mut session = rustls::ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
    let mut socket = TcpStream::connect(address).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(BOUND)).map_err(|error| error.to_string())?;
    let mut stream = rustls::Stream::new(&mut session, &mut socket);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let (status, body) = answer(&mut stream);
    let shown = session.peer_certificates().and_then(|chain| chain.first()).map(|first| first.to_vec());
    Ok((shown.unwrap_or_default(), status, body))
}

#[test]
fn the_listener_speaks_tls_and_takes_a_renewed_certificate_without_a_restart() {
    let topic = Topic::create(services::kafka(), "tls", 1);
    let authority = Authority::new();
    let put = |names: &[&str]| {
        let signed = authority.sign(names);
        let (chain, key) = (authority.write("chain.pem", &signed.certificate), authority.write("key.pem", &signed.key));
        (chain, key)
    };
    let (chain, key) = put(&["127.0.0.1"]);
    let config = Config::new(&topic)
        .set("DASHSTREAM_WEB_TLS_CERTIFICATE", chain.display())
        .set("DASHSTREAM_WEB_TLS_KEY", key.display())
        .set("DASHSTREAM_WEB_TLS_RELOAD_SECS", 1);
    let service = Service::start(&config);
    let (first, status, _) = over_tls(&authority, service.address(), "/live").expect("an encrypted answer");
    assert_eq!(status, 200);
    assert!(over_tls(&Authority::new(), service.address(), "/live").is_err(), "who does not trust it is not served");
    assert_ne!(http(service.address(), "GET", "/live", &[], "").0, 200, "nothing is served in the clear");

    asked_by_its_operator(&authority, service.address());
    let mut socket = encrypted_session(&authority, service.address());
    // Half a renewal, then a broken one, then a good one.
    authority.write("chain.pem", &authority.sign(&["127.0.0.1"]).certificate);
    eventually("the mismatch to be told", BOUND, || told(&service, "cannot be used"));
    authority.write("chain.pem", "no certificate");
    assert_eq!(over_tls(&authority, service.address(), "/live").expect("the old one").0, first);
    put(&["127.0.0.1"]);
    eventually("the renewed certificate", BOUND, || match over_tls(&authority, service.address(), "/live")? {
        (shown, 200, _) if shown != first => Ok(()),
        (_, status, _) => Err(format!("the old one, {status}")),
    });
    let (_, _, metrics) = over_tls(&authority, service.address(), "/metrics").expect("an encrypted answer");
    for result in ["ok", "failed"] {
        let sample = format!("dashstream_tls_renewals_total{{result=\"{result}\"}}");
        let line = metrics.lines().find(|line| line.starts_with(&sample)).expect("each result is counted");
        assert!(!line.ends_with(" 0"), "{line}");
    }
    // A session that was open before goes on.
    Producer::new(services::kafka()).publish(&topic.name, [records::good("t", 1)]);
    assert!(socket.hear_binary(), "the open session gets the record");

    let mut broken = Service::spawn(&config.set("DASHSTREAM_WEB_TLS_KEY", chain.display()));
    assert!(!broken.wait_for_exit(EXIT_BOUND).success());
    assert!(broken.log().contains("web.tls_key"), "{}", broken.log());
}

/// `dashstream ingest` over TLS: it gets an answer only from who has a certificate that the system trusts, and goes there
/// by itself, whatever proxies the environment names.
fn asked_by_its_operator(authority: &Authority, address: &str) {
    let ask = |trusted: &Authority| {
        let asked = std::process::Command::new(env!("CARGO_BIN_EXE_dashstream"))
            .args(["ingest", "reset", "--topic", "another", "--url", &format!("https://{address}")])
            .env("SSL_CERT_FILE", trusted.folder().join("ca.pem"))
            .env("ALL_PROXY", "http://127.0.0.1:1")
            .output()
            .expect("the command runs");
        String::from_utf8_lossy(&asked.stderr).into_owned()
    };
    let stranger = ask(&Authority::new());
    assert!(stranger.contains("cannot ask"), "{stranger}");
    let trusted = ask(authority);
    assert!(trusted.contains("the service answered 409"), "{trusted}");
}

fn told(service: &Service, words: &str) -> Result<(), String> {
    if service.log().contains(words) { Ok(()) } else { Err("not in the log".to_owned()) }
}

/// A v2 session over TLS.
struct Encrypted {
    socket: tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>,
}

fn encrypted_session(authority: &Authority, address: &str) -> Encrypted {
    use futures_util::SinkExt as _;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
    use tokio_tungstenite::tungstenite::{Message, http::HeaderValue};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).expect("PEM")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    crate::harness::runtime().block_on(async {
        let plain = tokio::net::TcpStream::connect(address).await.expect("a connection");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let stream = connector.connect(name, plain).await.expect("a handshake");
        let mut request = format!("wss://{address}/ws").into_client_request().expect("a request");
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.expect("an upgrade");
        let hello = json!({"type": "hello", "from": "earliest"}).to_string();
        socket.send(Message::text(hello)).await.expect("a hello");
        Encrypted { socket }
    })
}

impl Encrypted {
    /// Whether data comes, whatever text lies before it.
    fn hear_binary(&mut self) -> bool {
        use futures_util::StreamExt as _;
        let next = async {
            while let Some(Ok(message)) = self.socket.next().await {
                if message.is_binary() {
                    return true;
                }
            }
            false
        };
        crate::harness::runtime().block_on(async { tokio::time::timeout(BOUND, next).await }).unwrap_or(false)
    }
}

/// Serves one document over TLS, as an issuer of tokens does, until the test ends.
fn serve_keys(authority: &Authority, document: Arc<std::sync::Mutex<String>>) -> String {
    let signed = authority.sign(&["127.0.0.1"]);
    let chain = vec![CertificateDer::from_pem_slice(signed.certificate.as_bytes()).expect("PEM")];
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).expect("PEM");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let mut socket = socket;
            let mut session = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut stream = rustls::Stream::new(&mut session, &mut socket);
            let mut request = [0; 4096];
            if stream.read(&mut request).is_ok_and(|length| length > 0) {
                let body = document.lock().expect("a document").clone();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
                session.send_close_notify();
                let _ = session.complete_io(&mut socket);
            }
        }
    });
    format!("https://{address}/keys")
}

#[test]
fn public_keys_come_from_an_address_over_tls_and_new_ones_are_found() {
    let topic = Topic::create(services::kafka(), "jwks", 1);
    let authority = Authority::new();
    let (first, first_jwk) = signing_key("one");
    let (second, second_jwk) = signing_key("two");
    let document = Arc::new(std::sync::Mutex::new(json!({"keys": [first_jwk]}).to_string()));
    let url = serve_keys(&authority, Arc::clone(&document));
    let config = Config::new(&topic).set("DASHSTREAM_AUTH_JWKS", &url);
    let trusting = config.clone().set("SSL_CERT_FILE", authority.path("ca.pem"));
    let service = Service::start(&trusting);
    let come_in = |service: &Service, key, kid| upgrade(service.address(), &shown(&signed_by(key, kid)));
    eventually("the first key", BOUND, || come_in(&service, &first, "one"));
    assert!(come_in(&service, &second, "two").is_err());
    *document.lock().expect("a document") = json!({"keys": [second_jwk]}).to_string();
    // Nothing is read again for five minutes unless a token asks for it.
    eventually("the second key", BOUND, || come_in(&service, &second, "two"));
    assert!(come_in(&service, &first, "one").expect_err("the first key is gone").contains("401"));

    let (_, metrics) = service.get_with("/metrics", &shown(&signed_by(&second, "two"))).expect("/metrics answers");
    let sample = r#"dashstream_jwks_reads_total{result="ok"} "#;
    let line = metrics.lines().find(|line| line.starts_with(sample)).expect("reads are counted");
    assert!(line.trim_start_matches(sample).parse::<f64>().expect("a number") >= 2.0, "{line}");

    // Keys of an address that nobody vouches for are not taken, and nobody comes in meanwhile.
    let doubting = Service::start(&config);
    assert!(come_in(&doubting, &second, "two").expect_err("no keys").contains("503"));
    eventually("the doubt to be told", BOUND, || told(&doubting, "the public keys of tokens stay as they were"));
}

fn signing_key(kid: &str) -> (EcdsaKeyPair, Value) {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).expect("a key");
    let point = pair.public_key().as_ref();
    let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
    let jwk = json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "x": part(1..33), "y": part(33..65)});
    (pair, jwk)
}

fn signed_by(pair: &EcdsaKeyPair, kid: &str) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"exp": in_seconds(600), "tenants": ["a"], "scope": "dashstream:observe"});
    let message = format!("{}.{}", part(json!({"alg": "ES256", "kid": kid})), part(claims));
    let signature = pair.sign(&SystemRandom::new(), message.as_bytes()).expect("a signature");
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

#[test]
fn forwarded_addresses_have_budgets_of_their_own_only_behind_a_trusted_proxy() {
    let topic = Topic::create(services::kafka(), "proxies", 1);
    let limited = Config::new(&topic).set("WEBSOCKET_MAX_CONNECTIONS_PER_IP", 1);
    let open = |service: &Service, name: &'static str, value: &str| {
        Raw::try_open_with(service.address(), Some(SUBPROTOCOL), &[(name, value.to_owned())])
    };
    // Nobody's proxy: forged headers change nothing.
    let service = Service::start(&limited);
    let _held = open(&service, "x-forwarded-for", "1.1.1.1").expect("the first");
    assert!(open(&service, "x-forwarded-for", "2.2.2.2").is_err());
    assert!(open(&service, "forwarded", "for=3.3.3.3").is_err());

    let trusted =
        limited.set("WEBSOCKET_TRUSTED_PROXY_IPS", "127.0.0.0/8").set("DASHSTREAM_WEB_FORWARDED_HEADER", "forwarded");
    let service = Service::start(&trusted);
    let _one = open(&service, "forwarded", "for=1.1.1.1;proto=https").expect("one");
    let _two = open(&service, "forwarded", r#"for=6.6.6.6, for="[2001:db8:1:2::1]:4711""#).expect("another");
    assert!(open(&service, "forwarded", "for=6.6.6.6, for=1.1.1.1").is_err(), "the proxy's own word counts");
    assert!(open(&service, "forwarded", r#"for="[2001:db8:1:2:ffff::9]""#).is_err(), "one host has a /64");
    let _victim = open(&service, "forwarded", "for=6.6.6.6").expect("whose address was forged above");
    let _proxy = open(&service, "x-forwarded-for", "7.7.7.7").expect("the proxy itself");
    assert!(
        open(&service, "x-forwarded-for", "8.8.8.8").is_err(),
        "the header that is not configured is not looked at"
    );
}

#[test]
fn a_client_with_a_token_streams_like_any_other() {
    let topic = Topic::create(services::kafka(), "with-token", 2);
    let service = Service::start(&guarded(&topic));
    let all = shown(&token(&json!({"scope": "dashstream:all_tenants"})));
    let client =
        Client::connect(service.address(), Options { from: From::Earliest, headers: all, ..Options::default() });
    let sent = (0..200).map(|index| records::good("t", index + 1).on_partition(i32::from(index % 2 == 0)));
    let published = Producer::new(services::kafka()).publish(&topic.name, sent);
    client.wait_for_all(&published, BOUND);
}
