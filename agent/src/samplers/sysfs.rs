//! Families that are many small files of `/sys`: one attribute, one file, one reading.
//!
//! A [`Family`] says which files there are; [`Sysfs`] reads them at each tick and looks for new ones now and then,
//! or when one has gone. A file that was there and fails is a missing reading; a family whose directory does not
//! exist has no series.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use belfry_common::model::{Metric, Reason};

use super::{
    SampleError, Sampler,
    cap::{Cap, DEVICES_MAX},
    number::{self, Parse},
    reason_of,
};
use crate::readings::Readings;

/// Readings of one family, 16 for each of the most devices.
const READINGS_MAX: usize = 16 * DEVICES_MAX;

/// No attribute that a family reads is longer; the kernel allows a page.
const ATTRIBUTE_BYTES_MAX: usize = 512;
const PAGE_BYTES: usize = 4096;

/// An open file follows its device when that is renamed, and would be said under another's name: at every so many
/// scans all are opened anew.
const REOPEN_EVERY: u32 = 6;

/// Label names of the metrics declared in families.
const LABELS_MAX: usize = 24;

/// What a family is named, how often it is read, and where its files are.
pub(super) trait Family: fmt::Debug + Send {
    const NAME: &'static str;
    const INTERVAL: Duration;
    /// Files are looked for at every so many readings.
    const SCAN_EVERY: u32 = 6;
    /// How many files stay open. The usual limit of a process is 1,024, for all families together.
    const OPEN_MAX: usize = 0;

    /// Adds every reading to the plan.
    fn scan(&mut self, plan: &mut Plan) -> Result<(), SampleError>;
}

/// The readings of a family.
#[derive(Debug, Default)]
pub(super) struct Plan {
    attributes: Vec<Attribute>,
    left_out: usize,
}

#[derive(Debug)]
struct Attribute {
    metric: Arc<Metric>,
    labels: Box<[Box<str>]>,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Fixed(i64),
    File { path: PathBuf, open: Option<File>, parse: Parse, is_optional: bool },
}

impl Plan {
    /// A value that does not change until the next scan.
    pub(super) fn fixed(&mut self, metric: &Arc<Metric>, labels: &[&str], count: i64) {
        self.push(metric, labels, Value::Fixed(count));
    }

    /// A file that is there; when it fails, the reading is missing.
    pub(super) fn file(&mut self, metric: &Arc<Metric>, labels: &[&str], path: PathBuf, parse: Parse) {
        self.push(metric, labels, Value::File { path, open: None, parse, is_optional: false });
    }

    /// A file that the device may not offer, or not in every state: then there is no series.
    pub(super) fn optional_file(&mut self, metric: &Arc<Metric>, labels: &[&str], path: PathBuf, parse: Parse) {
        self.push(metric, labels, Value::File { path, open: None, parse, is_optional: true });
    }

