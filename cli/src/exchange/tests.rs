use std::{fs, path::Path, sync::Arc};

use belfry_common::model::{Kind, Resolution, Timestamp};
use expect_test::expect;
use proptest::prelude::*;
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

/// A time and the bits of a value, so that NaN is itself.
type Read = (i64, Result<u64, Option<Reason>>);

/// What a file says, by the text of the series.
#[derive(Debug, Default, PartialEq)]
struct Collected {
    series: Vec<SeriesText>,
    samples: Vec<Vec<Read>>,
}

impl Intake for Collected {
    fn series(&mut self, series: &SeriesText) -> anyhow::Result<Option<u32>> {
        self.series.push(series.clone());
        self.samples.push(Vec::new());
        Ok(Some(self.series.len() as u32 - 1))
    }

    fn sample(&mut self, series: u32, sample: Sample) -> anyhow::Result<()> {
        self.samples[series as usize].push((sample.time.as_millis(), sample.value.map(f64::to_bits)));
        Ok(())
    }
}

fn collected(format: Format, path: &Path) -> anyhow::Result<Collected> {
    let mut collected = Collected::default();
    read(format, path, &mut collected, &|_| ())?;
    Ok(collected)
}

type Content = Vec<(Vec<(String, String)>, Vec<(i64, Result<f64, Option<Reason>>)>)>;

fn content() -> impl Strategy<Value = Content> {
    let value = prop_oneof![
        4 => any::<f64>().prop_map(Ok),
        1 => Just(Ok(f64::NAN)),
        1 => (0..6_usize).prop_map(|at| Err(Some(Reason::ALL[at]))),
        1 => Just(Err(None)),
    ];
    let samples = proptest::collection::btree_map(0..99_999_999_999_999_i64, value, 0..20);
    let labels = proptest::collection::btree_map("[a-z_][a-z0-9]{0,4}", "\\PC{1,8}|[\"\\\\\n\u{1b}]{1,4}", 0..4);
    let series =
        (labels, samples).prop_map(|(labels, samples)| (labels.into_iter().collect(), samples.into_iter().collect()));
    proptest::collection::vec(series, 0..6).prop_map(|mut series: Content| {
        series.sort_by(|a, b| a.0.cmp(&b.0));
        series.dedup_by(|a, b| a.0 == b.0);
        series
    })
}

fn round_trip(format: Format, content: &Content) -> Collected {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out");
    let mut sink = sink(format, Tier::Raw, Target::create(&path, standard_output()).unwrap()).unwrap();
    let metric = Metric::new("m_total", Kind::Counter, Resolution::MICRO, &["a", "b"], "What\nit \\ is.");
    for (pairs, samples) in content {
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
        sink.series(&metric, &labels(&metric, &pairs)).unwrap();
        let samples = samples.iter().map(|&(time, value)| Sample { time: Timestamp::from_millis(time), value });
        sink.samples(&[samples.collect()]).unwrap();
    }
    sink.finish().unwrap().0.finish().unwrap();
    let collected = collected(format, &path).unwrap();
    for series in &collected.series {
        assert_eq!((&*series.metric, series.kind, &*series.help), ("m_total", Kind::Counter, "What\nit \\ is."));
    }
    collected
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn parquet_comes_back_whole(content in content()) {
        let collected = round_trip(Format::Parquet, &content);
        let found: Vec<_> = collected.series.iter().map(|series| series.labels.clone()).zip(collected.samples).collect();
        let bits = |(time, value): (i64, Result<f64, Option<Reason>>)| (time, value.map(f64::to_bits));
        let expected = content.into_iter().map(|(labels, samples)| (labels, samples.into_iter().map(bits).collect::<Vec<_>>()));
        // A series without samples is not in the file.
        prop_assert_eq!(found, expected.filter(|(_, samples)| !samples.is_empty()).collect::<Vec<_>>());
        let declared = collected.series.iter().all(|series| series.declared[0].resolution == Resolution::MICRO);
        prop_assert!(declared);
    }

    #[test]
    fn openmetrics_comes_back_without_what_is_missing(content in content()) {
        let collected = round_trip(Format::OpenMetrics, &content);
        let found: Vec<_> = collected.series.iter().map(|series| series.labels.clone()).zip(collected.samples).collect();
        // A NaN is any NaN.
        let same = |value: f64| if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
        let sample = |(time, value): (i64, Result<f64, Option<Reason>>)| Some((time, Ok(same(value.ok()?))));
        let expected = content.into_iter().map(|(labels, samples)| (labels, samples.into_iter().filter_map(sample).collect::<Vec<_>>()));
        prop_assert_eq!(found, expected.filter(|(_, samples)| !samples.is_empty()).collect::<Vec<_>>());
    }

    #[test]
    fn garbage_is_refused_or_read_and_never_panics(bytes: Vec<u8>, text in "[a-z{}\"=,\\\\ 0-9.#\n]{0,200}") {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("in");
        for content in [&bytes, text.as_bytes()] {
            fs::write(&path, content).unwrap();
            let _ = collected(Format::OpenMetrics, &path);
            let _ = collected(Format::Parquet, &path);
        }
    }
}

