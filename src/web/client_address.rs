//! Who a client is: the socket's peer, unless that is a trusted proxy that names somebody else.
//!
//! `X-Forwarded-For` is walked from the right over all its instances; the first address that is not a trusted proxy counts,
//! and an entry that is no address ends the walk at the last proxy seen. Nobody else's header is believed.

use std::net::IpAddr;

/// A trusted network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Not an address or network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an IP address nor a network like 10.0.0.0/8")]
pub struct NotANetwork(String);

impl std::str::FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || NotANetwork(crate::wire::control::cut(text, 64).to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| bad())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.trim().parse().ok().filter(|prefix| *prefix <= longest).ok_or_else(bad)?,
            None => longest,
        };
        Ok(Self { address, prefix })
    }
}

impl Network {
    /// Whether the address lies in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.prefix);
                shift == 32 || u32::from(network) >> shift == u32::from(address) >> shift
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.prefix);
                shift == 128 || u128::from(network) >> shift == u128::from(address) >> shift
            }
            _ => false,
        }
    }
}

/// The client's address. `forwarded` holds the values of all `X-Forwarded-For` headers in order.
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = &'a str>,
    trusted: &[Network],
) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
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
        let trusted = ["10.0.0.0/8", "127.0.0.1", "fd00::/8"].map(|network| network.parse().unwrap());
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

    #[test]
    fn a_bad_network_is_refused() {
        for bad in ["", "x", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "::1/129", "10.0.0.0/-1"] {
            assert!(bad.parse::<Network>().is_err(), "{bad:?}");
        }
        assert!("0.0.0.0/0".parse::<Network>().unwrap().contains("9.9.9.9".parse().unwrap()));
    }
}
