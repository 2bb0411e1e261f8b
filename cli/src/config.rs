//! The collector's configuration file and what the command line puts on top of it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use belfry_common::{
    config_file::{self, ByteSize, ConfigError, Document, Span},
    limits,
};
use belfry_store::{HeadOptions, MaintainOptions, RetentionOptions, StoreOptions, TierRetention};
use serde::Deserialize;

use crate::{
    access::CertificateFiles, listen::AdmissionLimits, paths, rule_files::RuleFiles, store_keys::KeySource, xid_files,
};

/// Leaf certificates: short, because they renew themselves.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// The port under which agents find the collector.
const LISTEN: ([u8; 4], u16) = ([0, 0, 0, 0], 7460);
/// Health and metrics, for this machine only.
const HTTP: ([u8; 4], u16) = ([127, 0, 0, 1], 7461);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    data_directory: Option<PathBuf>,
    listen: Option<SocketAddr>,
    http: Option<SocketAddr>,
    http_certificate: Option<PathBuf>,
    http_key: Option<PathBuf>,
    rules: Vec<String>,
    shipped_rules: Option<bool>,
    xid_catalogue: Option<PathBuf>,
    store: StoreFile,
    limits: LimitsFile,
    identity: IdentityFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StoreFile {
    memory_window: Option<Span>,
    memory_max: Option<ByteSize>,
    flush_interval: Option<Span>,
    journal_age_max: Option<Span>,
    journal_size_max: Option<ByteSize>,
    raw_age_max: Option<Span>,
    raw_size_max: Option<ByteSize>,
    minutes_age_max: Option<Span>,
    minutes_size_max: Option<ByteSize>,
    hours_age_max: Option<Span>,
    hours_size_max: Option<ByteSize>,
    key_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsFile {
    connections: Option<usize>,
    handshakes_per_second: Option<f64>,
    handshakes_per_second_and_address: Option<f64>,
    series_per_node: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct IdentityFile {
    certificate_life: Option<Span>,
}

/// What a node may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) series_per_node: usize,
}

/// The configuration as the collector sees it.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) data_directory: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) http: SocketAddr,
    /// What HTTP shows in place of the collector's own certificate.
    pub(crate) http_certificate: Option<CertificateFiles>,
    pub(crate) rules: RuleFiles,
    /// A file that goes before the catalogue that ships.
    pub(crate) xid_catalogue: PathBuf,
    /// Without its keys.
    pub(crate) store: StoreOptions,
    /// Whose files are encrypted if there is one.
    pub(crate) keys: Option<KeySource>,
    pub(crate) admission: AdmissionLimits,
    pub(crate) limits: Limits,
    pub(crate) certificate_life: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_directory: paths::data_directory(),
            listen: LISTEN.into(),
            http: HTTP.into(),
            http_certificate: None,
            rules: RuleFiles { patterns: Vec::new(), with_pack: true },
            xid_catalogue: xid_files::LOCAL.into(),
            store: StoreOptions::default(),
            keys: None,
            admission: AdmissionLimits::default(),
            limits: Limits { series_per_node: limits::SERIES_PER_NODE_DEFAULT },
            certificate_life: CERTIFICATE_LIFE,
        }
    }
}

/// An hour is merged, and rows are made of it, some minutes after its end.
const RAW_AGE_MS_MIN: i64 = 3 * 3_600_000;
/// What is due is looked for each second.
const FLUSH_INTERVAL_MS_MIN: i64 = 1000;

