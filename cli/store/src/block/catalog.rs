//! What a block holds: the section that is read first.
//!
//! ```text
//! catalog = first time signed · last time signed · readings varint · written at signed · flags varint (1: final)
//!           journal segment varint, 0 if none · blocks replaced: blocks varint, [ number − the one before, varint ]
//!           strings: section · axes: section
//!           nodes varint, [ number − the one before varint · series varint · readings varint · bytes varint ·
//!                           last time − the block's first varint ]
//!           metrics varint, [ metric · series varint · readings varint · data: offset varint · index: section ]
//! section = offset in the file varint · bytes varint · CRC u32
//! metric  = name · kind u8 (0 counter, 1 gauge, 2 info) · digits u8 (255: float) · labels varint, [ name ] · help
//!           (texts: bytes varint, UTF-8)
//! ```
//! Metrics are sorted by name, then label names, kind, digits; nodes by number.

use std::sync::Arc;

use belfry_common::model::{Kind, Metric, Resolution};

use super::bytes::{Bytes, Malformed, put_bytes, put_signed, put_varint};
use crate::NodeId;

/// A piece of the file with its own checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Section {
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
    pub(crate) crc: u32,
}

/// What a block has of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeEntry {
    /// Which.
    pub(crate) node: NodeId,
    /// Its series.
    pub(crate) series: u64,
    /// Its readings, missing ones included.
    pub(crate) readings: u64,
    /// Bytes of its columns.
    pub(crate) bytes: u64,
    /// Its last time, in milliseconds since 1970.
    pub(crate) last_ms: i64,
}

/// What a block has of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetricEntry {
    /// Its definition.
    pub(crate) metric: Arc<Metric>,
    /// Its series.
    pub(crate) series: u64,
    /// Their readings, missing ones included.
    pub(crate) readings: u64,
    /// Where its first page begins.
    pub(crate) data: u64,
    pub(crate) index: Section,
}

/// The first section that is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Catalog {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) readings: u64,
    /// When it was written.
    pub(crate) created: i64,
    /// Nothing more of its span is expected.
    pub(crate) is_final: bool,
    /// Everything in segments of the journal before this one is in blocks; 0 if the block does not know.
    pub(crate) journal_segment: u64,
    pub(crate) replaced: Vec<u64>,
    pub(crate) strings: Section,
    pub(crate) axes: Section,
    pub(crate) nodes: Vec<NodeEntry>,
    pub(crate) metrics: Vec<MetricEntry>,
}

const FINAL: u64 = 1;

impl Catalog {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_signed(self.first, &mut out);
        put_signed(self.last, &mut out);
        put_varint(self.readings, &mut out);
        put_signed(self.created, &mut out);
        put_varint(if self.is_final { FINAL } else { 0 }, &mut out);
        put_varint(self.journal_segment, &mut out);
        put_ascending(self.replaced.iter().copied(), &mut out);
        put_section(self.strings, &mut out);
        put_section(self.axes, &mut out);
        put_varint(self.nodes.len() as u64, &mut out);
        let mut before = 0;
        for node in &self.nodes {
            put_varint(u64::from(node.node.0 - before), &mut out);
            put_varint(node.series, &mut out);
            put_varint(node.readings, &mut out);
            put_varint(node.bytes, &mut out);
            put_varint(node.last_ms.wrapping_sub(self.first).cast_unsigned(), &mut out);
            before = node.node.0;
        }
        put_varint(self.metrics.len() as u64, &mut out);
        for entry in &self.metrics {
            put_metric(&entry.metric, &mut out);
            put_varint(entry.series, &mut out);
            put_varint(entry.readings, &mut out);
            put_varint(entry.data, &mut out);
            put_section(entry.index, &mut out);
        }
        out
    }

    pub(crate) fn parse(section: &[u8]) -> Result<Self, Malformed> {
        let mut bytes = Bytes(section);
        let mut catalog = Self {
            first: bytes.signed()?,
            last: bytes.signed()?,
            readings: bytes.varint()?,
            created: bytes.signed()?,
            is_final: bytes.varint()? & FINAL != 0,
            journal_segment: bytes.varint()?,
            replaced: take_ascending(&mut bytes)?,
            strings: take_section(&mut bytes)?,
            axes: take_section(&mut bytes)?,
            ..Self::default()
        };
        let mut before = 0_u32;
        for _ in 0..bytes.count()? {
            before = before.checked_add(bytes.u32()?).ok_or(Malformed)?;
            catalog.nodes.push(NodeEntry {
                node: NodeId(before),
                series: bytes.varint()?,
                readings: bytes.varint()?,
                bytes: bytes.varint()?,
                last_ms: catalog.first.wrapping_add(bytes.varint()?.cast_signed()),
            });
        }
        for _ in 0..bytes.count()? {
            catalog.metrics.push(MetricEntry {
                metric: Arc::new(take_metric(&mut bytes)?),
                series: bytes.varint()?,
                readings: bytes.varint()?,
                data: bytes.varint()?,
                index: take_section(&mut bytes)?,
            });
        }
        bytes.end()?;
        Ok(catalog)
    }

    /// What it occupies, roughly.
    pub(crate) fn bytes(&self) -> usize {
        let metric = |entry: &MetricEntry| size_of::<MetricEntry>() + metric_bytes(&entry.metric);
        self.nodes.len() * size_of::<NodeEntry>() + self.metrics.iter().map(metric).sum::<usize>()
    }

    pub(crate) fn has_node(&self, node: NodeId) -> bool {
        self.nodes.binary_search_by_key(&node, |entry| entry.node).is_ok()
    }
}

