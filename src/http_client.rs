//! The one client for HTTP requests that this program makes: what the collector, the issuer's keys and `dashstream ingest`
//! have in common.
//!
//! It must not know whom it asks, or what about.

use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// A client that trusts the certificates of the system and gives up after `timeout`.
///
/// It goes where it is told and nowhere else: redirects are answers, and proxies that the environment names are not used,
/// since requests may carry tokens. Answers of any status are answers, not errors.
pub fn agent(timeout: Duration) -> ureq::Agent {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .max_redirects(0)
        .http_status_as_error(false)
        .proxy(None)
        .tls_config(tls)
        .build()
        .into()
}
