//! The typed sections about who may see what.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::secret::Secret;
use super::units::seconds;

/// Section `auth`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// Secret of HMAC tokens; empty: none are taken.
    pub jwt_secret: Secret,
    /// Path or address of a JWKS; empty: none.
    pub jwks: String,
    /// How often it is read again.
    #[serde(rename = "jwks_refresh_secs", with = "seconds")]
    pub jwks_refresh: Duration,
    /// Required issuer; empty: any.
    pub issuer: String,
    /// Required audience; empty: any.
    pub audience: String,
    /// The claim that lists tenants.
    pub tenant_claim: String,
    /// The claim that lists threads.
    pub thread_claim: String,
    /// The claim that lists partitions.
    pub partition_claim: String,
    /// How far clocks may differ.
    #[serde(rename = "leeway_secs", with = "seconds")]
    pub leeway: Duration,
}

impl AuthConfig {
    /// Whether anybody has to show a token.
    pub fn is_on(&self) -> bool {
        !self.jwt_secret.is_empty() || !self.jwks.is_empty()
    }
}

/// Section `redact`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedactConfig {
    /// Field paths.
    pub fields: Vec<String>,
    /// Regular expressions.
    pub patterns: Vec<String>,
}

impl RedactConfig {
    /// Whether there is any rule.
    pub const fn is_on(&self) -> bool {
        !self.fields.is_empty() || !self.patterns.is_empty()
    }
}

/// Section `web`: which header of a proxy names the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded`, RFC 7239.
    Forwarded,
}
