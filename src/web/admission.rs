//! How many connections are let in: in total, and per client address. IPv6 hosts count by their /64.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// The limits and who is in. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max_total: usize,
    max_per_address: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The service is full.
    #[error("too many connections; try again later")]
    Total,
    /// The address has its share.
    #[error("too many connections from this address")]
    PerAddress,
}

impl Refused {
    /// Label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::PerAddress => "per_address",
        }
    }
}

/// A place that is free again on drop: after a failed upgrade, an abort or a panic alike.
#[derive(Debug)]
pub struct Slot {
    admission: Arc<Inner>,
    address: IpAddr,
}

impl Admission {
    /// Nobody is in yet.
    pub fn new(max_total: usize, max_per_address: usize) -> Self {
        Self(Arc::new(Inner { max_total, max_per_address, open: Mutex::default() }))
    }

    /// Takes a slot for `address`.
    ///
    /// # Errors
    /// When a limit is reached.
    pub fn admit(&self, address: IpAddr) -> Result<Slot, Refused> {
        let address = group(address);
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= self.0.max_total {
            return Err(Refused::Total);
        }
        let of_address = open.by_address.get(&address).copied().unwrap_or(0);
        if of_address >= self.0.max_per_address {
            return Err(Refused::PerAddress);
        }
        open.by_address.insert(address, of_address + 1);
        open.total += 1;
        Ok(Slot { admission: Arc::clone(&self.0), address })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.admission.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total = open.total.saturating_sub(1);
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

/// One IPv6 host has a whole /64 to itself: it counts as one address.
fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_full_address_does_not_keep_others_out_and_slots_come_back() {
        let admission = Admission::new(4, 2);
        let first = admission.admit(ip("10.0.0.1")).unwrap();
        let _second = admission.admit(ip("::ffff:10.0.0.1")).unwrap();
        assert_eq!(admission.admit(ip("10.0.0.1")).unwrap_err(), Refused::PerAddress);
        let _third = admission.admit(ip("10.0.0.2")).unwrap();
        let _fourth = admission.admit(ip("2001:db8::1")).unwrap();
        assert_eq!(admission.admit(ip("10.0.0.3")).unwrap_err(), Refused::Total);
        drop(first);
        admission.admit(ip("10.0.0.1")).unwrap();
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        let admission = Admission::new(9, 1);
        let _one = admission.admit(ip("2001:db8:1:2::1")).unwrap();
        assert_eq!(admission.admit(ip("2001:db8:1:2:ffff::9")).unwrap_err(), Refused::PerAddress);
        admission.admit(ip("2001:db8:1:3::1")).unwrap();
    }

    #[test]
    fn a_slot_comes_back_after_a_panic() {
        let admission = Admission::new(1, 1);
        let slot = admission.admit(ip("10.0.0.1")).unwrap();
        let held = std::thread::spawn(move || {
            let _held = slot;
            panic!("a session fails");
        });
        assert!(held.join().is_err());
        admission.admit(ip("10.0.0.1")).unwrap();
    }
}
