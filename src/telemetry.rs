//! Logs: where they go, and helpers that keep them readable.
//!
//! Logs go to standard error; standard output is for results. librdkafka's own messages arrive through rdkafka's `tracing`
//! feature, those of crates that use `log` through the bridge of tracing-subscriber.

use std::error::Error;
use std::fmt;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;

use crate::config::sections::LogFormat;
use crate::pipeline::flood::Flood;

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter cannot be read.
    #[error("the log filter cannot be read")]
    Filter(#[source] FilterError),
    /// Something else logs in this process already.
    #[error("logging is already set up")]
    AlreadySet(#[source] Box<dyn Error + Send + Sync>),
}

/// A log filter cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("a directive is not of the form target=level")]
pub struct FilterError(#[source] tracing_subscriber::filter::ParseError);

/// Reads a filter such as `info` or `warn,dashstream=debug`.
///
/// # Errors
/// When a directive cannot be read.
pub fn filter(text: &str) -> Result<EnvFilter, FilterError> {
    EnvFilter::try_new(text).map_err(FilterError)
}

/// Starts logging, once per process.
///
/// # Errors
/// When the filter cannot be read, or logging has been started before.
pub fn init(filter_text: &str, format: LogFormat) -> Result<(), InitError> {
    let filter = filter(filter_text).map_err(InitError::Filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let result = match format {
        LogFormat::Pretty => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    result.map_err(InitError::AlreadySet)
}

/// An error with its sources, for one log field: `outer: inner: innermost`.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> Chain<'a> {
    Chain(error)
}

/// See [`chain`].
#[derive(Clone, Copy)]
pub struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            let text = error.to_string();
            // Foreign errors often repeat their source in their own text.
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
            source = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A [`Flood`] that can be shared; usually a `static`.
///
/// ```
/// use dashstream::telemetry::RateLimited;
/// static LIMIT: RateLimited = RateLimited::new(5, std::time::Duration::from_secs(10));
/// if let Some(suppressed) = LIMIT.admit() {
///     tracing::warn!(suppressed, "the broker cannot be reached");
/// }
/// ```
#[derive(Debug)]
pub struct RateLimited(Mutex<Flood>);

impl RateLimited {
    /// At most `burst` events per `window`.
    pub const fn new(burst: u32, window: Duration) -> Self {
        Self(Mutex::new(Flood::new(burst, window)))
    }

    /// See [`Flood::admit`].
    pub fn admit(&self) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    #[test]
    fn a_chain_names_each_cause_once() {
        let inner = Link { text: "connection refused", source: None };
        let middle = Link { text: "cannot connect: connection refused", source: Some(Box::new(inner)) };
        let outer = Link { text: "reading the offsets", source: Some(Box::new(middle)) };
        assert_eq!(chain(&outer).to_string(), "reading the offsets: cannot connect: connection refused");
    }

    #[test]
    fn filters_are_read_or_refused() {
        for good in ["info", "warn,dashstream=debug", "dashstream[span{field=1}]=trace"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        assert!(filter("dashstream=loud").is_err());
    }
}
