use std::sync::Arc;

use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::{
    limits,
    model::{Batch, Kind, Metric, Raw, Reason, Resolution, SeriesDefinition, Tick, Timestamp},
    wire::message::{self, Definitions, LayoutDefinition, MetricDefinition, SeriesRun},
};

fn layout(group: u16, devices: &[&str]) -> Arc<Layout> {
    let count = Arc::new(Metric::new("reads_total", Kind::Counter, Resolution::ONE, &["device"], "Reads."));
    let ratio = Arc::new(Metric::new("busy_ratio", Kind::Gauge, Resolution::Float, &["device"], "Share of time."));
    let series = devices
        .iter()
        .flat_map(|&device| [(&count, device), (&ratio, device)])
        .map(|(metric, device)| {
            Arc::new(SeriesDefinition { metric: Arc::clone(metric), label_values: Box::new([device.into()]) })
        })
        .collect();
    Arc::new(Layout { group, sampler: "disk".into(), interval_ms: 1000, series })
}

fn tick(layout: &Arc<Layout>, time: i64, values: &[Raw]) -> Tick {
    Tick { layout: Arc::clone(layout), time: Timestamp::from_millis(time), values: values.to_vec() }
}

fn sample_batches() -> Vec<Batch> {
    let (one, two) = (layout(1, &["sda"]), layout(1, &["sda", "sdb"]));
    let other = layout(7, &["x"]);
    let (n, f) = (Raw::integer, Raw::float);
    let gone = Raw::missing(Reason::Lost);
    vec![
        Batch { ticks: vec![tick(&one, 1_000_000, &[n(5), f(0.25)]), tick(&other, 1_000_003, &[n(-1), f(f64::NAN)])] },
        Batch { ticks: vec![tick(&one, 1_001_000, &[n(9), gone])] },
        Batch { ticks: vec![tick(&two, 1_002_000, &[n(9), gone, n(1 << 50), f(-0.0)])] },
        Batch { ticks: vec![tick(&two, 1_003_000, &[gone, f(0.5), n(0), f(1e300)]), tick(&other, 2, &[n(3), f(0.1)])] },
        Batch { ticks: vec![] },
        Batch { ticks: vec![tick(&one, 1_005_000, &[n(10), f(0.5)])] },
    ]
}

fn bodies(batches: &[Batch]) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new();
    let encode = |batch| {
        let mut body = Vec::new();
        encoder.encode(batch, &mut body).unwrap();
        body
    };
    batches.iter().map(encode).collect()
}

#[test]
fn batches_come_back() {
    let batches = sample_batches();
    let mut decoder = Decoder::new();
    for (body, batch) in bodies(&batches).iter().zip(&batches) {
        assert_eq!(&decoder.decode(body).unwrap(), batch);
    }
}

