//! What a metric is: name, kind, label names and the resolution at which it is measured.

/// A self-describing metric, as a sampler declares it.
///
/// The agent sends this with the first series that uses it, so that a new sampler touches
/// neither this crate nor the collector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Metric {
    /// The field's own name with its base unit last, such as `node_memory_MemFree_bytes`.
    pub name: Box<str>,
    /// How the value behaves over time.
    pub kind: Kind,
    /// The step in which the source counts.
    pub resolution: Resolution,
    /// Label names in the order in which series give their values.
    pub label_names: Box<[Box<str>]>,
    /// One sentence for people.
    pub help: Box<str>,
}

impl Metric {
    /// Describes a metric; names are checked where they cross a trust boundary, not here.
    #[must_use]
    pub fn new(name: &str, kind: Kind, resolution: Resolution, label_names: &[&str], help: &str) -> Self {
        Self {
            name: name.into(),
            kind,
            resolution,
            label_names: label_names.iter().map(|&label| label.into()).collect(),
            help: help.into(),
        }
    }
}

/// How a metric's value behaves over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Only grows, and starts again at zero with its source.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Always 1: the labels are the message.
    Info,
}

impl Kind {
    /// Prometheus' word for it in exposition and metadata.
    #[must_use]
    pub fn prometheus_type(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge | Self::Info => "gauge",
        }
    }
}

/// The step in which a source counts; it decides how values are coded.
///
/// `/proc` counts in integers of some unit (jiffies, kilobytes, microseconds). Coding those
/// integers, not the floats that they become, is what makes a 1-second stream cheap and exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// The value is an integer divided by 10 to this power (0 to [`Resolution::DIGITS_MAX`]).
    Decimal(u8),
    /// A true float: every bit counts.
    Float,
}

impl Resolution {
    /// Integers: bytes, packets, pages, states.
    pub const ONE: Self = Self::Decimal(0);
    /// Hundredths: jiffies, load averages.
    pub const CENTI: Self = Self::Decimal(2);
    /// Thousandths: milliseconds, millidegrees.
    pub const MILLI: Self = Self::Decimal(3);
    /// Millionths: microseconds, ratios.
    pub const MICRO: Self = Self::Decimal(6);
    /// Billionths: nanoseconds.
    pub const NANO: Self = Self::Decimal(9);
    /// The most digits that [`Resolution::Decimal`] may carry.
    pub const DIGITS_MAX: u8 = 9;

    /// The divisor of a decimal resolution; 1 for floats and for digits out of range.
    #[must_use]
    #[inline]
    pub fn divisor(self) -> f64 {
        const POWERS: [f64; 10] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
        match self {
            Self::Decimal(digits) => POWERS.get(usize::from(digits)).copied().unwrap_or(1.0),
            Self::Float => 1.0,
        }
    }
}
