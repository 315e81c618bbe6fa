//! The W3C trace context that a producer or a client sends along. It must not know what is traced.

/// The header's name, in Kafka and in HTTP.
pub const TRACEPARENT: &str = "traceparent";

/// The span from which a record or a request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace; never 0.
    pub trace: u128,
    /// The span in it; never 0.
    pub span: u64,
    /// Whether its sender records the trace.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads a header's value; `None` when it is not valid.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, len| text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        // Later versions may add parts; version ff does not exist.
        let known = hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
        if !known || !hex(trace, 32) || !hex(span, 16) || !hex(flags, 2) {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self { trace, span, sampled: flags & 1 == 1 })
    }

    /// The context of a record, from its headers.
    pub fn of_headers<'a>(headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>) -> Option<Self> {
        headers.into_iter().find_map(|(name, value)| {
            let value = name.eq_ignore_ascii_case(TRACEPARENT).then_some(value?)?;
            Self::parse(std::str::from_utf8(value).ok()?)
        })
    }

    /// The trace as it is written: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_standard_allows_is_a_context() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let context = |sampled| TraceParent {
            trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            span: 0x00f0_67aa_0ba9_02b7,
            sampled,
        };
        for (text, want) in [
            (format!("00-{trace}-{span}-01"), Some(context(true))),
            (format!(" 00-{trace}-{span}-00 "), Some(context(false))),
            (format!("00-{trace}-{span}-fe"), Some(context(false))),
            (format!("01-{trace}-{span}-03-later"), Some(context(true))),
            (format!("00-{trace}-{span}-01-later"), None),
            (format!("ff-{trace}-{span}-01"), None),
            (format!("0-{trace}-{span}-01"), None),
            (format!("00-{}-{span}-01", "0".repeat(32)), None),
            (format!("00-{trace}-{}-01", "0".repeat(16)), None),
            (format!("00-{}-{span}-01", trace.to_uppercase()), None),
            (format!("00-+{}-{span}-01", trace.split_at(1).1), None),
            (format!("00-{trace}-{span}"), None),
            (format!("00-{trace}-{span}-1"), None),
            ("ü".repeat(55), None),
            (String::new(), None),
        ] {
            assert_eq!(TraceParent::parse(&text), want, "{text}");
        }
        assert_eq!(context(true).trace_id(), trace);
    }

    #[test]
    fn the_first_valid_header_counts_whatever_its_case() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".as_bytes();
        let of = |headers: &[(&str, Option<&[u8]>)]| TraceParent::of_headers(headers.iter().copied()).is_some();
        assert!(of(&[("x", None), ("TraceParent", Some(b"nonsense")), ("Traceparent", Some(good))]));
        assert!(!of(&[("traceparent", None), ("tracestate", Some(good)), ("traceparent", Some(b"\xff"))]));
        assert!(!of(&[]));
    }
}
