//! What the agent reads, one file per family. [`all`] names them.
//!
//! A sampler reads its source and says each reading with [`Readings`]. It knows no schedule, no wire and
//! no neighbour; when it fails, it fails alone.

mod cap;
mod clocksource;
mod conntrack;
mod cpu;
mod cpu_frequency;
mod cpu_info;
mod cpu_throttle;
pub(crate) mod declare;
mod disk;
mod disk_info;
mod dmi;
mod edac;
mod entropy;
mod filefd;
mod filesystem;
#[cfg(test)]
pub(crate) mod fixture;
mod hwmon;
mod hwmon_names;
mod infiniband;
mod infiniband_names;
mod kernel;
mod load;
mod memory;
mod mounts;
mod named_metrics;
mod netstat;
mod network;
mod network_class;
pub(crate) mod number;
mod os_release;
mod pressure;
mod sockstat;
mod source;
mod statfs;
mod sysfs;
mod thermal;
mod timex;
mod uname;
mod vmstat;

use std::{borrow::Cow, io, path::PathBuf, time::Duration};

use belfry_common::model::Reason;
use thiserror::Error;

use crate::readings::Readings;
pub(crate) use source::Source;
pub(crate) use sysfs::attribute;

/// Where the kernel's files are. Elsewhere than at `/` in containers and in tests.
#[derive(Debug, Clone)]
pub(crate) struct Roots {
    pub(crate) proc: PathBuf,
    pub(crate) sys: PathBuf,
    /// Prepended to mount points before they are asked for their size; never part of a label.
    pub(crate) root: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into(), root: "/".into() }
    }
}

/// Who is read one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaneName {
    /// The kernel's own counters, each second.
    Fast,
    /// Devices, which may be slow.
    Slow,
    /// Drivers of GPUs, which are waited for.
    Gpu,
}

impl LaneName {
    pub(crate) const ALL: [Self; 3] = [Self::Fast, Self::Slow, Self::Gpu];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "sample-fast",
            Self::Slow => "sample-slow",
            Self::Gpu => "sample-gpu",
        }
    }
}

/// One family of readings.
pub(crate) trait Sampler: Send {
    /// The family's name: its group on the wire, its label in the agent's own metrics, its key in the configuration.
    fn name(&self) -> &'static str;

    /// How often it is sampled unless configured otherwise.
    fn interval(&self) -> Duration;

    /// The thread that it is read on.
    fn lane(&self) -> LaneName {
        if self.interval() < Duration::from_secs(5) { LaneName::Fast } else { LaneName::Slow }
    }

    /// Reads everything once. A single reading that fails is said with [`Readings::missing`]; an error means
    /// that the family as a whole could not be read. Must not block beyond the time that its files take.
    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError>;
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const TEN_SECONDS: Duration = Duration::from_secs(10);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// A family that could not be read.
#[derive(Debug, Error)]
pub(crate) enum SampleError {
    #[error("failed to read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("`{path}` is not as expected: {what}")]
    Format { path: PathBuf, what: Cow<'static, str> },
}

impl SampleError {
    /// The reason that the family's series carry for this tick.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Read { source, .. } => reason_of(source),
            Self::Format { .. } => Reason::Error,
        }
    }
}

/// What an I/O error says about a reading.
pub(crate) fn reason_of(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::Unsupported => Reason::Unsupported,
        io::ErrorKind::PermissionDenied => Reason::Permission,
        io::ErrorKind::TimedOut => Reason::Timeout,
        _ => Reason::Error,
    }
}

