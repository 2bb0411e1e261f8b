use std::{collections::BTreeMap, sync::Arc};

use belfry_common::{
    model::{Kind, Metric, Raw, Reason, Resolution, SeriesDefinition, Timestamp},
    storage::{Storage, simulated::Simulated},
};

use super::*;
use crate::{
    Keys, NodeId,
    selection::{Condition, Selection, TimeRange},
    shelf::Shelf,
};

mod damage;
mod golden;

/// Series by metric, labels and node, with their times and readings.
type Content = BTreeMap<(String, Vec<String>, u32), (Vec<i64>, Vec<Raw>)>;

const MINUTE: i64 = 60_000;

fn metric(name: &str) -> Arc<Metric> {
    let resolution = if name == "load" { Resolution::Float } else { Resolution::CENTI };
    let labels: &[&str] = if name == "power" { &["gpu", "uuid"] } else { &[] };
    Arc::new(Metric::new(name, Kind::Gauge, resolution, labels, "Help."))
}

/// Two nodes with two GPUs each and a load, for so many seconds; a reading is missing, and one GPU goes.
fn content(seconds: i64) -> Content {
    let times: Vec<i64> = (0..seconds).map(|second| MINUTE + second * 1000).collect();
    let mut content = Content::new();
    for node in [1, 7] {
        for gpu in 0..2 {
            let labels = vec![gpu.to_string(), format!("GPU-{node}-{gpu}")];
            let value = |second: i64| match (second, gpu) {
                (3, _) => Raw::missing(Reason::Timeout),
                (_, 1) if second == seconds - 1 => ENDED,
                _ => Raw::integer(30_000 + second * second % 701 + i64::from(node)),
            };
            let readings = (0..seconds).map(value).collect();
            content.insert(("power".into(), labels, node), (times.clone(), readings));
        }
        let readings = (0..seconds).map(|second| Raw::float(1.0 / (second + 1) as f64)).collect();
        content.insert(("load".into(), Vec::new(), node), (times.clone(), readings));
    }
    content
}

/// Puts series with these columns, which are alike in all but readings.
fn put(writer: &mut BlockWriter<'_>, strings: &Strings, tier: Tier, columns: &[Content]) -> Result<Origin, BlockError> {
    let mut open = String::new();
    for (key, (times, _)) in &columns[0] {
        let (name, labels, node) = key;
        let metric = metric(name);
        if *name != open {
            writer.metric(&metric)?;
            open.clone_from(name);
        }
        let labels: Vec<u32> =
            labels.iter().map(|label| strings.iter().position(|known| known == label).unwrap() as u32).collect();
        writer.series(&labels, NodeId(*node))?;
        let axis = writer.axis(times);
        let encoded = columns.iter().enumerate().map(|(column, content)| {
            let (_, readings) = &content[key];
            let mut encoded = Vec::new();
            encode_column(column_resolution(tier, column, metric.resolution), readings, &mut encoded);
            encoded
        });
        let encoded: Vec<Vec<u8>> = encoded.collect();
        writer.chunk(axis, times.len() as u64, &encoded)?;
    }
    Ok(Origin::default())
}

fn write(shelf: &Shelf, content: &Content, replaced: &[u64]) -> Result<Arc<Block>, BlockError> {
    write_columns(shelf, Tier::Raw, std::slice::from_ref(content), replaced)
}

fn write_columns(shelf: &Shelf, tier: Tier, columns: &[Content], replaced: &[u64]) -> Result<Arc<Block>, BlockError> {
    let strings = Strings::new(columns[0].keys().flat_map(|(_, labels, _)| labels.iter().map(String::as_str)));
    shelf.write(tier, &strings, &|_| Ok(()), |writer| {
        put(writer, &strings, tier, columns)?;
        Ok(Origin { journal_segment: 5, replaced: replaced.to_vec(), created: 99, is_final: true })
    })
}

fn shelf(disk: &Simulated) -> Shelf {
    Shelf::open(Arc::new(disk.clone()), &Keys::default(), 1 << 20).unwrap().0
}

fn all(filter: &(dyn Fn(&SeriesDefinition) -> bool + Sync)) -> Selection<'_> {
    let range = TimeRange { after: Timestamp::from_millis(-1), until: Timestamp::from_millis(i64::MAX) };
    Selection { filter, range, ..Selection::ALL }
}

/// All that a block holds, read as a query does.
fn read(block: &Arc<Block>, selection: &Selection<'_>) -> Result<Content, BlockError> {
    read_column(block, selection, 0)
}

