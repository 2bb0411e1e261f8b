//! One metric's series in a block, and where their chunks are.
//!
//! ```text
//! index = definitions varint
//!         for each label of the metric: definitions × [ string − that of the definition before, signed ]
//!         for each definition: nodes varint, [ node − the one before varint ]
//!         for each series (definition by definition, node by node): chunks varint, [ axis − that of the chunk before, signed ]
//!         pages varint, [ chunks varint ]
//!         for each column: for each chunk: bytes varint · for each page: CRC u32
//! ```
//! A definition is the values of the metric's labels; definitions ascend by them, and so do series by definition and node. A series'
//! chunks ascend in time. A page holds one column of a run of chunks, one behind the other; the pages of all columns of a run stand
//! together, in the order of the columns, the first at the offset that the catalog tells.

use super::bytes::{Bytes, Malformed, put_signed, put_varint};
use crate::NodeId;

/// Where a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
    pub(crate) crc: u32,
}

/// An index while its metric is written.
#[derive(Debug, Default)]
pub(crate) struct IndexBuilder {
    labels: Vec<Vec<u32>>,
    nodes_of: Vec<Vec<NodeId>>,
    /// Of each series.
    chunks: Vec<u32>,
    axes: Vec<u32>,
    page_chunks: Vec<u32>,
    columns: Vec<ColumnBuilder>,
}

#[derive(Debug, Default)]
struct ColumnBuilder {
    bytes: Vec<u32>,
    crcs: Vec<u32>,
}

/// A series that is not behind the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfOrder;

impl IndexBuilder {
    pub(crate) fn new(labels: usize, columns: usize) -> Self {
        let column = || ColumnBuilder::default();
        Self {
            labels: vec![Vec::new(); labels],
            columns: std::iter::repeat_with(column).take(columns).collect(),
            ..Self::default()
        }
    }

    /// Begins a series.
    pub(crate) fn series(&mut self, labels: &[u32], node: NodeId) -> Result<(), OutOfOrder> {
        let before = self.labels.iter().map(|column| column.last());
        let is_same = !self.nodes_of.is_empty() && before.clone().eq(labels.iter().map(Some));
        if is_same {
            let nodes = self.nodes_of.last_mut().filter(|nodes| nodes.last() < Some(&node)).ok_or(OutOfOrder)?;
            nodes.push(node);
        } else {
            let is_behind = self.nodes_of.is_empty() || before.lt(labels.iter().map(Some));
            if !is_behind || labels.len() != self.labels.len() {
                return Err(OutOfOrder);
            }
            self.labels.iter_mut().zip(labels).for_each(|(column, &label)| column.push(label));
            self.nodes_of.push(vec![node]);
        }
        self.chunks.push(0);
        Ok(())
    }

    /// Adds a chunk to the series begun last; one length for each column.
    pub(crate) fn chunk(&mut self, axis: u32, bytes: impl Iterator<Item = u32>) {
        if let Some(chunks) = self.chunks.last_mut() {
            *chunks += 1;
        }
        self.axes.push(axis);
        self.columns.iter_mut().zip(bytes).for_each(|(column, bytes)| column.bytes.push(bytes));
    }

    /// Ends a run of chunks; one checksum for each column's page.
    pub(crate) fn page(&mut self, chunks: u32, crcs: impl Iterator<Item = u32>) {
        self.page_chunks.push(chunks);
        self.columns.iter_mut().zip(crcs).for_each(|(column, crc)| column.crcs.push(crc));
    }

    pub(crate) fn series_count(&self) -> u64 {
        self.chunks.len() as u64
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(self.nodes_of.len() as u64, &mut out);
        self.labels.iter().for_each(|column| put_differences(column, &mut out));
        for nodes in &self.nodes_of {
            put_varint(nodes.len() as u64, &mut out);
            let mut before = 0;
            for node in nodes {
                put_varint(u64::from(node.0 - before), &mut out);
                before = node.0;
            }
        }
        let mut axes = self.axes.iter();
        let mut before = 0;
        for &chunks in &self.chunks {
            put_varint(u64::from(chunks), &mut out);
            for &axis in axes.by_ref().take(chunks as usize) {
                put_signed(i64::from(axis) - i64::from(before), &mut out);
                before = axis;
            }
        }
        put_varint(self.page_chunks.len() as u64, &mut out);
        self.page_chunks.iter().for_each(|&chunks| put_varint(u64::from(chunks), &mut out));
        for column in &self.columns {
            column.bytes.iter().for_each(|&bytes| put_varint(u64::from(bytes), &mut out));
            column.crcs.iter().for_each(|crc| out.extend_from_slice(&crc.to_le_bytes()));
        }
        out
    }
}

fn put_differences(numbers: &[u32], out: &mut Vec<u8>) {
    let mut before = 0;
    for &number in numbers {
        put_signed(i64::from(number) - i64::from(before), out);
        before = number;
    }
}

