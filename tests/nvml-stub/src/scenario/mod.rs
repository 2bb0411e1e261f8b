//! The scenario: which GPUs there are, what they read, and what goes wrong. See the crate's page for its file.
//!
//! Pure: text in, `Scenario` out. Reading and watching the file is `library`'s.

mod fault;
mod gpu;
mod number;

use std::{
    fmt::{self, Write},
    path::PathBuf,
    str::FromStr,
};

use serde::Deserialize;

pub(crate) use fault::{Effect, Fault};
pub(crate) use gpu::{Gpu, Process, ProcessKind};
pub(crate) use number::{Curve, Number};

use crate::codes::Code;
use gpu::GpuEntry;

/// More GPUs than any machine has; a handle has 16 bits for them.
const GPUS_MAX: usize = 256;

/// A scenario that makes sense.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "ScenarioFile")]
pub(crate) struct Scenario {
    pub(crate) driver_version: String,
    pub(crate) nvml_version: String,
    pub(crate) cuda_version: i32,
    pub(crate) init_error: Option<Code>,
    pub(crate) log: Option<PathBuf>,
    pub(crate) gpus: Vec<Gpu>,
    faults: Vec<Fault>,
    pub(crate) xids: Vec<Xid>,
}

impl Scenario {
    /// What befalls a call at so many seconds after the scenario was loaded.
    pub(crate) fn fault(&self, call: &str, gpu: Option<usize>, seconds: f64) -> Option<Effect> {
        self.faults.iter().find(|fault| fault.matches(call, gpu, seconds)).map(|fault| fault.effect)
    }

    /// What befalls one value of `nvmlDeviceGetFieldValues`.
    pub(crate) fn field_fault(&self, field: u32, gpu: usize, seconds: f64) -> Option<Effect> {
        self.faults.iter().find(|fault| fault.matches_field(field, gpu, seconds)).map(|fault| fault.effect)
    }

    /// Whether the driver counts the times of clock events under the ids of CUDA 13.0 Update 1.
    pub(crate) fn has_renumbered_fields(&self) -> bool {
        let mut parts = self.driver_version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        version >= (580, 82)
    }
}

impl FromStr for Scenario {
    type Err = toml::de::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        toml::from_str(text)
    }
}

/// An XID event to come.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Xid {
    pub(crate) gpu: usize,
    pub(crate) code: u64,
    /// Seconds since the scenario was loaded.
    #[serde(default)]
    pub(crate) at: f64,
    pub(crate) gpu_instance: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenarioFile {
    #[serde(default = "driver_version")]
    driver_version: String,
    #[serde(default = "nvml_version")]
    nvml_version: String,
    #[serde(default = "cuda_version")]
    cuda_version: i32,
    init_error: Option<Code>,
    log: Option<PathBuf>,
    #[serde(default)]
    gpu: Vec<GpuEntry>,
    #[serde(default)]
    fault: Vec<Fault>,
    #[serde(default)]
    xid: Vec<Xid>,
}

fn driver_version() -> String {
    "550.90.07".to_owned()
}

fn nvml_version() -> String {
    "12.550.90.07".to_owned()
}

fn cuda_version() -> i32 {
    12_040
}

impl TryFrom<ScenarioFile> for Scenario {
    type Error = ScenarioError;

    fn try_from(file: ScenarioFile) -> Result<Self, ScenarioError> {
        let mut gpus = Vec::new();
        for entry in file.gpu {
            if entry.count > 1 && entry.uuid.is_some() {
                return Err(ScenarioError::SharedUuid);
            }
            if entry.count > GPUS_MAX - gpus.len() {
                return Err(ScenarioError::TooManyGpus);
            }
            for _ in 0..entry.count {
                gpus.push(Gpu::new(&entry, gpus.len()));
            }
        }
        if let Some(xid) = file.xid.iter().find(|xid| xid.gpu >= gpus.len()) {
            return Err(ScenarioError::NoSuchGpu { gpu: xid.gpu });
        }
        let ScenarioFile { driver_version, nvml_version, cuda_version, init_error, log, .. } = file;
        let (faults, xids) = (file.fault, file.xid);
        Ok(Self { driver_version, nvml_version, cuda_version, init_error, log, gpus, faults, xids })
    }
}

/// Why a scenario makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScenarioError {
    SharedUuid,
    TooManyGpus,
    NoSuchGpu { gpu: usize },
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SharedUuid => f.write_str("`uuid` goes with a count of 1 only"),
            Self::TooManyGpus => write!(f, "more than {GPUS_MAX} GPUs"),
            Self::NoSuchGpu { gpu } => write!(f, "an xid names GPU {gpu}, which is not there"),
        }
    }
}

/// A UUID that is always the same for the same seed, and looks like any other.
pub(crate) fn uuid(prefix: &str, seed: u64) -> String {
    let words = [seed.wrapping_mul(2), seed.wrapping_mul(2).wrapping_add(1)].map(mix);
    let mut uuid = prefix.to_owned();
    for (at, byte) in words.into_iter().flat_map(u64::to_be_bytes).enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            uuid.push('-');
        }
        write!(uuid, "{byte:02x}").expect("writing to a string does not fail");
    }
    uuid
}