impl Settings {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line and what to write instead.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let (file, document) = config_file::read(path)?;
        Self::check(file, &document)
    }

    fn check(file: File, document: &Document) -> Result<Self, ConfigError> {
        let refuse = |key: &[&str], what: &str| Err(document.refuse(key, what));
        let default = Self::default();
        let store = store_options(&file.store, default.store.clone(), document)?;
        let limits = Limits { series_per_node: file.limits.series_per_node.unwrap_or(default.limits.series_per_node) };
        if limits.series_per_node == 0 || limits.series_per_node > limits::SERIES_PER_NODE_WIRE_MAX {
            return refuse(&["limits", "series_per_node"], "limits.series_per_node must be between 1 and 65536");
        }
        let mut admission = default.admission;
        admission.connections_max = file.limits.connections.unwrap_or(admission.connections_max);
        admission.total_rate = file.limits.handshakes_per_second.unwrap_or(admission.total_rate);
        admission.address_rate = file.limits.handshakes_per_second_and_address.unwrap_or(admission.address_rate);
        if !(admission.total_rate >= 1.0 && admission.address_rate >= 1.0) {
            return refuse(&["limits"], "limits: at least one handshake per second is needed");
        }
        let certificate_life = file.identity.certificate_life.map_or(default.certificate_life, |span| span.0);
        if certificate_life < Duration::from_secs(3) {
            return refuse(&["identity", "certificate_life"], "identity.certificate_life must be at least 3s");
        }
        let http_certificate = match (file.http_certificate, file.http_key) {
            (Some(certificate), Some(key)) => Some(CertificateFiles { certificate, key }),
            (None, None) => None,
            (Some(_), None) => {
                return refuse(&["http_certificate"], "http_certificate needs http_key, its private key");
            }
            (None, Some(_)) => return refuse(&["http_key"], "http_key needs http_certificate, of which it is the key"),
        };
        Ok(Self {
            data_directory: file.data_directory.unwrap_or(default.data_directory),
            listen: file.listen.unwrap_or(default.listen),
            http: file.http.unwrap_or(default.http),
            http_certificate,
            rules: RuleFiles { patterns: file.rules, with_pack: file.shipped_rules.unwrap_or(true) },
            xid_catalogue: file.xid_catalogue.unwrap_or(default.xid_catalogue),
            store,
            keys: file.store.key_file.map(KeySource::from),
            admission,
            limits,
            certificate_life,
        })
    }
}

