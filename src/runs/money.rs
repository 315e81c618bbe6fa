//! Sums of money without rounding: whole numbers of picodollars (10^-12).
//!
//! A price of one millionth of a dollar per million tokens is one picodollar per token, so that tokens times price is exact.
//! It must not know tokens.

/// Decimal places of a dollar that are kept.
const PLACES: usize = 12;
/// A dollar.
const ONE: u128 = 1_000_000_000_000;
/// Decimal places of a price per million tokens.
const PRICE_PLACES: usize = 6;

/// An amount of money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(u128);

impl Money {
    /// An amount that a producer sent. Its digits are those of the shortest decimal number that is this float; what lies
    /// beyond the twelfth place is rounded. `None`: no amount of money.
    pub fn of_dollars(dollars: f64) -> Option<Self> {
        // A float is written without exponent; twelve digits before the point are more than anybody spends.
        (0.0..1e12).contains(&dollars).then(|| decimal(&dollars.to_string(), PLACES, true).map(Self))?
    }

    /// An amount that a producer sent as text.
    pub fn of_text(text: &str) -> Option<Self> {
        decimal(text.trim(), PLACES, true).map(Self)
    }

    /// The sum.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::fmt::Display for Money {
    /// All digits that there are, and at least two places.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let places = format!("{:012}", self.0 % ONE);
        write!(f, "{}.{:0<2}", self.0 / ONE, places.trim_end_matches('0'))
    }
}

/// What a token costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price(u128);

impl Price {
    /// From dollars per million tokens; `None` when it is no such number, or has more than six places.
    pub fn per_million(text: &str) -> Option<Self> {
        decimal(text, PRICE_PLACES, false).map(Self)
    }

    /// What so many tokens cost.
    pub fn of(self, tokens: u64) -> Money {
        Money(self.0.saturating_mul(u128::from(tokens)))
    }
}

/// A decimal number as a whole number of its `places`-th place.
fn decimal(text: &str, places: usize, rounds: bool) -> Option<u128> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + part.len() == 0 || whole.len() > 12 || !is_digits(whole) || !is_digits(part) {
        return None;
    }
    let (kept, rest) = part.split_at_checked(places).unwrap_or((part, ""));
    if !rounds && rest.bytes().any(|byte| byte != b'0') {
        return None;
    }
    let digits: u128 = format!("{whole}{kept:0<places$}").parse().ok()?;
    Some(digits + u128::from(rest.bytes().next().is_some_and(|digit| digit >= b'5')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn money_is_read_and_written_digit_by_digit() {
        for (dollars, shown) in [
            (0.0, "0.00"),
            (0.1, "0.10"),
            (0.000_123, "0.000123"),
            (1e-12, "0.000000000001"),
            (4e-13, "0.00"),
            (5e-13, "0.000000000001"),
            (12.5, "12.50"),
            (999_999_999_999.0, "999999999999.00"),
        ] {
            assert_eq!(Money::of_dollars(dollars).unwrap().to_string(), shown);
        }
        for bad in [-0.1, f64::NAN, f64::INFINITY, 1e12] {
            assert_eq!(Money::of_dollars(bad), None, "{bad}");
        }
        assert_eq!(Money::of_text(" 0.25 ").unwrap().to_string(), "0.25");
        assert_eq!((Money::of_text("1e3"), Money::of_text(""), Money::of_text(".")), (None, None, None));
    }

    #[test]
    fn a_sum_of_tenths_does_not_drift() {
        let sum = (0..1_000).fold(Money::default(), |sum, _| sum.plus(Money::of_dollars(0.1).unwrap()));
        assert_eq!(sum.to_string(), "100.00");
    }

    #[test]
    fn prices_are_exact_or_refused() {
        assert_eq!(Price::per_million("0.25").unwrap().of(3).to_string(), "0.00000075");
        assert_eq!(Price::per_million("15").unwrap().of(1_000_000).to_string(), "15.00");
        assert_eq!(Price::per_million(".5").unwrap().of(2_000_000).to_string(), "1.00");
        assert_eq!(Price::per_million("0.0000010"), Price::per_million("0.000001"));
        for bad in ["", ".", "-1", "0.0000001", "1,5", "1e3", "ten"] {
            assert_eq!(Price::per_million(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_cost_is_the_same_in_parts_and_as_a_whole(price in 0_u32..1_000_000, one in any::<u32>(), other in any::<u32>()) {
            let price = Price::per_million(&format!("{}.{:02}", price / 100, price % 100)).unwrap();
            let parts = price.of(one.into()).plus(price.of(other.into()));
            prop_assert_eq!(parts, price.of(u64::from(one) + u64::from(other)));
        }
    }
}
