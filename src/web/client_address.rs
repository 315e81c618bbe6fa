//! Who a client is: the socket's peer, unless that is a trusted proxy that names somebody else.
//!
//! The header is walked from the right over all its instances; the first address that is not a trusted proxy counts, and an
//! entry that is no address ends the walk at the last proxy seen. Nobody else's header is believed.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::{FORWARDED, HeaderMap};
use ipnet::IpNet;

/// Whose word counts, and in which header it stands. The other header may be anybody's.
#[derive(Clone, Debug)]
pub struct ProxyTrust {
    /// The proxies.
    pub networks: Vec<IpNet>,
    /// The header.
    pub header: ProxyHeader,
}

/// Headers in which proxies name clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded`, RFC 7239.
    Forwarded,
}

impl ProxyTrust {
    /// The client's address.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let is_trusted = |address: IpAddr| self.networks.iter().any(|network| network.contains(&address));
        let peer = peer.to_canonical();
        if !is_trusted(peer) {
            return peer;
        }
        let values = |name: &str| -> Vec<String> {
            headers.get_all(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
        };
        let named: Vec<Option<IpAddr>> = match self.header {
            ProxyHeader::XForwardedFor => {
                let values = values("x-forwarded-for");
                values.iter().flat_map(|value| value.split(',')).map(|entry| address(entry.trim())).collect()
            }
            ProxyHeader::Forwarded => {
                let values = values(FORWARDED.as_str());
                values.iter().flat_map(|value| split(value, ',')).map(forwarded_for).collect()
            }
        };
        let mut client = peer;
        for named in named.into_iter().rev() {
            let Some(named) = named else { break };
            client = named;
            if !is_trusted(client) {
                break;
            }
        }
        client
    }
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    address.map(|address| address.to_canonical())
}

/// The `for` of one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let (_, node) = split(element, ';')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    let node = node.trim();
    let node = node.strip_prefix('"').and_then(|node| node.strip_suffix('"')).unwrap_or(node);
    // Names such as `unknown` and `_hidden` are no addresses.
    address(node)
}

/// Splits at a separator that does not stand between quotes.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c: char| {
        let ends = c == separator && !quoted;
        (quoted, escaped) = match c {
            _ if escaped => (quoted, false),
            '\\' if quoted => (quoted, true),
            '"' => (!quoted, false),
            _ => (quoted, false),
        };
        ends
    })
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn resolve(header: ProxyHeader, peer: &str, values: &[(&str, &str)]) -> String {
        let networks = ["10.0.0.0/8", "127.0.0.1/32", "fd00::/8"].map(|network| network.parse().unwrap()).into();
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        ProxyTrust { networks, header }.client(peer.parse().unwrap(), &headers).to_string()
    }

    fn xff(peer: &str, values: &[&str]) -> String {
        let values: Vec<_> = values.iter().map(|value| ("x-forwarded-for", *value)).collect();
        resolve(ProxyHeader::XForwardedFor, peer, &values)
    }

    fn forwarded(peer: &str, values: &[&str]) -> String {
        let values: Vec<_> = values.iter().map(|value| ("forwarded", *value)).collect();
        resolve(ProxyHeader::Forwarded, peer, &values)
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(xff("203.0.113.9", &["1.2.3.4"]), "203.0.113.9");
        assert_eq!(xff("10.1.1.1", &["1.2.3.4"]), "1.2.3.4");
        assert_eq!(xff("::ffff:10.1.1.1", &["1.2.3.4"]), "1.2.3.4");
        assert_eq!(xff("10.1.1.1", &[]), "10.1.1.1");
        assert_eq!(forwarded("203.0.113.9", &["for=1.2.3.4"]), "203.0.113.9");
        assert_eq!(forwarded("10.1.1.1", &["for=1.2.3.4"]), "1.2.3.4");
    }

    #[test]
    fn a_forged_head_of_the_list_does_not_count() {
        assert_eq!(xff("10.1.1.1", &["6.6.6.6, 1.2.3.4"]), "1.2.3.4");
        assert_eq!(xff("10.1.1.1", &["6.6.6.6", "1.2.3.4, 10.2.2.2"]), "1.2.3.4");
        assert_eq!(xff("10.1.1.1", &["6.6.6.6, unknown"]), "10.1.1.1");
        assert_eq!(xff("10.1.1.1", &["6.6.6.6, nonsense, 10.2.2.2"]), "10.2.2.2");
        assert_eq!(xff("fd00::1", &["2001:db8::7"]), "2001:db8::7");
        assert_eq!(forwarded("10.1.1.1", &["for=6.6.6.6, for=1.2.3.4"]), "1.2.3.4");
        assert_eq!(forwarded("10.1.1.1", &["for=6.6.6.6", "for=1.2.3.4, for=10.2.2.2"]), "1.2.3.4");
        assert_eq!(forwarded("10.1.1.1", &["for=6.6.6.6, for=unknown"]), "10.1.1.1");
        assert_eq!(forwarded("10.1.1.1", &["for=6.6.6.6, by=10.0.0.1"]), "10.1.1.1");
    }

    #[test]
    fn the_header_that_is_not_configured_is_anybodys_and_not_looked_at() {
        let both = [("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=2.2.2.2")];
        assert_eq!(resolve(ProxyHeader::XForwardedFor, "10.0.0.1", &both), "1.1.1.1");
        assert_eq!(resolve(ProxyHeader::Forwarded, "10.0.0.1", &both), "2.2.2.2");
        assert_eq!(resolve(ProxyHeader::Forwarded, "10.0.0.1", &both[..1]), "10.0.0.1");
    }

    #[test]
    fn addresses_come_in_many_spellings() {
        assert_eq!(xff("10.1.1.1", &["1.2.3.4:5678"]), "1.2.3.4");
        assert_eq!(xff("10.1.1.1", &["[2001:db8::7]:443"]), "2001:db8::7");
        assert_eq!(forwarded("10.1.1.1", &[r#"For="[2001:db8::7]:4711";proto=https;by=203.0.113.43"#]), "2001:db8::7");
        assert_eq!(forwarded("10.1.1.1", &[r#"proto=http; for="192.0.2.60:80" "#]), "192.0.2.60");
        assert_eq!(forwarded("10.1.1.1", &[r#"for=9.9.9.9, secret="a,for=6.6.6.6\",b";for=1.2.3.4"#]), "1.2.3.4");
        assert_eq!(forwarded("10.1.1.1", &["for=_hidden"]), "10.1.1.1");
        assert_eq!(forwarded("10.1.1.1", &["for=\"", "=", ";;,,"]), "10.1.1.1");
    }
}
