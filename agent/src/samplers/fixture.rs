//! A machine made of text files, and what a sampler reads on it.

use std::{fs, os::unix, path::Path};

use belfry_common::model::Timestamp;
use tempfile::TempDir;

use super::{Roots, SampleError, Sampler};
use crate::readings::Readings;

#[derive(Debug)]
pub(crate) struct Fixture {
    directory: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// Writes a file below `/proc`.
    pub(crate) fn proc(self, path: &str, text: &str) -> Self {
        self.file(Path::new("proc").join(path), text)
    }

    /// Writes a file below `/sys`.
    pub(crate) fn sys(self, path: &str, text: &str) -> Self {
        self.file(Path::new("sys").join(path), text)
    }

    /// Writes a file below `/`.
    pub(crate) fn root(self, path: &str, text: &str) -> Self {
        self.file(Path::new("root").join(path), text)
    }

    /// Makes a symbolic link below `/sys` to another path below it.
    pub(crate) fn sys_link(self, path: &str, target: &str) -> Self {
        let link = self.directory.path().join("sys").join(path);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        unix::fs::symlink(self.directory.path().join("sys").join(target), link).unwrap();
        self
    }

    /// Removes a file or directory below `/sys`.
    pub(crate) fn remove_sys(self, path: &str) -> Self {
        let path = self.directory.path().join("sys").join(path);
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.unwrap();
        self
    }

    pub(crate) fn roots(&self) -> Roots {
        let below = |name| self.directory.path().join(name);
        Roots { proc: below("proc"), sys: below("sys"), root: below("root") }
    }

    fn file(self, path: impl AsRef<Path>, text: &str) -> Self {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// One line for each reading: `name{label="value"} value`.
    pub(crate) fn print(&self, sampler: &mut dyn Sampler) -> String {
        self.try_print(sampler).unwrap()
    }

    /// The same without the series whose names start so.
    pub(crate) fn print_without(&self, sampler: &mut dyn Sampler, prefix: &str) -> String {
        let printed = self.print(sampler);
        printed.lines().filter(|line| !line.starts_with(prefix)).map(|line| format!("{line}\n")).collect()
    }

    pub(crate) fn try_print(&self, sampler: &mut dyn Sampler) -> Result<String, SampleError> {
        print(sampler)
    }
}

/// What the sampler reads wherever its roots are.
pub(crate) fn print(sampler: &mut dyn Sampler) -> Result<String, SampleError> {
    let mut readings = Readings::new(1, sampler.name(), 1000);
    sampler.sample(&mut readings)?;
    Ok(show(&mut readings))
}

/// One line for each reading of a tick.
pub(crate) fn show(readings: &mut Readings) -> String {
    let Some(tick) = readings.finish(Timestamp::from_millis(0)) else { return String::new() };
    let lines = tick.layout.series.iter().zip(&tick.values).map(|(series, raw)| {
        let names = series.metric.label_names.iter();
        let labels: Vec<_> = names.zip(&series.label_values).map(|(name, value)| format!("{name}={value:?}")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let value = match raw.value(series.metric.resolution) {
            Ok(value) => value.to_string(),
            Err(reason) => format!("missing ({})", reason.as_str()),
        };
        format!("{}{labels} {value}\n", series.metric.name)
    });
    lines.collect()
}
