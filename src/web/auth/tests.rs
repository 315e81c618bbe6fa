//! Tokens as they come, good and bad.

use std::io::Write as _;

use actix_web::http::header::{HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use super::*;
use crate::metrics::Metrics;
use crate::pipeline::filter::{Grant, texts};

const SECRET: &str = "correct horse battery staple 32 bytes";

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn signed(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn hs256(claims: &Value) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    signed(&json!({"alg": "HS256"}), claims, |message| hmac::sign(&key, message).as_ref().to_vec())
}

fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}

fn claims(more: Value) -> Value {
    let mut claims = json!({"exp": in_seconds(600), "tenants": ["acme"]});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

fn settings() -> AuthSettings {
    AuthSettings {
        secret: Secret::new(SECRET),
        jwks: None,
        jwks_refresh: Duration::from_secs(300),
        issuer: String::new(),
        audience: String::new(),
        leeway: Duration::from_secs(30),
        claims: ClaimRules { tenants: "tenants".into(), threads: "threads".into(), partitions: "partitions".into() },
    }
}

fn authenticator(settings: AuthSettings) -> Authenticator {
    Authenticator::new(settings, Metrics::new().unwrap().jwks_reads).unwrap()
}

fn grant(tenants: &[&str], threads: Option<&[&str]>) -> Grant {
    let set = |list: &[&str]| texts(list.iter().copied());
    Grant { tenants: Some(set(tenants)), threads: threads.map(set), partitions: None }
}

#[test]
fn claims_decide_what_is_seen() {
    let auth = authenticator(settings());
    let all = |threads: Option<&[&str]>| Grant { tenants: None, ..grant(&[], threads) };
    for (more, want) in [
        (json!({}), Some(grant(&["acme"], None))),
        (json!({"tenants": "acme"}), Some(grant(&["acme"], None))),
        (json!({"tenants": ["a", "b"], "threads": ["t"]}), Some(grant(&["a", "b"], Some(&["t"])))),
        (json!({"tenants": null}), None),
        (json!({"tenants": null, "scope": "dashstream:all_tenants"}), Some(all(None))),
        (json!({"tenants": null, "scp": ["x", "dashstream:all_tenants"], "threads": "t"}), Some(all(Some(&["t"])))),
        (json!({"tenants": ["a"], "scope": "dashstream:all_tenants"}), Some(grant(&["a"], None))),
        (json!({"tenants": null, "scope": "dashstream:all_tenants_not"}), None),
    ] {
        assert_eq!(auth.check(&hs256(&claims(more.clone()))).unwrap().grant, want, "{more}");
    }
    for bad in [json!([]), json!([""]), json!(""), json!(7), json!({}), json!([7]), json!(["a", null]), json!(true)] {
        for claim in ["tenants", "threads"] {
            let denied = auth.check(&hs256(&claims(json!({claim: bad})))).unwrap_err();
            assert!(matches!(denied, Denied::Forbidden(_)), "{claim}: {bad} is not the same as no claim: {denied}");
        }
    }
    let partitions =
        |claim: Value| auth.check(&hs256(&claims(json!({"partitions": claim})))).map(|access| access.grant);
    for (claim, want) in [(json!([3, 0, 3]), Some(&[0, 3][..])), (json!(7), Some(&[7])), (Value::Null, None)] {
        let want = Grant { partitions: want.map(|list| list.iter().copied().collect()), ..grant(&["acme"], None) };
        assert_eq!(partitions(claim.clone()), Ok(Some(want)), "{claim}");
    }
    for bad in [json!([]), json!([-1]), json!(["0"]), json!([0.5]), json!([1_u64 << 31]), json!("all"), json!({})] {
        assert!(matches!(partitions(bad.clone()), Err(Denied::Forbidden(_))), "{bad} is not the same as no claim");
    }
}

#[test]
fn scopes_open_the_routes_of_operators() {
    let auth = authenticator(settings());
    for (scope, want) in [
        ("", (false, false)),
        ("dashstream:observe other", (false, true)),
        ("other dashstream:admin", (true, true)),
        ("dashstream:administrator", (false, false)),
    ] {
        let access = auth.check(&hs256(&claims(json!({"scope": scope})))).unwrap();
        assert_eq!((access.admin, access.observe), want, "{scope}");
    }
}

#[test]
fn times_are_checked_with_leeway_and_exp_is_required() {
    let auth = authenticator(settings());
    let with = |exp: Value, nbf: Value| {
        let times = if nbf.is_null() { json!({"exp": exp}) } else { json!({"exp": exp, "nbf": nbf}) };
        auth.check(&hs256(&claims(times)))
    };
    assert!(with(json!(in_seconds(-10)), Value::Null).is_ok(), "within the leeway");
    assert_eq!(with(json!(in_seconds(-60)), Value::Null), Err(Denied::Expired));
    assert!(with(json!(in_seconds(60)), json!(in_seconds(10))).is_ok());
    assert!(matches!(with(json!(in_seconds(600)), json!(in_seconds(90))), Err(Denied::Invalid(_))));
    for exp in [Value::Null, json!("tomorrow"), json!({}), json!(-1), json!([]), json!(true)] {
        assert!(with(exp.clone(), Value::Null).is_err(), "exp = {exp}");
    }
    for nbf in [json!("tomorrow"), json!({}), json!([])] {
        assert!(with(json!(in_seconds(600)), nbf.clone()).is_err(), "nbf = {nbf}");
    }
    let access = auth.check(&hs256(&claims(json!({"exp": in_seconds(100)})))).unwrap();
    let left = auth.remaining(&access).as_secs();
    assert!((125..=130).contains(&left), "{left} s with 30 s of leeway");
    for never in [json!(u64::MAX), json!(u64::MAX - 29)] {
        let access = auth.check(&hs256(&claims(json!({"exp": never})))).unwrap();
        assert!(auth.remaining(&access) > Duration::from_secs(u64::MAX / 2), "{never}");
    }
}

#[test]
fn issuer_and_audience_are_required_where_configured() {
    let auth = authenticator(AuthSettings { issuer: "https://id".into(), audience: "dash".into(), ..settings() });
    for (more, good) in [
        (json!({"iss": "https://id", "aud": "dash"}), true),
        (json!({"iss": "https://id", "aud": ["other", "dash"]}), true),
        (json!({"iss": "https://id"}), false),
        (json!({"aud": "dash"}), false),
        (json!({"iss": "https://other", "aud": "dash"}), false),
        (json!({"iss": "https://id", "aud": "other"}), false),
        (json!({"iss": ["https://id"], "aud": {}}), false),
    ] {
        assert_eq!(auth.check(&hs256(&claims(more.clone()))).is_ok(), good, "{more}");
    }
    let anybodys = authenticator(settings());
    assert!(anybodys.check(&hs256(&claims(json!({"iss": "x", "aud": "y"})))).is_ok());
}

#[test]
fn forged_tokens_are_refused() {
    let auth = authenticator(settings());
    let good = hs256(&claims(json!({})));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (_, payload) = message.split_once('.').unwrap();
    let none = format!("{}.{payload}.", encoded(&json!({"alg": "none"})));
    let other_secret = signed(&json!({"alg": "HS256"}), &claims(json!({})), |message| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"guess"), message).as_ref().to_vec()
    });
    let richer =
        format!("{}.{}.{signature}", encoded(&json!({"alg": "HS256"})), encoded(&claims(json!({"tenants": ["b"]}))));
    let unsigned = format!("{message}.");
    let public = signed(&json!({"alg": "RS256"}), &claims(json!({})), |_| vec![0; 256]);
    for forged in [
        none,
        other_secret,
        richer,
        unsigned,
        public,
        message.to_owned(),
        String::new(),
        "a.b.c".into(),
        "x".repeat(20_000),
    ] {
        assert!(matches!(auth.check(&forged), Err(Denied::Invalid(_))), "{forged}");
    }
}