#[test]
fn golden() {
    let hex: Vec<String> =
        bodies(&sample_batches()).iter().map(|body| body.iter().map(|b| format!("{b:02x}")).collect()).collect();
    expect![[r#"
        036f000000020b72656164735f746f74616c000001066465766963650652656164732e0a627573795f726174696f01ff01066465766963650e5368617265206f662074696d652e0201046469736bfbe80302010001037364610101010373646107046469736bfbe80302010001017801010101780100800224f400984efa0f00009421a1e779f97f
        00010040817e20900002
        021d000000000101046469736bfbe8030300000201000103736462010101037364620304008019000000000000ff40
        000f041000d2c1000020ffffffffffffbfd09f7500883ce437fe0400002a90d00338e89b9999999999414000
        0000
        020f000000000101046469736bfbe80301000002010040817e20000c"#]].assert_eq(&hex.join("\n"));
}

/// As [`bodies`], with the layouts that they name.
fn numbered_bodies(batches: &[Batch]) -> (Vec<Vec<u8>>, Vec<Arc<Layout>>) {
    let (mut encoder, mut layouts) = (Encoder::new(), Vec::<Arc<Layout>>::new());
    let body = |batch: &Batch| {
        let mut body = Vec::new();
        let number = |layout: &Arc<Layout>| {
            let known = layouts.iter().position(|known| known == layout);
            known.unwrap_or_else(|| {
                layouts.push(Arc::clone(layout));
                layouts.len() - 1
            }) as u32
        };
        encoder.encode_by_number(batch, number, &mut body).unwrap();
        body
    };
    (batches.iter().map(body).collect(), layouts)
}

#[test]
fn bodies_that_name_layouts_come_back_where_these_are_known() {
    let batches = sample_batches();
    let (bodies, layouts) = numbered_bodies(&batches);
    let layouts: Vec<Arc<Layout>> = layouts.iter().map(written_and_read).collect();
    let layouts = |number: u32| layouts.get(number as usize).cloned();
    let mut decoder = Decoder::new();
    for (body, batch) in bodies.iter().zip(&batches) {
        assert_eq!(&decoder.decode_by_number(body, &layouts).unwrap(), batch);
    }
    let first = &bodies[0];
    assert_eq!(Decoder::new().decode(first), Err(CodecError::Unknown));
    assert_eq!(Decoder::new().decode_by_number(first, &|_| None), Err(CodecError::Reference));
    let twice = [FLAG_RESET | FLAG_NUMBERS, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(Decoder::new().decode_by_number(&twice, &layouts), Err(CodecError::Definitions));
    for end in 0..first.len() {
        assert!(Decoder::new().decode_by_number(&first[..end], &layouts).is_err());
    }
}

fn written_and_read(layout: &Arc<Layout>) -> Arc<Layout> {
    let mut bytes = Vec::new();
    write_layout(layout, &mut bytes);
    for end in 0..bytes.len() {
        assert_eq!(Decoder::layout(&Arc::default(), &bytes[..end]), Err(CodecError::Definitions));
    }
    let read = Decoder::layout(&Arc::default(), &bytes).unwrap();
    assert_eq!(&read, layout);
    read
}

#[test]
fn a_body_cut_anywhere_is_refused() {
    let bodies = bodies(&sample_batches());
    for (number, body) in bodies.iter().enumerate() {
        for end in 0..body.len() {
            let mut decoder = Decoder::new();
            for before in &bodies[..number] {
                decoder.decode(before).unwrap();
            }
            assert!(decoder.decode(&body[..end]).is_err(), "body {number} cut at {end}");
            assert_eq!(decoder.decode(&[0]), Err(CodecError::NoContext), "an error costs the context");
        }
    }
}

#[test]
fn a_context_begins_with_a_reset() {
    let bodies = bodies(&sample_batches());
    assert_eq!(Decoder::new().decode(&bodies[1]), Err(CodecError::NoContext));
    let mut decoder = Decoder::new();
    decoder.decode(&bodies[0]).unwrap();
    decoder.decode(&bodies[0]).expect("a reset is always readable");
}

#[test]
fn a_layout_that_grows_keeps_what_was_learnt() {
    let few: Vec<String> = (0..100).map(|i| format!("disk{i}")).collect();
    let mut more: Vec<&str> = few.iter().map(String::as_str).collect();
    let before = layout(1, &more);
    more.push("late");
    let after = layout(1, &more);
    let values = |layout: &Layout| vec![Raw::integer(1 << 40); layout.series.len()];
    let mut encoder = Encoder::new();
    let mut body = Vec::new();
    encoder.encode(&Batch { ticks: vec![tick(&before, 1000, &values(&before))] }, &mut body).unwrap();
    body.clear();
    encoder.encode(&Batch { ticks: vec![tick(&after, 2000, &values(&after))] }, &mut body).unwrap();
    assert!(body.len() < 100, "{} bytes for one new device", body.len());
}

fn refused(definitions: &Definitions) -> CodecError {
    let mut body = definition_body(FLAG_RESET | FLAG_DEFINITIONS, definitions);
    body.extend_from_slice(&[0; 4096]);
    Decoder::new().decode(&body).unwrap_err()
}

fn definition_body(flags: u8, definitions: &Definitions) -> Vec<u8> {
    let bytes = message::encode(definitions);
    let mut body = vec![flags];
    body.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    body.extend_from_slice(&bytes);
    body
}

fn metric(name: &str, label_names: &[&str]) -> MetricDefinition {
    let label_names = label_names.iter().map(ToString::to_string).collect();
    MetricDefinition { name: name.into(), kind: 0, digits: 0, label_names, help: String::new() }
}

fn defining(metrics: Vec<MetricDefinition>, series: Vec<SeriesRun>) -> Definitions {
    let layout = LayoutDefinition { group: 1, sampler: "x".into(), interval_ms: 1000, series };
    Definitions { metrics, layouts: vec![layout] }
}

#[test]
fn hostile_definitions_are_refused_by_name() {
    let new = |metric, label_values: &[&str]| SeriesRun::New {
        metric,
        label_values: label_values.iter().map(ToString::to_string).collect(),
    };
    let many = vec![new(0, &[]); limits::SERIES_PER_NODE_WIRE_MAX + 1];
    assert!(matches!(refused(&defining(vec![metric("a", &[])], many)), CodecError::Limit { what: "series", .. }));
    assert!(matches!(refused(&defining(vec![metric("a\u{202e}b", &[])], vec![])), CodecError::Name(_)));
    assert!(matches!(refused(&defining(vec![metric("a", &["__name__"])], vec![])), CodecError::Name(_)));
    assert_eq!(refused(&defining(vec![metric("a", &["x", "x"])], vec![])), CodecError::Definitions);
    assert_eq!(refused(&defining(vec![metric("a", &["x"])], vec![new(0, &[])])), CodecError::Reference);
    assert_eq!(refused(&defining(vec![], vec![new(3, &[])])), CodecError::Reference);
    let kept = SeriesRun::Kept { first: 0, count: u32::MAX };
    assert_eq!(refused(&defining(vec![], vec![kept])), CodecError::Reference);
    let long = "x".repeat(limits::LABEL_VALUE_BYTES_MAX + 1);
    assert!(matches!(refused(&defining(vec![metric("a", &["x"])], vec![new(0, &[&long])])), CodecError::Name(_)));
    let names: Vec<String> = (0..40).map(|i| format!("l{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert!(matches!(refused(&defining(vec![metric("a", &names)], vec![])), CodecError::Limit { .. }));
    let mut twice = defining(vec![metric("a", &[])], vec![new(0, &[])]);
    twice.layouts.extend(twice.layouts.clone());
    assert_eq!(refused(&twice), CodecError::Definitions);
    let mut named = defining(vec![], vec![]);
    named.layouts[0].sampler = "x".repeat(limits::METRIC_NAME_BYTES_MAX + 1);
    assert!(matches!(refused(&named), CodecError::Limit { .. }));
}

/// A layout can say the same series again in a few bytes: what it would take in memory downstream counts.
#[test]
fn label_values_are_bounded_over_all_layouts() {
    let label_values = vec!["x".repeat(limits::LABEL_VALUE_BYTES_MAX); 4];
    let series = vec![SeriesRun::New { metric: 0, label_values }; 1024];
    let first = defining(vec![metric("a", &["w", "x", "y", "z"])], series);
    let mut body = definition_body(FLAG_RESET | FLAG_DEFINITIONS, &first);
    body.push(0);
    let mut decoder = Decoder::new();
    decoder.decode(&body).unwrap();
    let again = |times| defining(vec![], vec![SeriesRun::Kept { first: 0, count: 1024 }; times]);
    let mut fits = definition_body(FLAG_DEFINITIONS, &again(16));
    fits.push(0);
    decoder.decode(&fits).unwrap();
    let limit = limits::LABEL_BYTES_PER_NODE_WIRE_MAX;
    let error = decoder.decode(&definition_body(FLAG_DEFINITIONS, &again(17))).unwrap_err();
    assert_eq!(error, CodecError::Limit { what: "bytes of label values", limit });
}

#[test]
fn an_encoder_begins_anew_before_its_context_is_too_large_for_a_decoder() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    for round in 0..10_u16 {
        let ticks = (0..200).map(|group| {
            let layout = layout(round * 200 + group, &["a"]);
            tick(&layout, 1000, &[Raw::integer(1), Raw::float(0.5)])
        });
        let batch = Batch { ticks: ticks.collect() };
        let mut body = Vec::new();
        encoder.encode(&batch, &mut body).unwrap();
        assert_eq!(decoder.decode(&body).unwrap(), batch, "round {round}");
    }
}

#[test]
fn a_length_that_lies_allocates_nothing() {
    // A vector of 2^60 layouts in nine bytes.
    let mut body = vec![FLAG_RESET | FLAG_DEFINITIONS, 9, 0, 0, 0, 253];
    body.extend_from_slice(&(1_u64 << 60).to_le_bytes());
    assert_eq!(Decoder::new().decode(&body), Err(CodecError::Definitions));
}

fn any_raw() -> impl Strategy<Value = Raw> {
    prop_oneof![
        4 => (-1000..1000_i64).prop_map(Raw::integer),
        1 => any::<i64>().prop_map(Raw::integer),
        1 => any::<f64>().prop_map(Raw::float),
        1 => (0..6_usize).prop_map(|i| Raw::missing(Reason::ALL[i])),
    ]
}

proptest! {
    #[test]
    fn any_run_of_ticks_comes_back(
        rows in proptest::collection::vec((any::<i64>(), 1..4_usize, proptest::collection::vec(any_raw(), 6)), 1..20)
    ) {
        let layouts = [layout(3, &["a"]), layout(3, &["b", "a"]), layout(3, &["a", "b", "c"])];
        let mut encoder = Encoder::new();
        let mut decoder = Decoder::new();
        for (time, devices, values) in rows {
            let batch = Batch { ticks: vec![tick(&layouts[devices - 1], time, &values[..devices * 2])] };
            let mut body = Vec::new();
            encoder.encode(&batch, &mut body).unwrap();
            prop_assert_eq!(decoder.decode(&body).unwrap(), batch);
        }
    }

    #[test]
    fn garbage_never_panics(bytes: Vec<u8>, flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
        let _ = Decoder::new().decode(&bytes);
        let mut decoder = Decoder::new();
        for mut body in bodies(&sample_batches()) {
            for (at, mask) in &flips {
                let at = at.index(body.len());
                body[at] ^= mask;
            }
            let _ = decoder.decode(&body);
        }
    }
}
