//! From the configuration to the doors of the service: who may come in, where, and how connections are encrypted.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use crate::config::doors::ForwardedHeader;
use crate::config::sections::Config;
use crate::metrics::{Counters, Metrics};
use crate::web::access::OperatorAccess;
use crate::web::auth::{AuthSettings, Authenticator, ClaimRules, JwksPlace};
use crate::web::client_address::{ProxyHeader, ProxyTrust};
use crate::web::origin::OriginPolicy;
use crate::web::server::{self, Door, Role};
use crate::web::tls::Certificate;

/// Checks tokens, if anybody has to show one.
pub(super) fn authenticator(config: &Config, reads: &Counters) -> Result<Option<Arc<Authenticator>>, StartError> {
    let auth = &config.auth;
    if !auth.is_on() {
        return Ok(None);
    }
    let jwks = (!auth.jwks.is_empty()).then(|| match auth.jwks.contains("://") {
        true => JwksPlace::Url(auth.jwks.clone()),
        false => JwksPlace::File(PathBuf::from(&auth.jwks)),
    });
    let settings = AuthSettings {
        secret: auth.jwt_secret.clone(),
        jwks,
        jwks_refresh: auth.jwks_refresh,
        issuer: auth.issuer.clone(),
        audience: auth.audience.clone(),
        leeway: auth.leeway,
        claims: ClaimRules {
            tenants: auth.tenant_claim.clone(),
            threads: auth.thread_claim.clone(),
            partitions: auth.partition_claim.clone(),
        },
    };
    Ok(Some(Arc::new(Authenticator::new(settings, reads.clone())?)))
}

/// Who may use the routes of operators.
pub(super) fn operators(config: &Config, auth: &Option<Arc<Authenticator>>) -> OperatorAccess {
    OperatorAccess { token: config.web.admin_token.clone(), auth: auth.clone() }
}

/// Which pages may connect.
pub(super) fn origins(config: &Config) -> OriginPolicy {
    if !config.web.allowed_origins.is_empty() {
        OriginPolicy::Listed(config.web.allowed_origins.clone())
    } else if config.web.is_loopback() && !config.auth.is_on() {
        OriginPolicy::Local
    } else {
        OriginPolicy::SameOrLocal
    }
}

/// Whose word about a client's address counts.
pub(super) fn proxies(config: &Config) -> ProxyTrust {
    let header = match config.web.forwarded_header {
        ForwardedHeader::XForwardedFor => ProxyHeader::XForwardedFor,
        ForwardedHeader::Forwarded => ProxyHeader::Forwarded,
    };
    ProxyTrust { networks: config.web.trusted_proxies.clone(), header }
}

/// Binds what the configuration names: the first door is the one for browsers.
pub(super) fn bind(config: &Config) -> Result<Vec<Door>, StartError> {
    let web = &config.web;
    let bind = |role: Role, host: &str, port: u16| match server::listen(host, port) {
        Ok(listener) => Ok(Door { listener, tls: None, role }),
        Err(source) => Err(cannot_listen(config, role, source)),
    };
    if web.admin_listen.is_empty() {
        return Ok(vec![bind(Role::All, &web.host, web.port)?]);
    }
    let (host, port) = web.admin_listen.rsplit_once(':').unwrap_or((&web.admin_listen, "0"));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let clients = bind(Role::Clients, &web.host, web.port)?;
    Ok(vec![clients, bind(Role::Operators, host, port.parse().unwrap_or(0))?])
}

/// Names the address of a door as it is configured, and what configures it.
pub(super) fn cannot_listen(config: &Config, role: Role, source: std::io::Error) -> StartError {
    let web = &config.web;
    let (address, setting) = match role {
        Role::All | Role::Clients => (format!("{}:{}", web.host, web.port), "WEBSOCKET_HOST and WEBSOCKET_PORT"),
        Role::Operators => (web.admin_listen.clone(), "DASHSTREAM_WEB_ADMIN_LISTEN"),
    };
    StartError::Bind { address, setting, source }
}

/// Has the browsers' door encrypted, and its certificate renewed in time.
pub(super) fn encrypt(config: &Config, doors: &mut [Door], metrics: &Arc<Metrics>) -> Result<(), StartError> {
    let web = &config.web;
    if web.tls_certificate.is_empty() {
        return Ok(());
    }
    let certificate = Certificate::read(PathBuf::from(&web.tls_certificate), PathBuf::from(&web.tls_key))?;
    for door in doors.iter_mut().filter(|door| door.role != Role::Operators) {
        door.tls = Some(certificate.server_config()?);
    }
    renew(certificate, web.tls_reload, Arc::clone(metrics));
    Ok(())
}

fn renew(certificate: Arc<Certificate>, interval: Duration, metrics: Arc<Metrics>) {
    actix::spawn(async move {
        loop {
            tokio::time::sleep(interval).await;
            let looking = Arc::clone(&certificate);
            let renewed = match tokio::task::spawn_blocking(move || looking.renew()).await {
                Ok(renewed) => renewed,
                Err(_) => return,
            };
            match renewed {
                Ok(false) => {}
                Ok(true) => {
                    metrics.tls_renewals.with_label_values(&["ok"]).inc();
                    tracing::info!("the certificate of the listener was renewed");
                }
                Err(error) => {
                    metrics.tls_renewals.with_label_values(&["failed"]).inc();
                    tracing::error!(%error, "the renewed certificate of the listener cannot be used; the old one stays");
                }
            }
        }
    });
}

/// The addresses on standard output: how a script learns a free port. Nobody may be there any more to read them.
pub(super) fn announce(role: Role, encrypted: bool, addresses: &[std::net::SocketAddr]) {
    let scheme = if encrypted { "https" } else { "http" };
    let mut out = std::io::stdout().lock();
    for address in addresses {
        let _ = match role {
            Role::All | Role::Clients => writeln!(out, "listening on {scheme}://{address}"),
            Role::Operators => writeln!(out, "listening for operators on {scheme}://{address}"),
        };
        tracing::info!(%address, ?role, encrypted, "listening");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::environment::Environment;
    use crate::config::load::load;

    #[test]
    fn a_door_that_cannot_be_opened_is_named_with_its_own_setting() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        for (host, port, operators, setting) in [
            ("127.0.0.1", address.port().to_string(), "", "WEBSOCKET_PORT"),
            ("127.0.0.1", address.port().to_string(), "127.0.0.1:0", "WEBSOCKET_PORT"),
            ("127.0.0.1", "0".to_owned(), &*address.to_string(), "DASHSTREAM_WEB_ADMIN_LISTEN"),
        ] {
            let variables: Environment = [
                ("WEBSOCKET_HOST", host),
                ("WEBSOCKET_PORT", port.as_str()),
                ("DASHSTREAM_WEB_ADMIN_LISTEN", operators),
            ]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect();
            let error = bind(&load(None, &variables, &[]).unwrap().config).unwrap_err().to_string();
            assert!(error.contains(&address.to_string()) && error.contains(setting), "{error}");
        }
    }
}