#[test]
fn the_token_comes_in_the_header_or_in_a_subprotocol() {
    let headers = |list: &[(&str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    };
    for (list, want) in [
        (&[("authorization", "Bearer abc")][..], Some("abc")),
        (&[("authorization", "bearer  abc")], Some("abc")),
        (&[("authorization", "Basic abc")], None),
        (&[("sec-websocket-protocol", "dashstream.v2, dashstream.bearer.a.b.c")], Some("a.b.c")),
        (&[("sec-websocket-protocol", "dashstream.v2"), ("sec-websocket-protocol", "dashstream.bearer.x")], Some("x")),
        (&[("authorization", "Bearer one"), ("sec-websocket-protocol", "dashstream.bearer.two")], Some("one")),
        (&[("authorization", "Basic one"), ("sec-websocket-protocol", "dashstream.bearer.two")], None),
        (&[("cookie", "token=abc")], None),
        (&[], None),
    ] {
        assert_eq!(token(&headers(list)), want, "{list:?}");
    }
}

fn jwks(keys: &Value) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(json!({"keys": keys}).to_string().as_bytes()).unwrap();
    file
}

fn from_file(file: &tempfile::NamedTempFile) -> Result<Authenticator, JwksError> {
    let jwks = Some(JwksPlace::File(file.path().to_owned()));
    Authenticator::new(
        AuthSettings { jwks, secret: Secret::default(), ..settings() },
        Metrics::new().unwrap().jwks_reads,
    )
}

