//! The keys that tokens are checked with: one secret, and a set of public ones that may change.

use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::Denied;
use crate::config::secret::Secret;

/// Keys of a set that are taken.
const MAX_KEYS: usize = 256;

/// The keys in use.
pub(super) struct Keys {
    secret: Option<DecodingKey>,
    /// `None` until they were read for the first time.
    public: RwLock<Option<Arc<[PublicKey]>>>,
    /// Whether there will be public keys.
    expects_public: bool,
    /// Somebody showed a token whose key is not there.
    wanted: (Mutex<bool>, Condvar),
}

/// One key of a set.
pub(super) struct PublicKey {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("has_secret", &self.secret.is_some()).finish_non_exhaustive()
    }
}

impl Keys {
    /// Without public keys so far; `expects_public`: there will be some.
    pub(super) fn new(secret: &Secret, expects_public: bool) -> Self {
        let secret = (!secret.is_empty()).then(|| DecodingKey::from_secret(secret.reveal().as_bytes()));
        Self { secret, public: RwLock::default(), expects_public, wanted: <_>::default() }
    }

    /// Replaces the public keys.
    pub(super) fn set_public(&self, keys: Vec<PublicKey>) {
        *self.public.write().unwrap_or_else(PoisonError::into_inner) = Some(keys.into());
    }

    /// The key for a token. The algorithm decides which kind of key may be used, never the other way round.
    pub(super) fn find(&self, algorithm: Algorithm, id: Option<&str>) -> Result<DecodingKey, Denied> {
        if family(algorithm) == AlgorithmFamily::Hmac {
            return self.secret.clone().ok_or(Denied::Invalid("tokens with a shared secret are not taken"));
        }
        if !self.expects_public {
            return Err(Denied::Invalid("tokens with public keys are not taken"));
        }
        let public = self.public.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Denied::NoKeys)?;
        let fits = |key: &&PublicKey| {
            key.key.family() == family(algorithm) && key.algorithm.is_none_or(|only| only == algorithm)
        };
        let mut fitting = public.iter().filter(fits).filter(|key| id.is_none() || key.id.as_deref() == id);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key.key.clone()),
            (Some(key), Some(_)) if id.is_some() => Ok(key.key.clone()),
            (Some(_), Some(_)) => Err(Denied::Invalid("it does not say which of several keys is its own (kid)")),
            (None, _) => {
                self.ask_for_more();
                Err(Denied::Invalid("its key is not known"))
            }
        }
    }

    fn ask_for_more(&self) {
        *self.wanted.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wanted.1.notify_one();
    }

    /// Waits until somebody misses a key, at most `limit`.
    pub(super) fn wait_for_need(&self, limit: Duration) {
        let guard = self.wanted.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.wanted.1.wait_timeout_while(guard, limit, |wanted| !*wanted);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

fn family(algorithm: Algorithm) -> AlgorithmFamily {
    algorithm.family()
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// Reads a JWKS. Keys of kinds that are not known here do not spoil it, and neither do secrets, which have no place in one.
pub(super) fn parse(text: &[u8]) -> Result<Vec<PublicKey>, &'static str> {
    let set: Set = serde_json::from_slice(text).map_err(|_| "it is no JSON Web Key Set")?;
    let public = |value: Value| {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
            return None;
        }
        let algorithm = match &jwk.common.key_algorithm {
            Some(named) => Some(named.to_string().parse().ok()?),
            None => None,
        };
        let key = DecodingKey::from_jwk(&jwk).ok().filter(|key| key.family() != AlgorithmFamily::Hmac)?;
        Some(PublicKey { id: jwk.common.key_id, algorithm, key })
    };
    let keys: Vec<_> = set.keys.into_iter().take(MAX_KEYS).filter_map(public).collect();
    if keys.is_empty() { Err("it holds no key that signatures could be checked with") } else { Ok(keys) }
}
