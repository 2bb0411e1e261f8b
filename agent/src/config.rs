//! The agent's configuration file. Every key is optional; an unknown one is refused with its line.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use belfry_common::{
    config_file::{self, ByteSize, ConfigError, Document, Span},
    limits,
    model::check_label_name,
};
use serde::Deserialize;

use crate::samplers::Roots;

/// Shorter than this a round would still be running when the next is due.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// A spool smaller than this could not hold the segment that is written and one that waits.
const SPOOL_BYTES_MIN: u64 = 8 * 1024 * 1024;
/// Not `libnvidia-ml.so`: that link comes with the development files only.
pub(crate) const NVML: &str = "libnvidia-ml.so.1";
/// Where the agent keeps its identity and its spool.
pub(crate) const STATE_DIRECTORY: &str = "/var/lib/belfry-agent";

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    collector: Option<String>,
    state_directory: Option<PathBuf>,
    log: Option<LogLevel>,
    labels: BTreeMap<String, String>,
    spool: SpoolFile,
    paths: PathsFile,
    gpu: GpuFile,
    samplers: BTreeMap<String, SamplerFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SpoolFile {
    size_max: Option<ByteSize>,
    sync_interval: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PathsFile {
    proc: Option<PathBuf>,
    sys: Option<PathBuf>,
    root: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GpuFile {
    library: Option<PathBuf>,
    kernel_log: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SamplerFile {
    enabled: Option<bool>,
    interval: Option<Span>,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

impl From<LogLevel> for tracing::level_filters::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
        }
    }
}

/// The configuration as the rest of the agent sees it.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// `HOST:PORT`; if there is none here, the one that `join` kept counts.
    pub(crate) collector: Option<String>,
    pub(crate) state_directory: PathBuf,
    pub(crate) log: LogLevel,
    /// The operator's labels for this node (rack, pool, …).
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) spool_bytes_max: u64,
    pub(crate) spool_sync_interval: Duration,
    pub(crate) roots: Roots,
    pub(crate) gpu: GpuSettings,
    pub(crate) samplers: BTreeMap<String, SamplerSettings>,
}

/// What is configured for GPUs.
#[derive(Debug, Clone)]
pub(crate) struct GpuSettings {
    /// NVML: a path, or a name that the system's loader finds.
    pub(crate) library: PathBuf,
    /// Where the kernel's messages are read.
    pub(crate) kernel_log: PathBuf,
}

impl Default for GpuSettings {
    fn default() -> Self {
        Self { library: NVML.into(), kernel_log: "/dev/kmsg".into() }
    }
}

/// What is configured for one sampler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SamplerSettings {
    pub(crate) is_enabled: bool,
    pub(crate) interval: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            collector: None,
            state_directory: STATE_DIRECTORY.into(),
            log: LogLevel::Info,
            labels: BTreeMap::new(),
            spool_bytes_max: 256 * 1024 * 1024,
            spool_sync_interval: Duration::from_secs(5),
            roots: Roots::default(),
            gpu: GpuSettings::default(),
            samplers: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Reads a file; `sampler_names` are the ones that may be configured.
    pub(crate) fn read(path: &Path, sampler_names: &[&str]) -> Result<Self, ConfigError> {
        let (file, document) = config_file::read(path)?;
        Self::check(file, &document, sampler_names)
    }

    fn check(file: File, document: &Document, sampler_names: &[&str]) -> Result<Self, ConfigError> {
        let default = Self::default();
        if file.labels.len() > limits::LABELS_PER_METRIC_MAX {
            let message = format!("there can be at most {} labels", limits::LABELS_PER_METRIC_MAX);
            return Err(document.refuse(&["labels"], &message));
        }
        for name in file.labels.keys() {
            if let Err(error) = check_label_name(name) {
                return Err(document.refuse(&["labels", name], &error.to_string()));
            }
        }
        if let Some(collector) = &file.collector
            && !is_host_and_port(collector)
        {
            return Err(document.refuse(&["collector"], "collector must be HOST:PORT, such as belfry.example.org:7460"));
        }
        for (key, path) in [("proc", &file.paths.proc), ("sys", &file.paths.sys), ("root", &file.paths.root)] {
            if let Some(path) = path
                && !path.is_dir()
            {
                return Err(
                    document.refuse(&["paths", key], &format!("paths.{key} is no directory: `{}`", path.display()))
                );
            }
        }
        if let Some(library) = &file.gpu.library
            && library.components().count() > 1
            && !library.is_file()
        {
            return Err(
                document.refuse(&["gpu", "library"], &format!("gpu.library is no file: `{}`", library.display()))
            );
        }
        let spool_bytes_max = file.spool.size_max.map_or(default.spool_bytes_max, |size| size.0);
        if spool_bytes_max < SPOOL_BYTES_MIN {
            let message = format!("spool.size_max must be at least {} MiB", SPOOL_BYTES_MIN >> 20);
            return Err(document.refuse(&["spool", "size_max"], &message));
        }
        let mut samplers = BTreeMap::new();
        for (name, sampler) in file.samplers {
            if !sampler_names.contains(&name.as_str()) {
                let message = format!("unknown sampler `{name}`, expected one of `{}`", sampler_names.join("`, `"));
                return Err(document.refuse(&["samplers", &name], &message));
            }
            let interval = sampler.interval.map(|span| span.0);
            if interval.is_some_and(|interval| !is_whole(interval)) {
                let message =
                    format!("samplers.{name}.interval must be a whole number of milliseconds from 100ms to 1h");
                return Err(document.refuse(&["samplers", &name, "interval"], &message));
            }
            samplers.insert(name, SamplerSettings { is_enabled: sampler.enabled.unwrap_or(true), interval });
        }
        Ok(Self {
            collector: file.collector,
            state_directory: file.state_directory.unwrap_or(default.state_directory),
            log: file.log.unwrap_or(default.log),
            labels: file.labels,
            spool_bytes_max,
            spool_sync_interval: file.spool.sync_interval.map_or(default.spool_sync_interval, |span| span.0),
            roots: Roots {
                proc: file.paths.proc.unwrap_or(default.roots.proc),
                sys: file.paths.sys.unwrap_or(default.roots.sys),
                root: file.paths.root.unwrap_or(default.roots.root),
            },
            gpu: GpuSettings {
                library: file.gpu.library.unwrap_or(default.gpu.library),
                kernel_log: file.gpu.kernel_log.unwrap_or(default.gpu.kernel_log),
            },
            samplers,
        })
    }

    /// What is configured for a sampler.
    pub(crate) fn sampler(&self, name: &str) -> SamplerSettings {
        self.samplers.get(name).copied().unwrap_or(SamplerSettings { is_enabled: true, interval: None })
    }
}

