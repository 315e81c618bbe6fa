//! Tokens as an issuer with a shared secret makes them.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

pub const SECRET: &str = "a-secret-of-the-tests-that-is-long-enough";

/// A signed token with these claims; `exp` is in ten minutes unless they say otherwise.
pub fn token(claims: &Value) -> String {
    signed_with(SECRET, claims)
}

pub fn signed_with(secret: &str, claims: &Value) -> String {
    let mut all = json!({ "exp": in_seconds(600) });
    let fields = claims.as_object().expect("claims are an object").clone();
    all.as_object_mut().expect("an object").extend(fields);
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(&all));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

/// Unix time from now.
pub fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
    i64::try_from(now).expect("a clock of this age") + seconds
}

/// The header that shows a token.
pub fn shown(token: &str) -> Vec<(&'static str, String)> {
    vec![("authorization", format!("Bearer {token}"))]
}