/// A P-256 key, and its public half as a JWK.
fn ec(kid: &str) -> (EcdsaKeyPair, Value) {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
    let point = pair.public_key().as_ref();
    let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
    let jwk = json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "x": part(1..33), "y": part(33..65)});
    (pair, jwk)
}

fn es256(pair: &EcdsaKeyPair, kid: Option<&str>) -> String {
    let header = match kid {
        Some(kid) => json!({"alg": "ES256", "kid": kid}),
        None => json!({"alg": "ES256"}),
    };
    signed(&header, &claims(json!({})), |message| pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec())
}

#[test]
fn public_keys_are_found_by_their_name_and_kind() {
    let (first, first_jwk) = ec("one");
    let (second, second_jwk) = ec("two");
    let ed = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let x = URL_SAFE_NO_PAD.encode(ed.public_key().as_ref());
    let strange = json!({"kty": "future", "kid": "three", "z": 1});
    let secret = json!({"kty": "oct", "kid": "four", "k": URL_SAFE_NO_PAD.encode(SECRET)});
    let file =
        jwks(&json!([strange, secret, first_jwk, second_jwk, {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": x}]));
    let auth = from_file(&file).unwrap();
    assert!(auth.check(&es256(&first, Some("one"))).is_ok());
    assert!(auth.check(&es256(&second, Some("two"))).is_ok());
    assert!(auth.check(&es256(&second, Some("one"))).is_err(), "another key's name");
    assert!(auth.check(&es256(&first, Some("five"))).is_err(), "an unknown name");
    assert!(auth.check(&es256(&first, None)).is_err(), "one of several without a name");
    let eddsa = signed(&json!({"alg": "EdDSA"}), &claims(json!({})), |message| ed.sign(message).as_ref().to_vec());
    assert!(auth.check(&eddsa).is_ok(), "the only one of its kind needs no name");
    assert!(auth.check(&hs256(&claims(json!({})))).is_err(), "a secret in a public set is nobody's");
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let (_, jwk) = ec("one");
    let auth = from_file(&jwks(&json!([jwk]))).unwrap();
    for secret in [jwk["x"].as_str().unwrap().to_owned(), jwk.to_string()] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let sign = |message: &[u8]| hmac::sign(&key, message).as_ref().to_vec();
        let token = signed(&json!({"alg": "HS256", "kid": "one"}), &claims(json!({})), sign);
        assert!(matches!(auth.check(&token), Err(Denied::Invalid(_))));
    }
}

#[test]
fn a_file_without_a_usable_key_stops_the_start() {
    for keys in [json!([]), json!([{"kty": "oct", "k": "c2VjcmV0"}]), json!([{"kty": "RSA"}]), json!("x")] {
        assert!(from_file(&jwks(&keys)).is_err(), "{keys}");
    }
    let gone = jwks(&json!([ec("one").1]));
    let place = Some(JwksPlace::File(gone.path().with_extension("gone")));
    let reads = Metrics::new().unwrap().jwks_reads;
    assert!(Authenticator::new(AuthSettings { jwks: place, ..settings() }, reads).is_err());
}

#[test]
fn a_new_key_is_read_when_a_token_asks_for_it() {
    let (first, first_jwk) = ec("one");
    let (second, second_jwk) = ec("two");
    let mut file = jwks(&json!([first_jwk]));
    let auth = from_file(&file).unwrap();
    assert!(auth.check(&es256(&second, Some("two"))).is_err());
    file.as_file_mut().set_len(0).unwrap();
    std::fs::write(file.path(), json!({"keys": [second_jwk]}).to_string()).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while auth.check(&es256(&second, Some("two"))).is_err() {
        assert!(std::time::Instant::now() < deadline, "the interval is 300 s, but a token has asked");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(auth.check(&es256(&first, Some("one"))).is_err(), "and the old one is gone");
}
