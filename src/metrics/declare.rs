//! How metrics are declared: one table gives the struct, the registration, the first samples and the reference page.
//!
//! It must not know which metrics there are.

use prometheus::{GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec};

/// A metric as it is declared.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// What the metric is about.
    pub group: &'static str,
    /// The name on the scrape.
    pub name: &'static str,
    /// The name of its Rust type.
    pub rust_type: &'static str,
    /// Its labels, in order.
    pub labels: &'static [(&'static str, Values)],
    /// What it tells.
    pub help: &'static str,
}

impl Declared {
    /// The type on the scrape: `counter`, `gauge` or `histogram`.
    pub fn kind(&self) -> &'static str {
        match self.rust_type {
            "IntCounter" | "IntCounterVec" => "counter",
            "Histogram" | "HistogramVec" => "histogram",
            _ => "gauge",
        }
    }
}

/// The values that a label may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// These and no others; their series exist from the start.
    Closed(&'static [&'static str]),
    /// One for each of what is named here. A series exists while there is something to say.
    Each(&'static str),
}

/// A family of series, which can be made to exist before their first event.
pub(super) trait Family {
    /// Makes a series exist at zero.
    fn touch(&self, values: &[&str]);
}

macro_rules! family {
    ($($kind:ty),+) => { $(
        impl Family for $kind {
            fn touch(&self, values: &[&str]) {
                self.with_label_values(values);
            }
        }
    )+ };
}

family!(IntCounterVec, IntGaugeVec, GaugeVec, HistogramVec);

/// Makes every series of a family exist whose labels are all closed sets.
pub(super) fn touch_all(family: &impl Family, labels: &[Values]) {
    let mut series: Vec<Vec<&str>> = vec![Vec::new()];
    for values in labels {
        let Values::Closed(values) = values else { return };
        let extended = |begun: &Vec<&'static str>| {
            let begun = begun.clone();
            values
                .iter()
                .map(move |value| begun.iter().copied().chain([*value]).collect::<Vec<_>>())
                .collect::<Vec<_>>()
        };
        series = series.iter().flat_map(extended).collect();
    }
    for values in series {
        family.touch(&values);
    }
}

/// Declares the struct and its constructor from one table.
macro_rules! metrics {
    ($( $group:literal { $( $(#[doc = $help:literal])+ $field:ident : $kind:ident $name:literal
        $( [$($label:literal: $values:expr),+] )? $( buckets $buckets:expr )? ;)+ } )+) => {
        /// All metrics. One per process, shared by every actor generation.
        #[derive(Debug)]
        pub struct Metrics {
            registry: prometheus::Registry,
            $( $( $(#[doc = $help])+ pub $field: $kind, )+ )+
        }

        impl Metrics {
            /// Declares and registers everything. Series whose labels are closed sets exist from here on.
            ///
            /// # Errors
            /// When a name is invalid or taken.
            pub fn new() -> prometheus::Result<Self> {
                let registry = prometheus::Registry::new();
                $( $( let $field = metrics!(@make $kind, $name, concat!($($help),+).trim(), [$($($label),+)?], [$($buckets)?]);
                   registry.register(Box::new($field.clone()))?;
                   $( $crate::metrics::declare::touch_all(&$field, &[$($values),+]); )? )+ )+
                Ok(Self { registry, $($($field),+),+ })
            }

            /// Every metric, in order of declaration.
            pub const TABLE: &'static [$crate::metrics::Declared] = &[
                $( $( $crate::metrics::Declared {
                    group: $group,
                    name: $name,
                    rust_type: stringify!($kind),
                    labels: &[$($(($label, $values)),+)?],
                    help: concat!($($help),+).trim_ascii(),
                } ),+ ),+
            ];
        }
    };
    (@make IntCounter, $name:literal, $help:expr, [], []) => { IntCounter::with_opts(Opts::new($name, $help))? };
    (@make IntGauge, $name:literal, $help:expr, [], []) => { IntGauge::with_opts(Opts::new($name, $help))? };
    (@make Gauge, $name:literal, $help:expr, [], []) => { Gauge::with_opts(Opts::new($name, $help))? };
    (@make IntCounterVec, $name:literal, $help:expr, [$($label:literal),+], []) => { IntCounterVec::new(Opts::new($name, $help), &[$($label),+])? };
    (@make IntGaugeVec, $name:literal, $help:expr, [$($label:literal),+], []) => { IntGaugeVec::new(Opts::new($name, $help), &[$($label),+])? };
    (@make GaugeVec, $name:literal, $help:expr, [$($label:literal),+], []) => { GaugeVec::new(Opts::new($name, $help), &[$($label),+])? };
    (@make Histogram, $name:literal, $help:expr, [], [$buckets:expr]) => { Histogram::with_opts(HistogramOpts::new($name, $help).buckets($buckets.to_vec()))? };
    (@make HistogramVec, $name:literal, $help:expr, [$($label:literal),+], [$buckets:expr]) => { HistogramVec::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), &[$($label),+])? };
}

pub(super) use metrics;