fn add_difference(before: u32, difference: i64) -> Result<u32, Malformed> {
    u32::try_from(i64::from(before).checked_add(difference).ok_or(Malformed)?).map_err(|_| Malformed)
}

/// An index as it is read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MetricIndex {
    /// One for each label, with a number of a string for each definition.
    labels: Vec<Vec<u32>>,
    /// Where the series of each definition begin, and the end.
    series_of: Vec<u32>,
    nodes: Vec<NodeId>,
    /// Where the chunks of each series begin, and the end.
    chunks_of: Vec<u32>,
    axes: Vec<u32>,
    /// The first chunk of each page, and the end.
    pages: Vec<u32>,
    columns: Vec<ColumnIndex>,
}

#[derive(Debug, PartialEq, Eq)]
struct ColumnIndex {
    /// Where each chunk begins in its page.
    starts: Vec<u32>,
    pages: Vec<Page>,
}

/// A run of numbers.
pub(crate) type Run = std::ops::Range<u32>;

impl MetricIndex {
    /// Reads the section of a metric with as many labels, in a block with as many columns, whose pages begin at `offset` and have each so many
    /// bytes more than is in them.
    ///
    /// # Errors
    /// [`Malformed`]
    pub(crate) fn parse(
        section: &[u8],
        labels: usize,
        columns: usize,
        (offset, tag_bytes): (u64, u32),
    ) -> Result<Self, Malformed> {
        let mut bytes = Bytes(section);
        let definitions = bytes.count()?;
        let labels = (0..labels).map(|_| differences(&mut bytes, definitions)).collect::<Result<_, _>>()?;
        let (mut series_of, mut nodes) = (vec![0], Vec::new());
        for _ in 0..definitions {
            let mut before = 0_u32;
            for _ in 0..bytes.count()? {
                before = before.checked_add(bytes.u32()?).ok_or(Malformed)?;
                nodes.push(NodeId(before));
            }
            series_of.push(nodes.len() as u32);
        }
        let (mut chunks_of, mut axes) = (vec![0], Vec::new());
        let mut before = 0;
        for _ in 0..nodes.len() {
            for _ in 0..bytes.count()? {
                before = add_difference(before, bytes.signed()?)?;
                axes.push(before);
            }
            chunks_of.push(axes.len() as u32);
        }
        let mut pages = vec![0_u32];
        let mut end = 0_u32;
        for _ in 0..bytes.count()? {
            end = end.checked_add(bytes.u32()?).ok_or(Malformed)?;
            pages.push(end);
        }
        if end as usize != axes.len() {
            return Err(Malformed);
        }
        let columns = (0..columns).map(|_| ColumnIndex::take(&mut bytes, &pages)).collect::<Result<_, _>>()?;
        bytes.end()?;
        let mut index = Self { labels, series_of, nodes, chunks_of, axes, pages, columns };
        index.place_pages(offset, tag_bytes)?;
        Ok(index)
    }

    fn place_pages(&mut self, mut offset: u64, tag_bytes: u32) -> Result<(), Malformed> {
        for page in 0..self.pages.len() - 1 {
            for column in &mut self.columns {
                let page = column.pages.get_mut(page).ok_or(Malformed)?;
                page.offset = offset;
                offset = offset.checked_add(u64::from(page.bytes) + u64::from(tag_bytes)).ok_or(Malformed)?;
            }
        }
        Ok(())
    }

    pub(crate) fn definitions(&self) -> u32 {
        self.series_of.len() as u32 - 1
    }

    /// The string of a definition's label, by the label's place in the metric.
    pub(crate) fn label(&self, definition: u32, label: usize) -> Option<u32> {
        self.labels.get(label)?.get(definition as usize).copied()
    }

    pub(crate) fn label_count(&self) -> usize {
        self.labels.len()
    }

    /// The series of a definition.
    pub(crate) fn series_of(&self, definition: u32) -> Run {
        run(&self.series_of, definition)
    }

    pub(crate) fn nodes(&self, series: Run) -> &[NodeId] {
        self.nodes.get(series.start as usize..series.end as usize).unwrap_or_default()
    }

    /// The chunks of a series.
    pub(crate) fn chunks_of(&self, series: u32) -> Run {
        run(&self.chunks_of, series)
    }

    pub(crate) fn axis(&self, chunk: u32) -> Option<u32> {
        self.axes.get(chunk as usize).copied()
    }

    /// The page of a chunk, and the chunk's range in it.
    pub(crate) fn locate(&self, column: usize, chunk: u32) -> Option<(Page, std::ops::Range<usize>)> {
        let column = self.columns.get(column)?;
        let number = self.pages.partition_point(|&first| first <= chunk).checked_sub(1)?;
        let page = column.pages.get(number)?;
        let start = *column.starts.get(chunk as usize)?;
        let is_last = self.pages.get(number + 1) == Some(&(chunk + 1));
        let end = if is_last { page.bytes } else { *column.starts.get(chunk as usize + 1)? };
        Some((*page, start as usize..end as usize))
    }

