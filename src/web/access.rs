//! Who may use the routes of operators: a static token, a signed token with the scope, or only this machine.

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::{CONTENT_TYPE, FORWARDED, ORIGIN};
use sha2::{Digest as _, Sha256};

use super::auth::{Access, Authenticator, Denied, bearer};
use super::origin::names_no_other;
use crate::config::secret::Secret;

/// The rule.
#[derive(Clone, Debug, Default)]
pub struct OperatorAccess {
    /// Who shows it may come from anywhere.
    pub token: Secret,
    /// Checks signed tokens, where there are some.
    pub auth: Option<Arc<Authenticator>>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not come from this machine itself.
    #[error(
        "only requests from this machine, to localhost or an IP address, are answered unless an admin token is configured \
         (DASHSTREAM_WEB_ADMIN_TOKEN)"
    )]
    Elsewhere,
    /// It shows no good token.
    #[error("the admin token is missing or wrong; send it as: Authorization: Bearer TOKEN")]
    Token,
    /// It shows a good token that does not allow this.
    #[error("the token has no scope dashstream:{0}")]
    Scope(&'static str),
    /// A page may have sent it without its user's knowledge.
    #[error("send the request as Content-Type: application/json, and not from a page")]
    Page,
}

impl OperatorAccess {
    /// Whether a request may change something, and if so who asks, for the log.
    ///
    /// # Errors
    /// When it may not.
    pub fn may_change(&self, request: &HttpRequest) -> Result<String, Refusal> {
        let who = self.admit(request, "admin", |access| access.admin)?;
        let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let json = kind.is_some_and(|kind| kind.split(';').next() == Some("application/json"));
        if json && !request.headers().contains_key(ORIGIN) { Ok(who) } else { Err(Refusal::Page) }
    }

    /// Whether a request may look at what operators see of clients.
    ///
    /// # Errors
    /// When it may not.
    pub fn may_look(&self, request: &HttpRequest) -> Result<(), Refusal> {
        self.admit(request, "admin", |access| access.admin).map(drop)
    }

    /// Whether a request may see health and metrics in full: everybody where nobody has to say who they are, since they may
    /// see the stream itself.
    ///
    /// # Errors
    /// When it may not.
    pub fn may_observe(&self, request: &HttpRequest) -> Result<(), Refusal> {
        match self.auth {
            Some(_) => self.admit(request, "observe", |access| access.observe).map(drop),
            None => Ok(()),
        }
    }

    /// Who asks: the subject of a signed token, `admin token`, or `this machine`.
    fn admit(&self, request: &HttpRequest, scope: &'static str, has: fn(&Access) -> bool) -> Result<String, Refusal> {
        if !self.token.is_empty() && shows(request, &self.token) {
            return Ok("admin token".to_owned());
        }
        if let Some(auth) = &self.auth {
            return match auth.admit(request.headers()) {
                Ok(access) if has(&access) => Ok(access.subject),
                Ok(_) | Err(Denied::Forbidden(_)) => Err(Refusal::Scope(scope)),
                Err(_) => Err(Refusal::Token),
            };
        }
        if !self.token.is_empty() {
            return Err(Refusal::Token);
        }
        if is_near(request) { Ok("this machine".to_owned()) } else { Err(Refusal::Elsewhere) }
    }
}

fn shows(request: &HttpRequest, token: &Secret) -> bool {
    // Hashes take the same time to compare wherever they differ.
    bearer(request.headers()).is_some_and(|shown| Sha256::digest(shown) == Sha256::digest(token.reveal()))
}

/// From this machine, and not through a proxy on it: whoever is behind that is unknown. Nor from a page of a name that was
/// made to point at this machine.
fn is_near(request: &HttpRequest) -> bool {
    let near = request.peer_addr().is_some_and(|peer: SocketAddr| peer.ip().to_canonical().is_loopback());
    let headers = request.headers();
    let through = ["x-forwarded-for", "x-real-ip", "via"].iter().any(|name| headers.contains_key(*name));
    near && !through && !headers.contains_key(FORWARDED) && names_no_other(headers)
}
