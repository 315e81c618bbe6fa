//! Where public keys come from: a file or an address, read again from time to time, on a thread of its own.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::keys::{self, Keys, PublicKey};
use crate::http_client;
use crate::metrics::Counters;
use crate::pipeline::backoff::Backoff;

/// Bytes of a key set.
const MAX_BYTES: u64 = 1024 * 1024;
/// One fetch.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two reads at the least, however many tokens ask for unknown keys.
const PAUSE: Duration = Duration::from_secs(2);
/// Between reads that fail.
const RETRY: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(60) };

/// A file or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwksPlace {
    /// A file.
    File(PathBuf),
    /// `https://…`, or `http://` on this machine.
    Url(String),
}

/// Why keys could not be read.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// The file cannot be read.
    #[error("cannot read the keys in {place} (auth.jwks): {source}")]
    File {
        /// The file.
        place: String,
        /// Why.
        source: std::io::Error,
    },
    /// The address does not answer as it should.
    #[error("cannot fetch the keys from {place} (auth.jwks): {reason}")]
    Fetch {
        /// The address.
        place: String,
        /// Why.
        reason: String,
    },
    /// What was read cannot be used.
    #[error("the keys in {place} (auth.jwks) cannot be used: {reason}")]
    Content {
        /// Where it was.
        place: String,
        /// Why.
        reason: &'static str,
    },
    /// There is no thread for it.
    #[error("cannot start a thread that follows the keys: {0}")]
    Thread(std::io::Error),
}

impl JwksPlace {
    fn shown(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Url(url) => url.clone(),
        }
    }

    fn read(&self) -> Result<Vec<PublicKey>, JwksError> {
        let place = self.shown();
        let text = match self {
            Self::File(path) => {
                let read = std::fs::File::open(path).and_then(|file| {
                    let mut text = Vec::new();
                    file.take(MAX_BYTES).read_to_end(&mut text).map(|_| text)
                });
                read.map_err(|source| JwksError::File { place: place.clone(), source })?
            }
            Self::Url(url) => fetch(url).map_err(|reason| JwksError::Fetch { place: place.clone(), reason })?,
        };
        keys::parse(&text).map_err(|reason| JwksError::Content { place, reason })
    }
}

fn fetch(url: &str) -> Result<Vec<u8>, String> {
    // Where keys lie is configured: an answer that points elsewhere is not followed.
    let mut response = http_client::agent(TIMEOUT).get(url).call().map_err(|error| error.to_string())?;
    if response.status() != 200 {
        return Err(format!("status {}", response.status().as_u16()));
    }
    response.body_mut().with_config().limit(MAX_BYTES).read_to_vec().map_err(|error| error.to_string())
}

/// Keeps `keys` as they are at `place`. What cannot be read leaves the last good ones in use.
///
/// # Errors
/// When a file cannot be used at the start. An address may be away then; it is asked again.
pub(super) fn follow(place: JwksPlace, refresh: Duration, keys: Arc<Keys>, reads: Counters) -> Result<(), JwksError> {
    let mut first = true;
    if matches!(place, JwksPlace::File(_)) {
        keys.set_public(place.read()?);
        first = false;
    }
    let work = move || {
        let mut failures = 0;
        loop {
            if !std::mem::take(&mut first) {
                std::thread::sleep(PAUSE);
                let wait = if failures == 0 { refresh } else { RETRY.delay(failures - 1, fastrand::f64()) };
                keys.wait_for_need(wait.saturating_sub(PAUSE));
            }
            match place.read() {
                Ok(read) => {
                    keys.set_public(read);
                    reads.with_label_values(&["ok"]).inc();
                    failures = 0;
                }
                Err(error) => {
                    reads.with_label_values(&["failed"]).inc();
                    tracing::warn!(%error, "the public keys of tokens stay as they were");
                    failures = failures.saturating_add(1);
                }
            }
        }
    };
    std::thread::Builder::new().name("jwks".into()).spawn(work).map(drop).map_err(JwksError::Thread)
}