    /// The entries of a directory whose names start so, in the order of their names; none where there is no
    /// such directory.
    pub(super) fn list(&mut self, directory: &Path, prefix: &str) -> Result<Vec<String>, SampleError> {
        let failed = |source| SampleError::Read { path: directory.to_owned(), source };
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed(source)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let Ok(name) = entry.map_err(failed)?.file_name().into_string() else { continue };
            if !name.starts_with(prefix) {
                continue;
            }
            if names.len() < DEVICES_MAX { names.push(name) } else { self.left_out += 1 }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The numbers in entries of `prefix` and a number, such as `cpu12`, in their order.
    pub(super) fn numbered(&mut self, directory: &Path, prefix: &str) -> Result<Vec<u32>, SampleError> {
        let names = self.list(directory, prefix)?;
        let mut numbers: Vec<_> = names.iter().filter_map(|name| name.strip_prefix(prefix)?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Opening costs ten times what reading does: what was open stays so.
    fn take_open_files(&mut self, old: &mut Self) {
        let mut files: HashMap<_, _> = old.attributes.iter_mut().filter_map(Attribute::take_open_file).collect();
        if files.is_empty() {
            return;
        }
        for attribute in &mut self.attributes {
            if let Value::File { path, open, .. } = &mut attribute.value {
                *open = files.remove(&*path);
            }
        }
    }

    fn push(&mut self, metric: &Arc<Metric>, labels: &[&str], value: Value) {
        if self.attributes.len() >= READINGS_MAX {
            self.left_out += 1;
            return;
        }
        let labels = labels.iter().map(|&label| label.into()).collect();
        self.attributes.push(Attribute { metric: Arc::clone(metric), labels, value });
    }
}

/// The sampler of a [`Family`].
#[derive(Debug)]
pub(super) struct Sysfs<F> {
    family: F,
    plan: Plan,
    /// Readings until the next scan.
    fresh: u32,
    /// Scans until open files are no longer trusted.
    trusted: u32,
    cap: Cap,
}

impl<F: Family> Sysfs<F> {
    pub(super) fn new(family: F) -> Self {
        Self { family, plan: Plan::default(), fresh: 0, trusted: 0, cap: Cap::new(F::NAME) }
    }

    fn scan(&mut self) -> Result<(), SampleError> {
        let mut plan = Plan::default();
        self.family.scan(&mut plan)?;
        self.cap.left_out(plan.left_out);
        if self.trusted == 0 {
            self.trusted = REOPEN_EVERY;
        } else {
            plan.take_open_files(&mut self.plan);
        }
        self.trusted -= 1;
        self.plan = plan;
        self.fresh = F::SCAN_EVERY;
        Ok(())
    }
}

impl<F: Family> Sampler for Sysfs<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn interval(&self) -> Duration {
        F::INTERVAL
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        if self.fresh == 0 {
            self.scan()?;
        }
        self.fresh -= 1;
        for (place, attribute) in self.plan.attributes.iter_mut().enumerate() {
            if attribute.put(readings, place < F::OPEN_MAX) == Presence::Gone {
                self.fresh = 0;
            }
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Presence {
    There,
    /// The device was taken away.
    Gone,
}

impl Attribute {
    fn take_open_file(&mut self) -> Option<(PathBuf, File)> {
        let Value::File { path, open, .. } = &mut self.value else { return None };
        Some((std::mem::take(path), open.take()?))
    }

    fn put(&mut self, readings: &mut Readings, keep_open: bool) -> Presence {
        let mut labels = [""; LABELS_MAX];
        for (label, own) in labels.iter_mut().zip(&self.labels) {
            *label = own;
        }
        let labels = labels.get(..self.labels.len()).unwrap_or_default();
        match &mut self.value {
            Value::Fixed(count) => readings.integer(&self.metric, labels, *count),
            Value::File { path, open, parse, is_optional } => {
                let count = match read(path, open, keep_open, *parse) {
                    Ok(count) => count,
                    Err(error) if *is_optional && is_not_offered(&error) => return Presence::There,
                    Err(error) => {
                        let reason = if is_gone(&error) { Reason::Lost } else { reason_of(&error) };
                        readings.missing(&self.metric, labels, reason);
                        return if is_gone(&error) { Presence::Gone } else { Presence::There };
                    }
                };
                match count {
                    Err(Reason::Unsupported) if *is_optional => {}
                    count => number::put(readings, &self.metric, labels, count),
                }
            }
        }
        Presence::There
    }
}

fn read(path: &Path, open: &mut Option<File>, keep_open: bool, parse: Parse) -> io::Result<Result<i64, Reason>> {
    let file = match open.take() {
        Some(file) => file,
        None => File::open(path)?,
    };
    let count = read_text(&file, parse)?;
    if keep_open {
        *open = Some(file);
    }
    Ok(count)
}

/// Gives the file's text, without the line's end, to `use_text`.
fn read_text<T>(file: &File, use_text: impl FnOnce(&str) -> T) -> io::Result<T> {
    read_into(file, &mut [0; ATTRIBUTE_BYTES_MAX], use_text)
}

/// One read, as the kernel makes the whole attribute at once. A broken driver's `EAGAIN` is an error
/// like any other.
fn read_into<T>(file: &File, buffer: &mut [u8], use_text: impl FnOnce(&str) -> T) -> io::Result<T> {
    let length = loop {
        match file.read_at(buffer, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            length => break length?,
        }
    };
    Ok(use_text(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).trim()))
}

/// The text of any attribute, without the line's end.
pub(crate) fn attribute(path: &Path) -> io::Result<String> {
    read_into(&File::open(path)?, &mut [0; PAGE_BYTES], str::to_owned)
}

/// The text of an attribute that describes; `None` when it cannot be read.
pub(super) fn text(path: &Path) -> Option<String> {
    read_text(&File::open(path).ok()?, str::to_owned).ok()
}

/// The device does not have this, not in its present state, or not for us.
fn is_not_offered(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, NotFound, PermissionDenied, Unsupported};
    matches!(error.kind(), NotFound | PermissionDenied | InvalidInput | Unsupported)
}

/// `ENXIO` is not among them: a sensor without a probe says so for ever.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::NODEV)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::{SECOND, declare, fixture::Fixture};

    #[derive(Debug)]
    struct Lamps {
        directory: PathBuf,
        metric: Arc<Metric>,
    }

    impl Family for Lamps {
        const NAME: &'static str = "lamps";
        const INTERVAL: Duration = SECOND;
        const OPEN_MAX: usize = 1;

        fn scan(&mut self, plan: &mut Plan) -> Result<(), SampleError> {
            for lamp in plan.list(&self.directory, "lamp")? {
                plan.file(&self.metric, &[&lamp], self.directory.join(&lamp), number::unsigned);
            }
            Ok(())
        }
    }

    fn lamps(fixture: &Fixture) -> Sysfs<Lamps> {
        let metric = declare::gauge("m", &["lamp"], "");
        Sysfs::new(Lamps { directory: fixture.roots().sys, metric })
    }

    #[test]
    fn a_device_that_goes_is_lost_once_and_then_has_no_series() {
        let mut fixture = Fixture::new().sys("lamp0", "7\n").sys("lamp1", "x").sys("other", "1");
        let mut sampler = lamps(&fixture);
        assert_eq!(fixture.print(&mut sampler), "m{lamp=\"lamp0\"} 7\nm{lamp=\"lamp1\"} missing (error)\n");
        fixture = fixture.sys("lamp0", "8").remove_sys("lamp1");
        assert_eq!(fixture.print(&mut sampler), "m{lamp=\"lamp0\"} 8\nm{lamp=\"lamp1\"} missing (lost)\n");
        assert_eq!(fixture.print(&mut sampler), "m{lamp=\"lamp0\"} 8\n");
    }

    #[test]
    fn a_device_that_comes_is_found_after_a_few_readings() {
        let mut fixture = Fixture::new().sys("lamp0", "7");
        let mut sampler = lamps(&fixture);
        fixture.print(&mut sampler);
        fixture = fixture.sys("lamp1", "9");
        for _ in 1..Lamps::SCAN_EVERY {
            assert_eq!(fixture.print(&mut sampler), "m{lamp=\"lamp0\"} 7\n");
        }
        assert_eq!(fixture.print(&mut sampler), "m{lamp=\"lamp0\"} 7\nm{lamp=\"lamp1\"} 9\n");
    }

    #[test]
    fn a_renamed_device_is_not_taken_for_another_for_long() {
        let mut fixture = Fixture::new().sys("lamp0", "7");
        let mut sampler = lamps(&fixture);
        fixture.print(&mut sampler);
        // The open file is the old device's, as after a rename.
        fixture = fixture.remove_sys("lamp0").sys("lamp0", "9");
        let readings = (0..REOPEN_EVERY * Lamps::SCAN_EVERY).map(|_| fixture.print(&mut sampler));
        assert_eq!(readings.last().unwrap(), "m{lamp=\"lamp0\"} 9\n");
    }

    #[test]
    fn no_directory_is_no_series() {
        let fixture = Fixture::new();
        assert_eq!(fixture.print(&mut lamps(&fixture)), "");
    }
}
