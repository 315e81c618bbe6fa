//! TLS and SASL for every Kafka client, from one type, validated before any client exists.

use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};

use crate::config::secret::Secret;

/// How to reach a secured cluster. Applied to every client that this program creates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaSecurityConfig {
    /// The listener's protocol.
    pub protocol: SecurityProtocol,
    /// The SASL mechanism; required with a SASL protocol.
    pub sasl_mechanism: Option<SaslMechanism>,
    /// The SASL user; together with the password.
    pub sasl_username: String,
    /// The SASL password.
    pub sasl_password: Secret,
    /// CA certificates, PEM file. Empty: the system's.
    pub ssl_ca_location: String,
    /// Client certificate, PEM file; together with the key.
    pub ssl_certificate_location: String,
    /// Client key, PEM file.
    pub ssl_key_location: String,
    /// Password of the client key.
    pub ssl_key_password: Secret,
    /// How the broker's host name is checked.
    pub ssl_endpoint_algorithm: EndpointAlgorithm,
}

/// `security.protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// No encryption, no authentication.
    #[default]
    Plaintext,
    /// TLS.
    Ssl,
    /// Authentication without encryption.
    SaslPlaintext,
    /// TLS with authentication.
    SaslSsl,
}

/// `sasl.mechanism`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SaslMechanism {
    /// User and password as they are; use it over TLS only.
    #[serde(rename = "PLAIN")]
    Plain,
    /// Salted challenge, SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// Salted challenge, SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// An unsigned token that names the user: for brokers that trust the network, as in development.
    #[serde(rename = "OAUTHBEARER")]
    OauthBearer,
}

/// `ssl.endpoint.identification.algorithm`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointAlgorithm {
    /// The certificate must name the host.
    #[default]
    Https,
    /// The host name is not checked.
    None,
}

/// A combination that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct SecurityError {
    /// The field at fault, as in the configuration.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl SecurityProtocol {
    /// Whether it authenticates by SASL.
    pub const fn uses_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    /// Whether it encrypts by TLS.
    pub const fn uses_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }
}