fn metric_bytes(metric: &Metric) -> usize {
    let labels: usize = metric.label_names.iter().map(|name| name.len() + size_of::<Box<str>>()).sum();
    size_of::<Metric>() + metric.name.len() + metric.help.len() + labels
}

/// The order of metrics in a block. Two that differ in their help alone are the same.
pub(crate) fn metric_order(a: &Metric, b: &Metric) -> std::cmp::Ordering {
    let key = |metric: &Metric| (kind_code(metric.kind), digits_code(metric.resolution));
    (&a.name, &a.label_names).cmp(&(&b.name, &b.label_names)).then_with(|| key(a).cmp(&key(b)))
}

fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::Counter => 0,
        Kind::Gauge => 1,
        Kind::Info => 2,
    }
}

const FLOAT: u8 = 255;

fn digits_code(resolution: Resolution) -> u8 {
    match resolution {
        Resolution::Decimal(digits) => digits,
        Resolution::Float => FLOAT,
    }
}

fn put_metric(metric: &Metric, out: &mut Vec<u8>) {
    put_bytes(metric.name.as_bytes(), out);
    out.push(kind_code(metric.kind));
    out.push(digits_code(metric.resolution));
    put_varint(metric.label_names.len() as u64, out);
    metric.label_names.iter().for_each(|name| put_bytes(name.as_bytes(), out));
    put_bytes(metric.help.as_bytes(), out);
}

fn take_metric(bytes: &mut Bytes<'_>) -> Result<Metric, Malformed> {
    let name = bytes.text()?.into();
    let kind = match bytes.u8()? {
        0 => Kind::Counter,
        1 => Kind::Gauge,
        2 => Kind::Info,
        _ => return Err(Malformed),
    };
    let resolution = match bytes.u8()? {
        FLOAT => Resolution::Float,
        digits if digits <= Resolution::DIGITS_MAX => Resolution::Decimal(digits),
        _ => return Err(Malformed),
    };
    let label_names = (0..bytes.count()?).map(|_| bytes.text().map(Into::into)).collect::<Result<_, _>>()?;
    Ok(Metric { name, kind, resolution, label_names, help: bytes.text()?.into() })
}

fn put_section(section: Section, out: &mut Vec<u8>) {
    put_varint(section.offset, out);
    put_varint(u64::from(section.bytes), out);
    out.extend_from_slice(&section.crc.to_le_bytes());
}

fn take_section(bytes: &mut Bytes<'_>) -> Result<Section, Malformed> {
    Ok(Section { offset: bytes.varint()?, bytes: bytes.u32()?, crc: bytes.u32_le()? })
}

fn put_ascending(numbers: impl ExactSizeIterator<Item = u64>, out: &mut Vec<u8>) {
    put_varint(numbers.len() as u64, out);
    let mut before = 0;
    for number in numbers {
        put_varint(number.wrapping_sub(before), out);
        before = number;
    }
}

fn take_ascending(bytes: &mut Bytes<'_>) -> Result<Vec<u64>, Malformed> {
    let mut before = 0_u64;
    let mut next = |bytes: &mut Bytes<'_>| {
        before = before.wrapping_add(bytes.varint()?);
        Ok(before)
    };
    (0..bytes.count()?).map(|_| next(bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        let section = |offset| Section { offset, bytes: 7, crc: 0x0102_0304 };
        let metric =
            |name, resolution, labels: &[&str]| Arc::new(Metric::new(name, Kind::Gauge, resolution, labels, "Help."));
        let entry = |metric| MetricEntry { metric, series: 3, readings: 300, data: 64, index: section(5000) };
        Catalog {
            first: -5,
            last: 1_780_000_000_000,
            readings: 1 << 40,
            created: 1_780_000_000_001,
            is_final: true,
            journal_segment: 9,
            replaced: vec![3, 4, 900],
            strings: section(1),
            axes: section(1 << 40),
            nodes: [1, 2, u32::MAX]
                .map(|node| NodeEntry { node: NodeId(node), series: 5, readings: 6, bytes: 7, last_ms: 8 })
                .to_vec(),
            metrics: vec![
                entry(metric("a", Resolution::Float, &[])),
                entry(metric("a", Resolution::MICRO, &["gpu", "uuid"])),
            ],
        }
    }

    #[test]
    fn a_catalog_comes_back_and_is_refused_when_cut_short() {
        let section = catalog().encode();
        assert_eq!(Catalog::parse(&section), Ok(catalog()));
        for end in 0..section.len() {
            assert_eq!(Catalog::parse(&section[..end]), Err(Malformed));
        }
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = Catalog::parse(&bytes);
        }
    }
}
