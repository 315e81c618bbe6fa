//! Who a client is: a signed token, and what it allows.
//!
//! A token comes as `Authorization: Bearer`, or, since browsers cannot set that on a WebSocket, as a subprotocol
//! `dashstream.bearer.<token>`. Never in the address, which ends up in logs.

mod claims;

mod jwks;

mod keys;

mod ring_provider;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode_header};
use serde_json::{Map, Value};

pub use self::claims::{Access, ClaimRules};
pub use self::jwks::{JwksError, JwksPlace};
use self::keys::Keys;
use crate::config::secret::Secret;
use crate::metrics::Counters;

/// Begins the subprotocol that carries a token.
pub const TOKEN_PROTOCOL: &str = "dashstream.bearer.";
/// Bytes of a token.
const MAX_TOKEN: usize = 16 * 1024;

/// What is checked of a token.
#[derive(Clone, Debug)]
pub struct AuthSettings {
    /// Secret of HMAC tokens; empty: none are taken.
    pub secret: Secret,
    /// Where public keys are.
    pub jwks: Option<JwksPlace>,
    /// How often they are read again.
    pub jwks_refresh: Duration,
    /// Required issuer; empty: any.
    pub issuer: String,
    /// Required audience; empty: any.
    pub audience: String,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// Names of claims.
    pub claims: ClaimRules,
}

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no token.
    #[error("a token is required: Authorization: Bearer TOKEN, or the WebSocket subprotocol dashstream.bearer.TOKEN")]
    Missing,
    /// It is no token, or not one that this service takes.
    #[error("the token is not valid: {0}")]
    Invalid(&'static str),
    /// It is over, or not valid yet.
    #[error("the token has expired")]
    Expired,
    /// It is good, but does not allow this.
    #[error("the token does not allow this: {0}")]
    Forbidden(String),
    /// Nobody can be checked right now.
    #[error("tokens cannot be checked now: the public keys have not been read yet")]
    NoKeys,
}

impl Denied {
    /// Label in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Missing | Self::Invalid(_) => "unauthenticated",
            Self::Expired => "token_expired",
            Self::Forbidden(_) => "forbidden",
            Self::NoKeys => "no_keys",
        }
    }
}

/// Checks tokens.
#[derive(Debug)]
pub struct Authenticator {
    settings: AuthSettings,
    keys: Arc<Keys>,
}

impl Authenticator {
    /// Reads keys from a file at once; those of an address are fetched beside. `reads` counts that, by result.
    ///
    /// # Errors
    /// When the file holds no usable key.
    pub fn new(settings: AuthSettings, reads: Counters) -> Result<Self, JwksError> {
        ring_provider::install();
        let keys = Arc::new(Keys::new(&settings.secret, settings.jwks.is_some()));
        if let Some(place) = settings.jwks.clone() {
            jwks::follow(place, settings.jwks_refresh, Arc::clone(&keys), reads)?;
        }
        Ok(Self { settings, keys })
    }

    /// Whom a request comes from.
    ///
    /// # Errors
    /// When there is no token, or it is not good.
    pub fn admit(&self, headers: &HeaderMap) -> Result<Access, Denied> {
        self.check(token(headers).ok_or(Denied::Missing)?)
    }

    fn check(&self, token: &str) -> Result<Access, Denied> {
        if token.len() > MAX_TOKEN {
            return Err(Denied::Invalid("it is too long"));
        }
        let header = decode_header(token).map_err(|_| Denied::Invalid("it is no JSON Web Token"))?;
        let key = self.keys.find(header.alg, header.kid.as_deref())?;
        let validation = self.validation(header.alg);
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation);
        let claims = decoded.map_err(|error| denied(error.kind()))?.claims;
        claims::access(&claims, &self.settings.claims)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let AuthSettings { issuer, audience, leeway, .. } = &self.settings;
        let mut validation = Validation::new(algorithm);
        validation.leeway = leeway.as_secs();
        validation.validate_nbf = true;
        validation.validate_aud = !audience.is_empty();
        let mut required = vec!["exp"];
        if !issuer.is_empty() {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if !audience.is_empty() {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    /// How long a token is good from now on.
    pub fn remaining(&self, access: &Access) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Duration::from_secs(access.expires).saturating_add(self.settings.leeway).saturating_sub(now)
    }
}

fn denied(kind: &ErrorKind) -> Denied {
    match kind {
        ErrorKind::ExpiredSignature => Denied::Expired,
        ErrorKind::ImmatureSignature => Denied::Invalid("it is not valid yet (nbf)"),
        ErrorKind::InvalidIssuer => Denied::Invalid("another issuer (iss) is required"),
        ErrorKind::InvalidAudience => Denied::Invalid("another audience (aud) is required"),
        ErrorKind::MissingRequiredClaim(_) => Denied::Invalid("exp, iss or aud is missing or no proper value"),
        ErrorKind::InvalidSignature => Denied::Invalid("its signature is wrong"),
        _ => Denied::Invalid("it cannot be read"),
    }
}

/// The token of a request.
fn token(headers: &HeaderMap) -> Option<&str> {
    if headers.contains_key(AUTHORIZATION) {
        return bearer(headers);
    }
    protocols(headers).find_map(|name| name.strip_prefix(TOKEN_PROTOCOL))
}

/// What stands behind `Authorization: Bearer`, in whatever case that is written.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The subprotocols that a client offers, in its order.
pub fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all("sec-websocket-protocol").filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests;
