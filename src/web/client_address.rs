//! Who a client is: the socket's peer, unless that is a trusted proxy that names somebody else.
//!
//! `X-Forwarded-For` is walked from the right over all its instances; the first address that is not a trusted proxy counts,
//! and an entry that is no address ends the walk at the last proxy seen. Nobody else's header is believed.

use std::net::IpAddr;

use ipnet::IpNet;

/// The client's address. `forwarded` holds the values of all `X-Forwarded-For` headers in order.
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = &'a str>,
    trusted: &[IpNet],
) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let mut address = peer.to_canonical();
    for entry in forwarded.flat_map(|header| header.split(',')).rev() {
        if !is_trusted(address) {
            break;
        }
        match entry.trim().parse::<IpAddr>() {
            Ok(named) => address = named.to_canonical(),
            Err(_) => break,
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(peer: &str, headers: &[&str]) -> String {
        let trusted = ["10.0.0.0/8", "127.0.0.1/32", "fd00::/8"].map(|network| network.parse().unwrap());
        client_address(peer.parse().unwrap(), headers.iter().copied(), &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(resolve("203.0.113.9", &["1.2.3.4"]), "203.0.113.9");
        assert_eq!(resolve("10.1.1.1", &["1.2.3.4"]), "1.2.3.4");
        assert_eq!(resolve("::ffff:10.1.1.1", &["1.2.3.4"]), "1.2.3.4");
        assert_eq!(resolve("10.1.1.1", &[]), "10.1.1.1");
    }

    #[test]
    fn a_forged_head_of_the_list_does_not_count() {
        assert_eq!(resolve("10.1.1.1", &["6.6.6.6, 1.2.3.4"]), "1.2.3.4");
        assert_eq!(resolve("10.1.1.1", &["6.6.6.6", "1.2.3.4, 10.2.2.2"]), "1.2.3.4");
        assert_eq!(resolve("10.1.1.1", &["6.6.6.6, unknown"]), "10.1.1.1");
        assert_eq!(resolve("10.1.1.1", &["6.6.6.6, nonsense, 10.2.2.2"]), "10.2.2.2");
        assert_eq!(resolve("fd00::1", &["2001:db8::7"]), "2001:db8::7");
    }
}
