//! One card: where its files are, what it offers, and how what they say becomes values that can be believed.

use std::{
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    rc::Rc,
};

use belfry_common::{
    model::{Reason, Timestamp},
    wire::message::GpuIdentity,
};
use rustix::io::Errno;

use super::{
    super::{board::Board, offers::Offers, presence::driver_of, series::Series},
    find::{DRIVER, Found},
    link,
};
use crate::samplers::{attribute, number};

/// Temperatures of one card.
const SENSORS_MAX: u32 = 3;
/// Blocks that count memory errors: there are some twenty kinds.
const BLOCKS_MAX: usize = 32;

/// A card.
pub(super) struct Card {
    pub(super) address: String,
    /// `card1`
    pub(super) name: String,
    pub(super) uuid: String,
    index: u32,
    index_text: String,
    /// Its PCI device.
    directory: PathBuf,
    /// The port by which the card is connected, see [`link`].
    port: PathBuf,
    hwmon: Option<PathBuf>,
    /// Taken while they are read.
    pub(super) sensors: Vec<Sensor>,
    /// The parts that count memory errors. Taken while they are read.
    pub(super) blocks: Vec<String>,
    /// µW that it may be allowed to draw.
    power_max: Option<u64>,
    offers: Offers<String>,
    is_asleep: bool,
    board: Rc<Board>,
}

/// A temperature.
pub(super) struct Sensor {
    pub(super) place: Place,
    /// Names of its files.
    pub(super) input: String,
    pub(super) critical: String,
    pub(super) emergency: String,
    /// m°C at which the card shuts down.
    shutdown: Option<i64>,
}

/// Where a temperature is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The edge of the die.
    Edge,
    /// The hottest place of the die: what the card slows down by.
    Junction,
    Memory,
}

impl Place {
    /// By the driver's word.
    fn from_label(label: &str) -> Option<Self> {
        match label {
            "edge" => Some(Self::Edge),
            "junction" => Some(Self::Junction),
            "mem" => Some(Self::Memory),
            _ => None,
        }
    }

    /// The word used in labels.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Junction => "junction",
            Self::Memory => "memory",
        }
    }
}

impl Sensor {
    /// m°C. What shuts the card down may be overrun, but not by much.
    pub(super) fn range(&self) -> RangeInclusive<i64> {
        -50_000..=self.shutdown.map_or(150_000, |shutdown| shutdown + 20_000)
    }
}

impl Card {
    /// A card whose files have not been looked at.
    pub(super) fn new(found: Found, board: Rc<Board>) -> Self {
        Self {
            port: link::port(&found.directory),
            address: found.address,
            name: found.name,
            uuid: String::new(),
            index: 0,
            index_text: String::new(),
            directory: found.directory,
            hwmon: None,
            sensors: Vec::new(),
            blocks: Vec::new(),
            power_max: None,
            offers: Offers::default(),
            is_asleep: false,
            board,
        }
    }

    pub(super) fn number(&mut self, index: u32) {
        self.index = index;
        self.index_text = index.to_string();
    }

    /// Learns its unique name, which the driver keeps in memory; older cards have none but their address.
    pub(super) fn identify(&mut self) {
        if self.uuid.is_empty() {
            let id = self.glance("unique_id").filter(|id| !id.is_empty());
            self.uuid = id.map_or_else(|| self.address.clone(), |id| format!("GPU-{id}"));
        }
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    pub(super) fn identity(&self) -> GpuIdentity {
        GpuIdentity { index: self.index, uuid: self.uuid.clone(), pci_bus_id: self.address.clone() }
    }

    /// Begins a tick: whether the card is awake and there, and where its sensors are.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.offers.begin(now);
        self.is_asleep = self.sleeps();
        if self.is_asleep {
            return;
        }
        if !self.is_driven() || self.is_off_the_bus() {
            self.offers.lose();
        } else if self.hwmon.as_ref().is_none_or(|hwmon| !hwmon.is_dir()) {
            self.discover();
        }
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.is_asleep
    }

    pub(super) fn is_lost(&self) -> bool {
        self.offers.is_lost()
    }

    pub(super) fn answers(&self) -> bool {
        self.offers.answers()
    }

    pub(super) fn unsupported(&self) -> usize {
        self.offers.unsupported()
    }

    /// Finds its sensors and limits: at first, and when the driver was loaded anew.
    pub(super) fn discover(&mut self) {
        if self.is_asleep || self.is_lost() {
            return;
        }
        self.note("hwmon");
        let list = |directory: &str| names(&self.directory.join(directory)).unwrap_or_default().into_iter();
        let found = list("hwmon").find(|name| name.starts_with("hwmon"));
        let blocks = list("ras").filter_map(|name| block(&name)).take(BLOCKS_MAX).collect();
        self.hwmon = found.map(|name| self.directory.join("hwmon").join(name));
        self.blocks = blocks;
        self.sensors = (1..=SENSORS_MAX).filter_map(|channel| self.sensor(channel)).collect();
        let limits = ["power1_cap_max", "power1_cap_default"];
        let limit = |card: &mut Self, name| card.sensor_number(name).and_then(Result::ok).filter(|limit| *limit > 0);
        self.power_max = limits.into_iter().find_map(|name| limit(self, name));
    }