#[test]
fn a_cut_or_flipped_parquet_file_never_panics() {
    let directory = tempfile::tempdir().unwrap();
    let (path, _) = write(Format::Parquet, Tier::Raw, &directory);
    let whole = fs::read(&path).unwrap();
    assert_eq!(collected(Format::Parquet, &path).unwrap().samples.iter().map(Vec::len).collect::<Vec<_>>(), [5, 2]);
    for at in 0..whole.len() {
        fs::write(&path, &whole[..at]).unwrap();
        assert!(collected(Format::Parquet, &path).is_err(), "cut at {at}");
        let mut flipped = whole.clone();
        flipped[at] ^= 0x55;
        fs::write(&path, flipped).unwrap();
        let _ = collected(Format::Parquet, &path);
    }
}

fn refused(format: Format, content: &str, expected: &expect_test::Expect) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("in");
    fs::write(&path, content).unwrap();
    let error = collected(format, &path).unwrap_err();
    expected.assert_eq(&format!("{error:#}"));
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_line_and_what_to_do() {
    let text = |content: &str, expected: &expect_test::Expect| refused(Format::OpenMetrics, content, expected);
    text("a 1 1\n", &expect!["line 1: the file ends without `# EOF`: it was cut short, or is none of OpenMetrics"]);
    text(
        "a 1\n# EOF\n",
        &expect!["line 1: there is no time, and history needs one: seconds since 1970, behind the value"],
    );
    text("a{b=\"c} 1 1\n", &expect![[r#"line 1: the labels are not closed: a `}` or a `"` is missing"#]]);
    text("a{b=c} 1 1\n", &expect![[r#"line 1: the value of label "b" does not begin with `"`"#]]);
    text("a{b=\"1\",b=\"2\"} 1 1\n", &expect!["line 1: label `b` stands there twice"]);
    text("# TYPE a gauge\n\na x 1\n", &expect![[r#"line 3: "x" is no value"#]]);
    text(
        "a 1 1700000000000\n",
        &expect![[
            r#"line 1: time "1700000000000" is beyond the year 5000: OpenMetrics has seconds, Prometheus' older text milliseconds"#
        ]],
    );
    text(
        "a.b 1 1\n",
        &expect![[
            r#"line 1: metric name "a.b" is not valid: it must match [a-zA-Z_:][a-zA-Z0-9_:]* and have at most 200 characters"#
        ]],
    );
    text("# EOF\na 1 1\n", &expect!["line 2: behind `# EOF` there must be nothing: import the files one by one"]);
    text(&"x".repeat(70_000), &expect!["line 1: it is longer than 64 KiB: is this a text file?"]);
    refused(
        Format::Csv,
        "",
        &expect!["CSV is for people and spreadsheets, and cannot be imported: export as Parquet or OpenMetrics"],
    );
    refused(
        Format::Parquet,
        "PAR1",
        &expect!["it cannot be read as Parquet: EOF: Parquet file too small. Size is 4 but need 8"],
    );
    let directory = tempfile::tempdir().unwrap();
    let (path, _) = write(Format::Parquet, Tier::Minute, &directory);
    let error = collected(Format::Parquet, &path).unwrap_err().to_string();
    assert!(error.contains("export them without --tier"), "{error}");
}

#[test]
fn what_prometheus_writes_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("in");
    let text = "# HELP h A \\\"histogram\\\".\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 3 1700000000.5 # {trace=\"x\"} 1\n\
                # UNIT x seconds\n\nempty{} 1 1700000000\nfree{a=\"1\", b = \"\\\\ \\n \\\" \\t\",} +Inf 1.7e9\n# TYPE c counter\nc_total 5 1700000000\n# EOF\n";
    fs::write(&path, text).unwrap();
    let Collected { series, samples } = collected(Format::OpenMetrics, &path).unwrap();
    let kinds: Vec<_> = series.iter().map(|series| (series.text(), series.kind, &*series.help)).collect();
    let expected = [
        ("h_bucket{le=\"+Inf\"}".to_owned(), Kind::Counter, "A \"histogram\"."),
        ("empty{}".to_owned(), Kind::Gauge, ""),
        ("free{a=\"1\",b=\"\\\\ \\n \\\" \\\\t\"}".to_owned(), Kind::Gauge, ""),
        ("c_total{}".to_owned(), Kind::Counter, ""),
    ];
    assert_eq!(kinds, expected);
    let first: Vec<_> = samples.iter().map(|samples| (samples[0].0, samples[0].1.map(f64::from_bits))).collect();
    assert_eq!(first, [(NOW + 500, Ok(3.0)), (NOW, Ok(1.0)), (NOW, Ok(f64::INFINITY)), (NOW, Ok(5.0))]);
}