/// `host:7460`, `192.0.2.1:7460`, `[2001:db8::1]:7460`
pub(crate) fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        let is_bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        !host.is_empty() && !is_bare_ipv6 && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

fn is_whole(interval: Duration) -> bool {
    (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) && interval.subsec_nanos().is_multiple_of(1_000_000)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: &Expect) {
        let path = Path::new("agent.toml");
        let parsed = config_file::parse(path, text);
        let shown = match parsed.and_then(|(file, document)| Settings::check(file, &document, &["cpu", "disk"])) {
            Ok(settings) => format!("{:?} {:?}", settings.collector, settings.samplers),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn mistakes_are_refused_by_name() {
        check(
            "collector = \"c:7460\"\n[samplers.disk]\ninterval = \"5s\"",
            &expect![[r#"Some("c:7460") {"disk": SamplerSettings { is_enabled: true, interval: Some(5s) }}"#]],
        );
        check(
            "\ncollector = \"belfry.example.org\"",
            &expect!["agent.toml:2: collector must be HOST:PORT, such as belfry.example.org:7460"],
        );
        check("[paths]\nproc = \"/host/prok\"", &expect!["agent.toml:2: paths.proc is no directory: `/host/prok`"]);
        check(
            "[samplers.dsik]\ninterval = \"5s\"",
            &expect!["agent.toml:1: unknown sampler `dsik`, expected one of `cpu`, `disk`; did you mean `disk`?"],
        );
        check(
            "[samplers.disk]\ninterval = \"5ms\"",
            &expect!["agent.toml:2: samplers.disk.interval must be a whole number of milliseconds from 100ms to 1h"],
        );
        check(
            "[spool]\nsize = \"1GiB\"",
            &expect![
                "agent.toml:2: unknown field `size`, expected `size_max` or `sync_interval`; did you mean `size_max`?"
            ],
        );
        check("[spool]\nsize_max = \"1MiB\"", &expect!["agent.toml:2: spool.size_max must be at least 8 MiB"]);
        check(
            "[labels]\n\"a-b\" = \"x\"",
            &expect![[
                r#"agent.toml:2: label name "a-b" is not valid: it must match [a-zA-Z_][a-zA-Z0-9_]*, not start with `__`, and have at most 100 characters"#
            ]],
        );
        check(
            "log = \"loud\"",
            &expect!["agent.toml:1: unknown variant `loud`, expected one of `error`, `warn`, `info`, `debug`"],
        );
    }

    #[test]
    fn the_example_shows_every_key_with_its_default() {
        let path = Path::new("packaging/agent.toml");
        let shown: String =
            include_str!("../../packaging/agent.toml").lines().flat_map(|line| [in_force(line), "\n"]).collect();
        let (file, document): (File, _) = config_file::parse(path, shown).unwrap();
        // A new key does not compile here before it is in the example.
        let File {
            collector: Some(_),
            state_directory: Some(_),
            log: Some(_),
            labels: _,
            spool: SpoolFile { size_max: Some(_), sync_interval: Some(_) },
            paths: PathsFile { proc: Some(_), sys: Some(_), root: Some(_) },
            gpu: GpuFile { library: Some(_), kernel_log: Some(_) },
            samplers: _,
        } = &file
        else {
            panic!("a key is not shown: {file:?}");
        };

        let all = crate::app::dry_samplers(&Settings::default(), &crate::statistics::Statistics::new());
        let names: Vec<&str> = all.iter().map(|sampler| sampler.name()).collect();
        let settings = Settings::check(file, &document, &names).unwrap();
        let sampler = |interval| SamplerSettings { is_enabled: true, interval: Some(interval) };
        let expected = Settings {
            collector: settings.collector.clone(),
            labels: settings.labels.clone(),
            samplers: all.iter().map(|each| (each.name().to_string(), sampler(each.interval()))).collect(),
            ..Settings::default()
        };
        assert_eq!(format!("{settings:#?}"), format!("{expected:#?}"));
    }

    /// A line of the example with its key in force: `#key`, but not `# words`.
    fn in_force(line: &str) -> &str {
        line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase())).unwrap_or(line)
    }
}
