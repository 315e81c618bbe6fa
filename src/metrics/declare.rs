//! How metrics are declared: one table gives the struct, the registration, the first samples and the reference page.
//!
//! It must not know which metrics there are.

use std::collections::HashSet;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

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

    /// Whether its series exist from the start.
    pub fn is_always_there(&self) -> bool {
        self.rust_type != "KnownGauge" && self.labels.iter().all(|(_, values)| matches!(values, Values::Closed(_)))
    }
}

/// A gauge that is there while its value is known, and absent otherwise.
#[derive(Clone, Debug)]
pub struct KnownGauge(GaugeVec);

impl KnownGauge {
    pub(super) fn with_opts(opts: Opts) -> prometheus::Result<Self> {
        GaugeVec::new(opts, &[]).map(Self)
    }

    /// The value is known.
    pub fn set(&self, value: f64) {
        self.0.with_label_values::<&str>(&[]).set(value);
    }

    /// It is not known any more.
    pub fn forget(&self) {
        self.0.reset();
    }
}

impl Collector for KnownGauge {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.collect()
    }
}

/// Whether everything of a table that is always there is exported; answers how many families the table has.
///
/// # Errors
/// Names the first family that is not.
pub(super) fn check(registry: &Registry, table: &[Declared]) -> prometheus::Result<usize> {
    let exported: HashSet<String> = registry.gather().iter().map(|family| family.name().to_owned()).collect();
    match table.iter().filter(|metric| metric.is_always_there()).find(|metric| !exported.contains(metric.name)) {
        Some(missing) => Err(prometheus::Error::Msg(format!("{} is declared and not exported", missing.name))),
        None => Ok(table.len()),
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
    ($(#[doc = $about:literal])+ $name_of_struct:ident($($argument:ident: $argument_type:ty),*);
    $( $group:literal { $( $(#[doc = $help:literal])+ $field:ident : $kind:ident $name:literal
        $( [$($label:literal: $values:expr),+] )? $( buckets $buckets:expr )? ;)+ } )+) => {
        $(#[doc = $about])+
        #[derive(Debug)]
        pub struct $name_of_struct {
            registry: prometheus::Registry,
            $( $( $(#[doc = $help])+ pub $field: $kind, )+ )+
        }

        impl $name_of_struct {
            /// Declares and registers everything. Series whose labels are closed sets exist from here on.
            ///
            /// # Errors
            /// When a name is invalid or taken.
            pub fn new($($argument: $argument_type),*) -> prometheus::Result<Self> {
                let registry = prometheus::Registry::new();
                $( $( let $field = metrics!(@make $kind, $name, concat!($($help),+).trim(), [$($($label),+)?], [$($buckets)?]);
                   registry.register(Box::new($field.clone()))?;
                   $( $crate::metrics::declare::touch_all(&$field, &[$($values),+]); )? )+ )+
                Ok(Self { registry, $($($field),+),+ })
            }

            /// Whether everything that is declared is exported; answers how many families there are. Families whose series
            /// stand for something (a partition, the build) or for something known are exported once there is one.
            ///
            /// # Errors
            /// Names the first family that is not.
            pub fn check(&self) -> prometheus::Result<usize> {
                $crate::metrics::declare::check(&self.registry, Self::TABLE)
            }

            /// The exposition text.
            ///
            /// # Errors
            /// When a metric cannot be encoded.
            pub fn encode(&self) -> prometheus::Result<String> {
                prometheus::TextEncoder::new().encode_to_string(&self.registry.gather())
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
    (@make KnownGauge, $name:literal, $help:expr, [], []) => { KnownGauge::with_opts(Opts::new($name, $help))? };
    (@make IntCounterVec, $name:literal, $help:expr, [$($label:literal),+], []) => { IntCounterVec::new(Opts::new($name, $help), &[$($label),+])? };
    (@make IntGaugeVec, $name:literal, $help:expr, [$($label:literal),+], []) => { IntGaugeVec::new(Opts::new($name, $help), &[$($label),+])? };
    (@make GaugeVec, $name:literal, $help:expr, [$($label:literal),+], []) => { GaugeVec::new(Opts::new($name, $help), &[$($label),+])? };
    (@make Histogram, $name:literal, $help:expr, [], [$buckets:expr]) => { Histogram::with_opts(HistogramOpts::new($name, $help).buckets($buckets.to_vec()))? };
    (@make HistogramVec, $name:literal, $help:expr, [$($label:literal),+], [$buckets:expr]) => { HistogramVec::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), &[$($label),+])? };
}

pub(super) use metrics;