impl KafkaSecurityConfig {
    /// Checks that the fields fit each other. Every combination that would fail, or be ignored in silence, is refused.
    ///
    /// # Errors
    /// Names the field that is missing or has no use.
    pub fn validate(&self) -> Result<(), SecurityError> {
        let refuse = |field, problem| Err(SecurityError { field, problem });
        let credentials = !self.sasl_username.is_empty() || !self.sasl_password.is_empty();
        if self.protocol.uses_sasl() {
            if self.sasl_mechanism.is_none() {
                return refuse("sasl_mechanism", "is required by this security protocol");
            }
            if self.sasl_username.is_empty() {
                return refuse("sasl_username", "is required by this security protocol");
            }
            let by_name_alone = self.sasl_mechanism == Some(SaslMechanism::OauthBearer);
            if self.sasl_password.is_empty() && !by_name_alone {
                return refuse("sasl_password", "is required by this SASL mechanism");
            }
            if !self.sasl_password.is_empty() && by_name_alone {
                return refuse("sasl_password", "has no effect with OAUTHBEARER, whose token only names the user");
            }
            if by_name_alone && !self.sasl_username.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') {
                return refuse("sasl_username", "must be of ASCII characters without blanks for OAUTHBEARER");
            }
        } else if credentials {
            return refuse("sasl_username", "has no effect without sasl_plaintext or sasl_ssl");
        } else if self.sasl_mechanism.is_some() {
            return refuse("sasl_mechanism", "has no effect without sasl_plaintext or sasl_ssl");
        }
        let has_certificate = !self.ssl_certificate_location.is_empty();
        let has_key = !self.ssl_key_location.is_empty();
        if has_certificate && !has_key {
            return refuse("ssl_key_location", "is required together with ssl_certificate_location");
        }
        if has_key && !has_certificate {
            return refuse("ssl_certificate_location", "is required together with ssl_key_location");
        }
        if !self.protocol.uses_tls() {
            if !self.ssl_ca_location.is_empty() {
                return refuse("ssl_ca_location", "has no effect without ssl or sasl_ssl");
            }
            if has_certificate {
                return refuse("ssl_certificate_location", "has no effect without ssl or sasl_ssl");
            }
            if self.ssl_endpoint_algorithm != EndpointAlgorithm::default() {
                return refuse("ssl_endpoint_algorithm", "has no effect without ssl or sasl_ssl");
            }
        }
        if !self.ssl_key_password.is_empty() && !has_key {
            return refuse("ssl_key_password", "has no effect without ssl_key_location");
        }
        Ok(())
    }

    /// Writes the settings into a client's configuration.
    pub fn apply_to_rdkafka(&self, config: &mut ClientConfig) {
        config.set("security.protocol", self.protocol.as_str());
        if let (true, Some(mechanism)) = (self.protocol.uses_sasl(), self.sasl_mechanism) {
            let mechanism = match mechanism {
                SaslMechanism::Plain => "PLAIN",
                SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
                SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
                SaslMechanism::OauthBearer => "OAUTHBEARER",
            };
            config.set("sasl.mechanism", mechanism);
            if mechanism == "OAUTHBEARER" {
                config.set("enable.sasl.oauthbearer.unsecure.jwt", "true");
                config.set("sasl.oauthbearer.config", format!("principal={}", self.sasl_username));
            } else {
                config.set("sasl.username", &self.sasl_username);
                config.set("sasl.password", self.sasl_password.reveal());
            }
        }
        if self.protocol.uses_tls() {
            let algorithm = match self.ssl_endpoint_algorithm {
                EndpointAlgorithm::Https => "https",
                EndpointAlgorithm::None => "none",
            };
            config.set("ssl.endpoint.identification.algorithm", algorithm);
            for (name, value) in [
                ("ssl.ca.location", self.ssl_ca_location.as_str()),
                ("ssl.certificate.location", self.ssl_certificate_location.as_str()),
                ("ssl.key.location", self.ssl_key_location.as_str()),
                ("ssl.key.password", self.ssl_key_password.reveal()),
            ] {
                if !value.is_empty() {
                    config.set(name, value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sasl() -> KafkaSecurityConfig {
        KafkaSecurityConfig {
            protocol: SecurityProtocol::SaslSsl,
            sasl_mechanism: Some(SaslMechanism::ScramSha256),
            sasl_username: "alice".into(),
            sasl_password: Secret::new("secret"),
            ..Default::default()
        }
    }

    #[test]
    fn half_a_credential_is_refused_by_name() {
        assert_eq!(sasl().validate(), Ok(()));
        let field = |config: KafkaSecurityConfig| config.validate().map_err(|error| error.field);
        assert_eq!(field(KafkaSecurityConfig { sasl_username: String::new(), ..sasl() }), Err("sasl_username"));
        assert_eq!(field(KafkaSecurityConfig { sasl_password: Secret::default(), ..sasl() }), Err("sasl_password"));
        assert_eq!(field(KafkaSecurityConfig { sasl_mechanism: None, ..sasl() }), Err("sasl_mechanism"));
        assert_eq!(
            field(KafkaSecurityConfig { protocol: SecurityProtocol::Ssl, ..sasl() }),
            Err("sasl_username"),
            "credentials that would be ignored"
        );
        assert_eq!(
            field(KafkaSecurityConfig { ssl_key_location: "k".into(), ..sasl() }),
            Err("ssl_certificate_location")
        );
        assert_eq!(
            field(KafkaSecurityConfig { ssl_certificate_location: "c".into(), ..sasl() }),
            Err("ssl_key_location")
        );
        assert_eq!(
            field(KafkaSecurityConfig { ssl_ca_location: "ca".into(), ..Default::default() }),
            Err("ssl_ca_location")
        );
    }

    #[test]
    fn a_password_never_shows() {
        assert!(!format!("{:?}", sasl()).contains("secret"));
        assert!(!serde_json::to_string(&sasl()).unwrap().contains("secret"));
    }
}