/// What the file says of the store, over the defaults.
fn store_options(file: &StoreFile, default: StoreOptions, document: &Document) -> Result<StoreOptions, ConfigError> {
    let refuse = |key: &[&str], what: &str| Err(document.refuse(key, what));
    let millis = |span: Span| i64::try_from(span.0.as_millis()).unwrap_or(i64::MAX);
    let head = HeadOptions {
        window_ms: file.memory_window.map_or(default.head.window_ms, millis),
        bytes_max: file.memory_max.map_or(default.head.bytes_max, |size| usize::try_from(size.0).unwrap_or(usize::MAX)),
    };
    if head.window_ms < 60_000 {
        return refuse(
            &["store", "memory_window"],
            "store.memory_window must be at least 1m: rules look back that far",
        );
    }
    let tier = |age: Option<Span>, size: Option<ByteSize>, default: TierRetention| TierRetention {
        age_ms_max: age.map_or(default.age_ms_max, millis),
        bytes_max: size.map(|size| size.0).or(default.bytes_max),
    };
    let maintain = default.maintain;
    let flush_interval_ms = file.flush_interval.map_or(maintain.flush_interval_ms, millis);
    if flush_interval_ms < FLUSH_INTERVAL_MS_MIN {
        return refuse(&["store", "flush_interval"], "store.flush_interval must be at least 1s");
    }
    let kept = maintain.retention;
    let retention = RetentionOptions {
        raw: tier(file.raw_age_max, file.raw_size_max, kept.raw),
        minute: tier(file.minutes_age_max, file.minutes_size_max, kept.minute),
        hour: tier(file.hours_age_max, file.hours_size_max, kept.hour),
    };
    if retention.raw.age_ms_max < RAW_AGE_MS_MIN {
        return refuse(
            &["store", "raw_age_max"],
            "store.raw_age_max must be at least 3h: minutes and hours are made of raw samples",
        );
    }
    let store = StoreOptions {
        head,
        maintain: MaintainOptions { flush_interval_ms, retention, ..maintain },
        journal_age_ms_max: file.journal_age_max.map_or(default.journal_age_ms_max, millis),
        journal_bytes_max: file.journal_size_max.map_or(default.journal_bytes_max, |size| size.0),
        ..default
    };
    if store.journal_bytes_max < 4 * u64::from(store.segment_bytes) {
        return refuse(&["store", "journal_size_max"], "store.journal_size_max must be at least 256MiB: four segments");
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: &Expect) {
        let path = Path::new("collector.toml");
        let parsed = config_file::parse(path, text);
        let shown = match parsed.and_then(|(file, document)| Settings::check(file, &document)) {
            Ok(settings) => format!("{} {:?}", settings.listen, settings.rules),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn mistakes_are_refused_by_name() {
        check(
            "listen = \"127.0.0.1:1\"\nrules = [\"/etc/belfry/*.yml\"]",
            &expect![[r#"127.0.0.1:1 RuleFiles { patterns: ["/etc/belfry/*.yml"], with_pack: true }"#]],
        );
        check("listen = \"localhost\"", &expect!["collector.toml:1: invalid socket address syntax"]);
        check(
            "[store]\nmemory_windows = \"1h\"",
            &expect![
                "collector.toml:2: unknown field `memory_windows`, expected one of `memory_window`, `memory_max`, `flush_interval`, `journal_age_max`, `journal_size_max`, `raw_age_max`, `raw_size_max`, `minutes_age_max`, `minutes_size_max`, `hours_age_max`, `hours_size_max`, `key_file`; did you mean `memory_window`?"
            ],
        );
        check(
            "[store]\nmemory_window = \"1s\"",
            &expect!["collector.toml:2: store.memory_window must be at least 1m: rules look back that far"],
        );
        check(
            "[store]\nflush_interval = \"0s\"",
            &expect!["collector.toml:2: store.flush_interval must be at least 1s"],
        );
        check(
            "[store]\njournal_size_max = \"1MiB\"",
            &expect!["collector.toml:2: store.journal_size_max must be at least 256MiB: four segments"],
        );
        check(
            "\nhttp_key = \"/k.pem\"",
            &expect!["collector.toml:2: http_key needs http_certificate, of which it is the key"],
        );
        check(
            "[limits]\nseries_per_node = 0",
            &expect!["collector.toml:2: limits.series_per_node must be between 1 and 65536"],
        );
    }

    #[test]
    fn the_example_shows_every_key_with_its_default() {
        let path = Path::new("packaging/collector.toml");
        let shown: String =
            include_str!("../../packaging/collector.toml").lines().flat_map(|line| [in_force(line), "\n"]).collect();
        let (file, document): (File, _) = config_file::parse(path, shown).unwrap();
        // A new key does not compile here before it is in the example.
        let File {
            data_directory: Some(_),
            listen: Some(_),
            http: Some(_),
            http_certificate: Some(_),
            http_key: Some(_),
            rules: _,
            shipped_rules: Some(_),
            xid_catalogue: Some(_),
            store:
                StoreFile {
                    memory_window: Some(_),
                    memory_max: Some(_),
                    flush_interval: Some(_),
                    journal_age_max: Some(_),
                    journal_size_max: Some(_),
                    raw_age_max: Some(_),
                    raw_size_max: Some(_),
                    minutes_age_max: Some(_),
                    minutes_size_max: Some(_),
                    hours_age_max: Some(_),
                    hours_size_max: Some(_),
                    key_file: Some(_),
                },
            limits:
                LimitsFile {
                    connections: Some(_),
                    handshakes_per_second: Some(_),
                    handshakes_per_second_and_address: Some(_),
                    series_per_node: Some(_),
                },
            identity: IdentityFile { certificate_life: Some(_) },
        } = &file
        else {
            panic!("a key is not shown: {file:?}");
        };

        let mut settings = Settings::check(file, &document).unwrap();
        let default = Settings::default();
        // Sizes have no default: it depends on the disk.
        let retention = &mut settings.store.maintain.retention;
        for tier in [&mut retention.raw, &mut retention.minute, &mut retention.hour] {
            assert!(tier.bytes_max.take().is_some());
        }
        // Nor is there a key by default, nor a certificate.
        assert!(settings.keys.take().is_some() && settings.http_certificate.take().is_some());
        let expected = Settings {
            data_directory: "/var/lib/belfry".into(),
            rules: RuleFiles { patterns: settings.rules.patterns.clone(), ..default.rules.clone() },
            ..default
        };
        assert_eq!(format!("{settings:#?}"), format!("{expected:#?}"));
    }

    /// A line of the example with its key in force: `#key`, but not `# words`.
    fn in_force(line: &str) -> &str {
        line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase())).unwrap_or(line)
    }
}