/// Every sampler, in the order in which they are read.
pub(crate) fn all(roots: &Roots) -> Vec<Box<dyn Sampler>> {
    vec![
        Box::new(cpu::Cpu::new(roots)),
        Box::new(load::Load::new(roots)),
        Box::new(memory::Memory::new(roots)),
        Box::new(vmstat::Vmstat::new(roots)),
        Box::new(pressure::Pressure::new(roots)),
        Box::new(disk::Disk::new(roots)),
        Box::new(network::Network::new(roots)),
        Box::new(netstat::Netstat::new(roots)),
        Box::new(sockstat::Sockstat::new(roots)),
        Box::new(conntrack::Conntrack::new(roots)),
        Box::new(filefd::FileDescriptors::new(roots)),
        Box::new(filesystem::Filesystem::new(roots)),
        Box::new(network_class::link_sampler(roots)),
        Box::new(network_class::sampler(roots)),
        Box::new(infiniband::sampler(roots)),
        Box::new(infiniband::hw_counters_sampler(roots)),
        Box::new(cpu_frequency::sampler(roots)),
        Box::new(cpu_throttle::sampler(roots)),
        Box::new(hwmon::sampler(roots)),
        Box::new(thermal::sampler(roots)),
        Box::new(edac::sampler(roots)),
        Box::new(entropy::Entropy::new(roots)),
        Box::new(timex::Timex::new()),
        Box::new(cpu_info::CpuInfo::new(roots)),
        Box::new(cpu_frequency::limits_sampler(roots)),
        Box::new(disk_info::DiskInfo::new(roots)),
        Box::new(network_class::info_sampler(roots)),
        Box::new(infiniband::info_sampler(roots)),
        Box::new(uname::Uname::new()),
        Box::new(os_release::OsRelease::new(roots)),
        Box::new(dmi::sampler(roots)),
        Box::new(clocksource::sampler(roots)),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use belfry_common::model::{Timestamp, check_label_name, check_label_value, check_metric_name};

    use super::*;

    /// Families that every Linux machine has.
    const ALWAYS: [&str; 9] = ["cpu", "load", "memory", "vmstat", "disk", "netstat", "filefd", "timex", "uname"];

    #[test]
    fn this_machine_is_read_without_an_error_and_every_series_is_valid_and_once() {
        let mut names = HashSet::new();
        for mut sampler in all(&Roots::default()) {
            let name = sampler.name();
            assert!(names.insert(name), "two samplers are named {name}");
            assert!(check_label_name(name).is_ok(), "{name} is no key of a configuration");
            assert!([SECOND, TEN_SECONDS, MINUTE].contains(&sampler.interval()), "{name}");

            let mut readings = Readings::new(1, name, 1000);
            sampler.sample(&mut readings).unwrap_or_else(|error| panic!("{name}: {error}"));
            let first = readings.finish(Timestamp::from_millis(0));
            assert!(first.is_some() || !ALWAYS.contains(&name), "{name} read nothing");
            let Some(first) = first else { continue };
            let mut series = HashSet::new();
            for definition in &first.layout.series {
                check_metric_name(&definition.metric.name).unwrap();
                assert_eq!(definition.metric.label_names.len(), definition.label_values.len());
                for (label, value) in definition.metric.label_names.iter().zip(&definition.label_values) {
                    check_label_name(label).unwrap();
                    check_label_value(value).unwrap();
                }
                assert!(series.insert((&definition.metric.name, &definition.label_values)), "{definition:?} twice");
            }
        }
    }

    /// Of one name there is one kind, one resolution and one set of labels, whichever sampler says it.
    #[test]
    fn a_metric_belongs_to_one_sampler() {
        let mut owners = std::collections::HashMap::new();
        for mut sampler in all(&Roots::default()) {
            let mut readings = Readings::new(1, sampler.name(), 1000);
            sampler.sample(&mut readings).unwrap();
            let Some(tick) = readings.finish(Timestamp::from_millis(0)) else { continue };
            for definition in &tick.layout.series {
                let metric = &definition.metric;
                let owner = owners.entry(metric.name.clone()).or_insert((sampler.name(), metric.clone()));
                assert_eq!(*owner, (sampler.name(), metric.clone()));
            }
        }
    }
}