    /// Old kernels have one temperature, and no name for it.
    fn sensor(&mut self, channel: u32) -> Option<Sensor> {
        let file = |property: &str| format!("temp{channel}_{property}");
        let place = match self.sensor_text(&file("label")) {
            Some(label) => Place::from_label(&label.ok()?)?,
            None if channel == 1 => Place::Edge,
            None => return None,
        };
        let emergency = file("emergency");
        let shutdown = self.temperature(&emergency).and_then(Result::ok);
        let shutdown = shutdown.filter(|millicelsius| (1000..200_000).contains(millicelsius));
        Some(Sensor { place, input: file("input"), critical: file("crit"), emergency, shutdown })
    }

    /// µW. Peaks of milliseconds go beyond the limit, but not to its double.
    pub(super) fn power_range(&self) -> RangeInclusive<u64> {
        0..=self.power_max.map_or(3_000_000_000, |max| max.saturating_mul(2))
    }

    /// A file of the device itself. `None` if it has none such, or sleeps.
    pub(super) fn text(&mut self, name: &str) -> Option<Result<String, Reason>> {
        let path = self.directory.join(name);
        self.ask(name, &path)
    }

    pub(super) fn count_of(&mut self, name: &str) -> Option<Result<u64, Reason>> {
        self.text(name).map(|text| unsigned(&text?))
    }

    /// A file of its sensors.
    pub(super) fn sensor_text(&mut self, name: &str) -> Option<Result<String, Reason>> {
        let path = self.hwmon.as_ref()?.join(name);
        self.ask(name, &path)
    }

    pub(super) fn sensor_number(&mut self, name: &str) -> Option<Result<u64, Reason>> {
        self.sensor_text(name).map(|text| unsigned(&text?))
    }

    /// m°C
    pub(super) fn temperature(&mut self, name: &str) -> Option<Result<i64, Reason>> {
        self.sensor_text(name).map(|text| number::signed(&text?))
    }

    /// A file of the port that connects the card, or of the slot's at the other end.
    pub(super) fn link_text(&mut self, end: link::End, name: &str) -> Option<Result<String, Reason>> {
        let (directory, key) = match end {
            link::End::Card => (Some(&*self.port), format!("port/{name}")),
            link::End::Slot => (self.port.parent(), format!("slot/{name}")),
        };
        let path = directory?.join(name);
        self.ask(&key, &path)
    }

    /// A word that the kernel has without asking the card.
    pub(super) fn glance(&self, name: &str) -> Option<String> {
        self.note(name);
        attribute(&self.directory.join(name)).ok()
    }

    fn ask(&mut self, key: &str, path: &Path) -> Option<Result<String, Reason>> {
        if self.is_asleep || !self.offers.offers(key) {
            return None;
        }
        if self.is_lost() {
            return Some(Err(Reason::Lost));
        }
        self.note(key);
        let answer = match attribute(path) {
            // The driver's way to say that there is no such limit or name.
            Ok(text) if text.is_empty() => Err(Reason::Unsupported),
            Ok(text) => Ok(text),
            // It fell asleep since the beginning of the tick.
            Err(error) if is_busy(&error) && self.sleeps() => {
                self.is_asleep = true;
                return None;
            }
            Err(_) if !self.is_driven() => Err(Reason::Lost),
            Err(error) => Err(reason(&error)),
        };
        self.offers.note(key, answer)
    }

    fn note(&self, name: &str) {
        self.board.note(name, Some(self.index));
    }

    /// A kernel without runtime power management has no such file, and no card that sleeps.
    fn sleeps(&self) -> bool {
        matches!(self.glance("power/runtime_status").as_deref(), Some("suspended" | "suspending"))
    }

    fn is_driven(&self) -> bool {
        driver_of(&self.directory).is_some_and(|driver| driver == DRIVER)
    }

    /// Registers of a device that does not answer read as ones, which no link is as wide as.
    fn is_off_the_bus(&self) -> bool {
        self.glance("current_link_width").is_some_and(|width| width == link::ALL_ONES)
    }
}

impl Series for Card {
    fn names(&self) -> [&str; 2] {
        [&self.index_text, &self.uuid]
    }
}

/// The names in a directory, sorted.
pub(super) fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(directory)?.flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}

/// `umc` of `umc_err_count`
fn block(file: &str) -> Option<String> {
    file.strip_suffix("_err_count").map(str::to_owned)
}

pub(super) fn unsigned(text: &str) -> Result<u64, Reason> {
    number::unsigned(text).map(i64::unsigned_abs)
}

/// The driver lets nobody in: the card sleeps, or resets itself.
fn is_busy(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::PERM | Errno::BUSY))
}

/// What an error of a file says about its reading.
fn reason(error: &io::Error) -> Reason {
    match Errno::from_io_error(error) {
        Some(Errno::NODEV) => Reason::Lost,
        Some(Errno::NOENT | Errno::INVAL | Errno::OPNOTSUPP | Errno::NODATA) => Reason::Unsupported,
        Some(Errno::ACCESS) => Reason::Permission,
        Some(Errno::TIME | Errno::TIMEDOUT) => Reason::Timeout,
        _ => Reason::Error,
    }
}