fn read_column(block: &Arc<Block>, selection: &Selection<'_>, column: usize) -> Result<Content, BlockError> {
    let catalog = block.catalog()?;
    let axes = block.axes(&catalog)?;
    let mut pages = PageReader::new(Arc::clone(block));
    let mut content = Content::new();
    for FoundMetric { index, series, .. } in block.find(selection, None)? {
        for FoundSeries { definition, node, number } in series {
            let (mut times, mut readings) = (Vec::new(), Vec::new());
            for chunk in index.chunks_of(number) {
                let of_axis = axes.times(index.axis(chunk).unwrap()).unwrap();
                let resolution = column_resolution(block.summary().tier, column, definition.metric.resolution);
                pages.readings(&index, (column, chunk), resolution, of_axis.len(), &mut readings)?;
                times.extend(of_axis);
            }
            let labels = definition.label_values.iter().map(ToString::to_string).collect();
            content.insert((definition.metric.name.to_string(), labels, node.0), (times, readings));
        }
    }
    Ok(content)
}

#[test]
fn what_is_written_is_read_back() {
    for seconds in [1, 5, 700] {
        let disk = Simulated::new(1);
        let shelf = shelf(&disk);
        let block = write(&shelf, &content(seconds), &[]).unwrap();
        assert_eq!(read(&block, &all(&|_| true)).unwrap(), content(seconds));
        block.verify(&|_| Ok(())).unwrap();
        let summary = block.summary();
        assert_eq!((summary.first_ms, summary.last_ms), (MINUTE, MINUTE + (seconds - 1) * 1000));
        assert_eq!((summary.series, summary.readings, summary.journal_segment), (6, 6 * seconds as u64, 5));
        let catalog = block.catalog().unwrap();
        let nodes: Vec<_> = catalog.nodes.iter().map(|entry| (entry.node.0, entry.series, entry.readings)).collect();
        assert_eq!(nodes, [(1, 3, 3 * seconds as u64), (7, 3, 3 * seconds as u64)]);
    }
}

#[test]
fn series_are_found_by_name_labels_and_node() {
    let disk = Simulated::new(1);
    let block = write(&shelf(&disk), &content(10), &[]).unwrap();
    let find = |metric, conditions: &[Condition<'_>], nodes: Option<&[NodeId]>| {
        let selection = Selection { metric, conditions, ..all(&|_| true) };
        let found = block.find(&selection, nodes).unwrap();
        let series = found.iter().flat_map(|found| &found.series);
        series
            .map(|found| format!("{}{:?}@{}", found.definition.metric.name, found.definition.label_values, found.node))
            .collect::<Vec<_>>()
    };
    let condition = |label, fits| Condition { label, fits };
    assert_eq!(find(Some("load"), &[], None), ["load[]@1", "load[]@7"]);
    assert_eq!(find(Some("loa"), &[], None), Vec::<String>::new());
    assert_eq!(
        find(None, &[condition("gpu", &|gpu| gpu == "1")], None),
        [r#"power["1", "GPU-1-1"]@1"#, r#"power["1", "GPU-7-1"]@7"#]
    );
    // What has no such label has the empty value.
    assert_eq!(
        find(None, &[condition("gpu", &|gpu| gpu != "1")], Some(&[NodeId(7)])),
        ["load[]@7", r#"power["0", "GPU-7-0"]@7"#]
    );
    assert_eq!(
        find(None, &[condition("__name__", &|name| name.starts_with('p'))], Some(&[NodeId(2)])),
        Vec::<String>::new()
    );
    assert_eq!(find(None, &[condition("__name__", &|name| name.starts_with('l'))], None).len(), 2);
}

#[test]
fn a_block_takes_the_place_of_those_it_replaces_and_readers_keep_what_they_have() {
    let disk = Simulated::new(1);
    let shelf = shelf(&disk);
    let first = write(&shelf, &content(10), &[]).unwrap();
    let second = write(&shelf, &content(20), &[first.number()]).unwrap();
    assert_eq!(shelf.blocks().iter().map(|block| block.number()).collect::<Vec<_>>(), [second.number()]);
    assert_eq!(read(&first, &all(&|_| true)).unwrap(), content(10));
    let names = |disk: &Simulated| disk.names().into_iter().filter(|name| name.ends_with("block")).count();
    assert_eq!(names(&disk), 2);
    drop(first);
    assert_eq!(names(&disk), 1);
}
