//! Configuration files from any text, read into every kind of value that ours have.
#![no_main]

use std::{collections::BTreeMap, net::SocketAddr, path::Path, path::PathBuf};

use belfry_common::config_file::{ByteSize, Span, parse};
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    collector: Option<String>,
    state_directory: Option<PathBuf>,
    listen: Option<SocketAddr>,
    rules: Vec<String>,
    labels: BTreeMap<String, String>,
    spool: Inner,
    samplers: BTreeMap<String, Inner>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Inner {
    enabled: Option<bool>,
    interval: Option<Span>,
    size_max: Option<ByteSize>,
    rate: Option<f64>,
    count: Option<usize>,
}

fuzz_target!(|text: &str| {
    if let Err(error) = parse::<File>(Path::new("fuzz.toml"), text) {
        assert!(error.to_string().starts_with("fuzz.toml:"), "an error names its line: {error}");
    }
});
