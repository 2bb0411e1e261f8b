use std::{fs, path::Path, sync::Arc};

use belfry_common::model::{Kind, Resolution, Timestamp};
use expect_test::expect;
use tempfile::TempDir;

use super::*;
use crate::render::output::{self, Color, Output};

const NOW: i64 = 1_700_000_000_000;

fn sample(second: i64, value: Result<f64, Option<Reason>>) -> Sample {
    Sample { time: Timestamp::from_millis(NOW + second * 1000), value }
}

fn labels(metric: &Metric, pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied().chain([("__name__", &*metric.name)]))
}

fn standard_output() -> Output {
    Output::new(output::Format::Table, Color::Never)
}

/// What a sink makes of two series: a gauge with every kind of value, and a counter.
fn write(format: Format, tier: Tier, directory: &TempDir) -> (std::path::PathBuf, Written) {
    let path = directory.path().join("out");
    let mut sink = sink(format, tier, Target::create(&path, standard_output()).unwrap()).unwrap();
    let power =
        Arc::new(Metric::new("gpu_power_watts", Kind::Gauge, Resolution::MILLI, &["gpu"], "Drawn \\ now.\n\"W\""));
    sink.series(&power, &labels(&power, &[("gpu", "a\"\\\n\u{1b}[2J"), ("instance", "n")])).unwrap();
    let last = [Ok(350.125), Err(Some(Reason::Lost)), Ok(f64::NAN), Ok(f64::NEG_INFINITY), Err(None)];
    let last: Vec<Sample> = (0..).zip(last).map(|(second, value)| sample(second, value)).collect();
    let columns = if tier == Tier::Raw { 1 } else { 5 };
    let (first, second) = last.split_at(2);
    sink.samples(&vec![first.to_vec(); columns]).unwrap();
    sink.samples(&vec![second.to_vec(); columns]).unwrap();
    let reads = Arc::new(Metric::new("reads_total", Kind::Counter, Resolution::ONE, &[], ""));
    sink.series(&reads, &labels(&reads, &[])).unwrap();
    sink.samples(&vec![vec![sample(0, Ok(1e21)), sample(1, Ok(0.1))]; columns]).unwrap();
    let (target, written) = sink.finish().unwrap();
    assert!(!path.exists(), "it appears when it is whole");
    target.finish().unwrap();
    (path, written)
}

fn check(format: Format, tier: Tier, expected: &expect_test::Expect) -> Written {
    let directory = tempfile::tempdir().unwrap();
    let (path, written) = write(format, tier, &directory);
    expected.assert_eq(&fs::read_to_string(path).unwrap().replace('\u{1b}', "<ESC>"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    written
}

#[test]
fn csv_has_a_row_for_each_sample_and_says_what_is_missing() {
    let written = check(
        Format::Csv,
        Tier::Raw,
        &expect![[r#"
        time,metric,labels,value,reason
        2023-11-14T22:13:20.000Z,gpu_power_watts,"{""gpu"":""a\""\\\n\u001b[2J"",""instance"":""n""}",350.125,
        2023-11-14T22:13:21.000Z,gpu_power_watts,"{""gpu"":""a\""\\\n\u001b[2J"",""instance"":""n""}",,lost
        2023-11-14T22:13:22.000Z,gpu_power_watts,"{""gpu"":""a\""\\\n\u001b[2J"",""instance"":""n""}",NaN,
        2023-11-14T22:13:23.000Z,gpu_power_watts,"{""gpu"":""a\""\\\n\u001b[2J"",""instance"":""n""}",-Inf,
        2023-11-14T22:13:24.000Z,gpu_power_watts,"{""gpu"":""a\""\\\n\u001b[2J"",""instance"":""n""}",,ended
        2023-11-14T22:13:20.000Z,reads_total,{},1e21,
        2023-11-14T22:13:21.000Z,reads_total,{},0.1,
    "#]],
    );
    assert_eq!(written, Written { samples: 7, left_out: 0 });
    check(
        Format::Csv,
        Tier::Minute,
        &expect![[r#"
        time,metric,labels,min,max,sum,count,last,reason
        2023-11-14T22:13:20.000Z,gpu_power_watts,"{""gpu"":""a\""\\\n\u001b[2J"",""instance"":""n""}",350.125,350.125,350.125,350.125,350.125,
        2023-11-14T22:13:21.000Z,gpu_power_watts,"{""gpu"":""a\""\\\n\u001b[2J"",""instance"":""n""}",,,,,,lost
        2023-11-14T22:13:22.000Z,gpu_power_watts,"{""gpu"":""a\""\\\n\u001b[2J"",""instance"":""n""}",NaN,NaN,NaN,NaN,NaN,
        2023-11-14T22:13:23.000Z,gpu_power_watts,"{""gpu"":""a\""\\\n\u001b[2J"",""instance"":""n""}",-Inf,-Inf,-Inf,-Inf,-Inf,
        2023-11-14T22:13:24.000Z,gpu_power_watts,"{""gpu"":""a\""\\\n\u001b[2J"",""instance"":""n""}",,,,,,ended
        2023-11-14T22:13:20.000Z,reads_total,{},1e21,1e21,1e21,1e21,1e21,
        2023-11-14T22:13:21.000Z,reads_total,{},0.1,0.1,0.1,0.1,0.1,
    "#]],
    );
}

#[test]
fn openmetrics_leaves_out_and_counts_what_it_cannot_say() {
    let written = check(
        Format::OpenMetrics,
        Tier::Raw,
        &expect![[r##"
        # TYPE gpu_power_watts gauge
        # HELP gpu_power_watts Drawn \\ now.\n\"W\"
        gpu_power_watts{gpu="a\"\\\n<ESC>[2J",instance="n"} 350.125 1700000000.000
        gpu_power_watts{gpu="a\"\\\n<ESC>[2J",instance="n"} NaN 1700000002.000
        gpu_power_watts{gpu="a\"\\\n<ESC>[2J",instance="n"} -Inf 1700000003.000
        # TYPE reads counter
        reads_total 1e21 1700000000.000
        reads_total 0.1 1700000001.000
        # EOF
    "##]],
    );
    assert_eq!(written, Written { samples: 5, left_out: 1 });
}

#[test]
fn what_is_not_finished_leaves_nothing_and_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out");
    fs::write(&path, "before").unwrap();
    let mut target = Target::create(&path, standard_output()).unwrap();
    io::Write::write_all(&mut target, b"half").unwrap();
    drop(target);
    assert_eq!(fs::read_to_string(&path).unwrap(), "before");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    let target = Target::create(Path::new("/dev/null"), standard_output()).unwrap();
    target.finish().unwrap();
    assert!(!Path::new("/dev/null").is_file(), "a device is written and not replaced");
}
