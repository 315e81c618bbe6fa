//! From the configuration to the doors of the service: who may come in, where, and how connections are encrypted.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use crate::config::doors::ForwardedHeader;
use crate::config::sections::Config;
use crate::metrics::Metrics;
use crate::web::access::OperatorAccess;
use crate::web::auth::{AuthSettings, Authenticator, ClaimRules, JwksPlace};
use crate::web::client_address::{ProxyHeader, ProxyTrust};
use crate::web::origin::OriginPolicy;
use crate::web::server::{self, Door, Role};
use crate::web::tls::Certificate;

/// Checks tokens, if anybody has to show one.
pub(super) fn authenticator(config: &Config, metrics: &Arc<Metrics>) -> Result<Option<Arc<Authenticator>>, StartError> {
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
    Ok(Some(Arc::new(Authenticator::new(settings, Arc::clone(metrics))?)))
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
    let bind = |host: &str, port: u16| {
        let named = |source| StartError::Bind { address: format!("{host}:{port}"), source };
        server::listen(host, port).map_err(named)
    };
    let listener = bind(&web.host, web.port)?;
    if web.admin_listen.is_empty() {
        return Ok(vec![Door { listener, tls: None, role: Role::All }]);
    }
    let (host, port) = web.admin_listen.rsplit_once(':').unwrap_or((&web.admin_listen, "0"));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let operators = bind(host, port.parse().unwrap_or(0))?;
    let door = |listener, role| Door { listener, tls: None, role };
    Ok(vec![door(listener, Role::Clients), door(operators, Role::Operators)])
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

/// The addresses on standard output: how a script learns a free port.
#[allow(clippy::print_stdout, reason = "the one result of this command")]
pub(super) fn announce(role: Role, encrypted: bool, addresses: &[std::net::SocketAddr]) {
    let scheme = if encrypted { "https" } else { "http" };
    for address in addresses {
        match role {
            Role::All | Role::Clients => println!("listening on {scheme}://{address}"),
            Role::Operators => println!("listening for operators on {scheme}://{address}"),
        }
        tracing::info!(%address, ?role, encrypted, "listening");
    }
}