/// One step of SplitMix64 (Steele, Lea and Flood, 2014): every bit of the seed reaches every bit of the result.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{kinds::Kind, readings::Reading};

    fn problem(text: &str) -> String {
        Scenario::from_str(text).unwrap_err().message().to_owned()
    }

    #[test]
    fn a_scenario_is_what_its_file_says() {
        let text = r#"
            driver_version = "580.95.05"
            init_error = "driver_not_loaded"
            [[gpu]]
            kind = "h100"
            count = 2
            [gpu.values]
            temperature = 45
            power_instant = { from = 100000, per_second = 500, max = 700000 }
            [[gpu.process]]
            pid = 1234
            memory = 1073741824
            sm = 90
            [[gpu]]
            kind = "h100_mig"
            uuid = "GPU-x"
            lost = true
            [[xid]]
            gpu = 2
            code = 79
            at = 2.0
        "#;
        let scenario = Scenario::from_str(text).unwrap();
        assert_eq!((scenario.driver_version.as_str(), scenario.cuda_version), ("580.95.05", 12_040));
        assert_eq!(scenario.init_error, Some(Code::DriverNotLoaded));
        let [first, second, third] = scenario.gpus.as_slice() else { panic!("{:?}", scenario.gpus) };
        assert_eq!((first.kind, third.kind), (Kind::H100, Kind::H100Mig));
        assert_eq!((first.is_lost, third.is_lost), (false, true));
        assert_eq!(first.values.len(), 2);
        assert_eq!(second.values[&Reading::PowerInstant].at(1.0), 100_500.0);
        assert_eq!((second.processes[0].sm, second.processes[0].kind), (90, ProcessKind::Compute));
        assert_eq!(third.uuid, "GPU-x");
        assert_eq!(scenario.xids, [Xid { gpu: 2, code: 79, at: 2.0, gpu_instance: None }]);
    }

    #[test]
    fn nothing_is_a_scenario_without_gpus() {
        let scenario = Scenario::from_str("").unwrap();
        assert_eq!((scenario.driver_version.as_str(), scenario.nvml_version.as_str()), ("550.90.07", "12.550.90.07"));
        assert_eq!(scenario.gpus, []);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(problem("gpus = 1").contains("unknown field `gpus`"));
        assert!(problem("[[gpu]]\nkind = \"v100\"").contains("unknown variant `v100`"));
        assert!(problem("[[gpu]]\nkind = \"t4\"\nvalues = { heat = 1 }").contains("unknown variant `heat`"));
        assert!(problem("[[gpu]]\nkind = \"t4\"\n[[gpu.process]]\npid = 1\nname = \"a\"").contains("`name`"));
        assert!(problem("[[xid]]\ngpu = 0\ncode = 79").contains("names GPU 0"));
        assert!(problem("[[gpu]]\nkind = \"t4\"\ncount = 2\nuuid = \"GPU-x\"").contains("count of 1"));
        assert!(problem("[[gpu]]\nkind = \"t4\"\ncount = 1000").contains("more than 256"));
    }

    #[test]
    fn the_first_fault_that_matches_wins() {
        let text = r#"
            [[fault]]
            call = "a"
            until = 1.0
            delay_ms = 5
            [[fault]]
            call = "a"
            gpu = 1
            hang = true
            [[fault]]
            call = "*"
            error = "timeout"
        "#;
        let scenario = Scenario::from_str(text).unwrap();
        assert_eq!(scenario.fault("a", Some(1), 0.5), Some(Effect::Delay(Duration::from_millis(5))));
        assert_eq!(scenario.fault("a", Some(1), 1.5), Some(Effect::Hang));
        assert_eq!(scenario.fault("a", Some(0), 1.5), Some(Effect::Error(Code::Timeout)));
        assert_eq!(scenario.fault("b", None, 0.5), Some(Effect::Error(Code::Timeout)));
    }

    #[test]
    fn uuids_are_stable_and_apart() {
        let text = "[[gpu]]\nkind = \"h100\"\ncount = 8";
        let uuids = || Scenario::from_str(text).unwrap().gpus.into_iter().map(|gpu| gpu.uuid).collect::<Vec<_>>();
        let (first, mut again) = (uuids(), uuids());
        assert_eq!(first, again);
        assert_eq!((first[0].len(), &first[0][..4]), (40, "GPU-"));
        again.sort_unstable();
        again.dedup();
        assert_eq!(again.len(), 8);
    }

    #[test]
    fn the_driver_decides_which_field_ids_mean_what() {
        let renumbered = |version: &str| {
            let scenario = Scenario::from_str(&format!("driver_version = \"{version}\"")).unwrap();
            scenario.has_renumbered_fields()
        };
        assert_eq!(["550.90.07", "580.65.06", "580.82.07", "590.10"].map(renumbered), [false, false, true, true]);
    }
}