    /// All pages, in the order of the file.
    pub(crate) fn pages(&self) -> impl Iterator<Item = Page> {
        (0..self.pages.len() - 1)
            .flat_map(|page| self.columns.iter().filter_map(move |column| column.pages.get(page)).copied())
    }

    /// What it occupies.
    pub(crate) fn bytes(&self) -> usize {
        let definitions = self.series_of.len() * (self.labels.len() + 1) * 4;
        let chunks = self.axes.len() * (1 + self.columns.len()) * 4;
        let pages = self.pages.len() * (4 + self.columns.len() * size_of::<Page>());
        definitions + self.nodes.len() * 8 + chunks + pages
    }
}

fn run(starts: &[u32], at: u32) -> Run {
    let at = at as usize;
    match (starts.get(at), starts.get(at + 1)) {
        (Some(&start), Some(&end)) => start..end,
        _ => 0..0,
    }
}

fn differences(bytes: &mut Bytes<'_>, count: usize) -> Result<Vec<u32>, Malformed> {
    let mut before = 0;
    let mut numbers = Vec::with_capacity(count);
    for _ in 0..count {
        before = add_difference(before, bytes.signed()?)?;
        numbers.push(before);
    }
    Ok(numbers)
}

impl ColumnIndex {
    fn take(bytes: &mut Bytes<'_>, page_ends: &[u32]) -> Result<Self, Malformed> {
        let chunks = page_ends.last().copied().unwrap_or(0) as usize;
        let mut starts = Vec::with_capacity(chunks);
        let mut pages = Vec::with_capacity(page_ends.len() - 1);
        for pair in page_ends.windows(2) {
            let [first, end] = *pair else { continue };
            let mut start = 0_u32;
            for _ in first..end {
                starts.push(start);
                start = start.checked_add(bytes.u32()?).ok_or(Malformed)?;
            }
            pages.push(Page { offset: 0, bytes: start, crc: 0 });
        }
        for page in &mut pages {
            page.crc = bytes.u32_le()?;
        }
        Ok(Self { starts, pages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two labels, two columns, three series of two definitions, of which the second has two chunks.
    fn builder() -> IndexBuilder {
        let mut index = IndexBuilder::new(2, 2);
        index.series(&[4, 9], NodeId(1)).unwrap();
        index.chunk(0, [10, 20].into_iter());
        index.series(&[4, 9], NodeId(7)).unwrap();
        index.chunk(1, [11, 21].into_iter());
        index.chunk(0, [12, 22].into_iter());
        index.page(3, [0xA0, 0xA1].into_iter());
        index.series(&[5, 2], NodeId(3)).unwrap();
        index.chunk(2, [13, 23].into_iter());
        index.page(1, [0xB0, 0xB1].into_iter());
        index
    }

    #[test]
    fn series_and_chunks_are_found_again() {
        let index = MetricIndex::parse(&builder().encode(), 2, 2, (1000, 0)).unwrap();
        assert_eq!(index.definitions(), 2);
        assert_eq!((index.label(1, 0), index.label(1, 1), index.label(2, 0)), (Some(5), Some(2), None));
        assert_eq!(index.nodes(index.series_of(0)), [NodeId(1), NodeId(7)]);
        assert_eq!((index.series_of(1), index.chunks_of(1), index.axis(2)), (2..3, 1..3, Some(0)));
        let page = |offset, bytes, crc| Page { offset, bytes, crc };
        let first = [page(1000, 33, 0xA0), page(1033, 63, 0xA1)];
        let second = [page(1096, 13, 0xB0), page(1109, 23, 0xB1)];
        assert_eq!(index.pages().collect::<Vec<_>>(), [first, second].concat());
        assert_eq!(index.locate(0, 0), Some((first[0], 0..10)));
        assert_eq!(index.locate(1, 2), Some((first[1], 41..63)));
        assert_eq!(index.locate(1, 3), Some((second[1], 0..23)));
        assert_eq!(index.locate(0, 4), None);
    }

    #[test]
    fn an_index_cut_short_is_refused() {
        let section = builder().encode();
        for end in 0..section.len() {
            assert_eq!(MetricIndex::parse(&section[..end], 2, 2, (0, 0)), Err(Malformed));
        }
    }

    #[test]
    fn series_come_in_order() {
        let mut index = builder();
        assert_eq!(index.series(&[5, 2], NodeId(3)), Err(OutOfOrder));
        assert_eq!(index.series(&[5, 1], NodeId(9)), Err(OutOfOrder));
        assert_eq!(index.series(&[5], NodeId(9)), Err(OutOfOrder));
        assert_eq!(index.series(&[5, 2], NodeId(4)), Ok(()));
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, labels in 0..3_usize, columns in 0..6_usize) {
            let _ = MetricIndex::parse(&bytes, labels, columns, (u64::MAX - 50, 16));
        }
    }
}
