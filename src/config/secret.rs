//! Texts that are never shown: passwords, and addresses that may hold one.

use serde::{Deserialize, Serialize, Serializer};

/// Shows as `***` in every output; [`Secret::reveal`] is the only way in.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one who must present it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is any text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    const fn shown(&self) -> &'static str {
        if self.0.is_empty() { "" } else { "***" }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.shown())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

/// An address whose user, password and parameters never show; host and port do, because operators need them.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// Hides the confidential parts of `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The whole address, for the one who connects.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is no address.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&without_credentials(&self.0))
    }
}

impl std::fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `scheme://***@host:port/path?***`. Whatever cannot be told apart with certainty is hidden.
fn without_credentials(url: &str) -> String {
    if url.is_empty() {
        return String::new();
    }
    let Some((scheme, rest)) = url.split_once("://") else { return "***".into() };
    let (user, rest) = match rest.rsplit_once('@') {
        // Either the user or the parameters hold the `@`: what follows it is the host, or the rest of a password.
        Some((before, _)) if before.contains(['/', '?', '#']) => return "***".into(),
        Some((_, rest)) => ("***@", rest),
        None => ("", rest),
    };
    let (place, parameters) = match rest.split_once(['?', '#']) {
        Some((place, _)) => (place, "?***"),
        None => (rest, ""),
    };
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "+-._:/[]".contains(c));
    if plain(scheme) && plain(place) { format!("{scheme}://{user}{place}{parameters}") } else { "***".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_where_but_not_who() {
        for (url, shown) in [
            ("", ""),
            ("redis://127.0.0.1:6379/2", "redis://127.0.0.1:6379/2"),
            ("redis://:pw@h:1", "redis://***@h:1"),
            ("rediss://user:p@w@h", "rediss://***@h"),
            ("rediss://user:p/w?x@h", "***"),
            ("redis://h?password=pw", "redis://h?***"),
            ("redis://h?password=a@b", "***"),
            ("redis://[::1]:6379", "redis://[::1]:6379"),
            ("pw", "***"),
            ("redis://p w", "***"),
        ] {
            assert_eq!(SecretUrl::new(url).to_string(), shown, "{url}");
        }
    }
}
