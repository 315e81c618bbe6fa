//! Which pages may connect. A browser tells the page's origin, and lets any page on the internet talk to a service that its
//! user can reach; nothing else does.

use std::net::IpAddr;

use actix_web::http::header::{HOST, HeaderMap, ORIGIN};
use url::{Host, Url};

/// The rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPolicy {
    /// These alone, in lower case.
    Listed(Vec<String>),
    /// Pages of the machine that the browser runs on, and those that come from the address that they connect to.
    SameOrLocal,
    /// Pages of the machine that the browser runs on. For a service that nobody else should reach and that asks nobody who
    /// they are: a page can make its own name point at this machine, and then has the same origin.
    Local,
}

impl OriginPolicy {
    /// Whether a request may connect. One without an origin does not come from a page.
    pub fn allows(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN);
        let origin = match (origins.next(), origins.next()) {
            (None, _) => return true,
            (Some(origin), None) => origin.to_str().unwrap_or_default().to_ascii_lowercase(),
            (Some(_), Some(_)) => return false,
        };
        if let Self::Listed(listed) = self {
            return listed.contains(&origin);
        }
        let Ok(url) = Url::parse(&origin) else { return false };
        let (Some(host), true) = (url.host(), matches!(url.scheme(), "http" | "https")) else { return false };
        let own = || {
            let named = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            // The scheme is the page's: a proxy in front may take TLS off.
            let here = Url::parse(&format!("{}://{named}", url.scheme()));
            here.is_ok_and(|here| here.origin() == url.origin())
        };
        is_local(&host) || *self == Self::SameOrLocal && own()
    }
}

fn is_local(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => IpAddr::from(*address).to_canonical().is_loopback(),
    }
}

/// Whether a request asks for this machine by an address, or as `localhost`. A page can make a name of its own point at this
/// machine; its browser then tells that name.
pub(super) fn names_no_other(headers: &HeaderMap) -> bool {
    headers.get_all(HOST).all(|named| {
        let url = named.to_str().ok().and_then(|named| Url::parse(&format!("http://{named}")).ok());
        url.as_ref().and_then(Url::host).is_some_and(|host| !matches!(host, Host::Domain(_)) || is_local(&host))
    })
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn headers(origins: &[&str], host: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        for origin in origins {
            headers.append(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        headers
    }

    #[test]
    fn pages_of_others_are_kept_out_and_programs_are_not() {
        let same = OriginPolicy::SameOrLocal;
        let local = OriginPolicy::Local;
        let listed = OriginPolicy::Listed(vec!["https://dash.example.com".into()]);
        // Origin, Host, and what each rule says.
        for (origin, host, want) in [
            ("http://127.0.0.1:3002", "127.0.0.1:3002", [true, true, false]),
            ("http://localhost:5173", "127.0.0.1:3002", [true, true, false]),
            ("http://[::1]:3002", "[::1]:3002", [true, true, false]),
            ("http://[::ffff:127.0.0.1]", "x", [true, true, false]),
            ("http://app.localhost", "x", [true, true, false]),
            ("http://dash.lan:3002", "dash.lan:3002", [true, false, false]),
            ("http://dash.lan", "dash.lan:80", [true, false, false]),
            ("https://dash.lan", "dash.lan", [true, false, false]),
            ("https://dash.lan", "dash.lan:80", [false, false, false]),
            ("http://dash.lan:3002", "dash.lan:3003", [false, false, false]),
            ("https://dash.example.com", "dash.example.com", [true, false, true]),
            ("HTTPS://Dash.Example.com", "inner:3002", [false, false, true]),
            ("https://dash.example.com:8443", "x", [false, false, false]),
            ("https://dash.example.com.evil.com", "x", [false, false, false]),
            ("https://evil.com", "127.0.0.1:3002", [false, false, false]),
            ("http://evil.com:3002", "evil.com:3002", [true, false, false]),
            ("http://127.0.0.1.evil.com", "127.0.0.1", [false, false, false]),
            ("http://localhost@evil.com", "x", [false, false, false]),
            ("null", "x", [false, false, false]),
            ("", "x", [false, false, false]),
            ("file://", "x", [false, false, false]),
            ("chrome-extension://abc", "abc", [false, false, false]),
        ] {
            let headers = headers(&[origin], host);
            let said = [same.allows(&headers), local.allows(&headers), listed.allows(&headers)];
            assert_eq!(said, want, "{origin} at {host}");
        }
        for policy in [&same, &local, &listed] {
            assert!(policy.allows(&headers(&[], "x")), "no page");
            assert!(!policy.allows(&headers(&["http://localhost", "http://localhost"], "x")), "two origins");
        }
    }

    #[test]
    fn only_names_that_pages_cannot_take_stand_for_this_machine() {
        for (host, want) in [
            ("127.0.0.1:3002", true),
            ("10.0.0.1", true),
            ("[::1]:3002", true),
            ("[2001:db8::1]", true),
            ("localhost:3002", true),
            ("LOCALHOST", true),
            ("app.localhost", true),
            ("evil.com:3002", false),
            ("127.0.0.1.evil.com", false),
            ("localhost.evil.com", false),
            ("", false),
            ("localhost@evil.com", false),
        ] {
            assert_eq!(names_no_other(&headers(&[], host)), want, "{host}");
        }
        assert!(names_no_other(&HeaderMap::new()), "what names nothing is no browser");
    }
}
