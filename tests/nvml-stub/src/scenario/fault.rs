//! Faults: which calls go wrong, when, and how.

use std::{fmt, time::Duration};

use serde::Deserialize;

use super::Number;
use crate::codes::Code;

/// The call that answers field by field.
pub(crate) const FIELD_VALUES: &str = "nvmlDeviceGetFieldValues";

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "FaultEntry")]
pub(crate) struct Fault {
    /// `None`: every call.
    call: Option<String>,
    gpu: Option<usize>,
    field: Option<u32>,
    /// Seconds since the scenario was loaded.
    from: f64,
    until: f64,
    pub(crate) effect: Effect,
}

/// How it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Effect {
    Error(Code),
    /// The call succeeds and its first output is this.
    Value(Number),
    Hang,
    Crash,
    Delay(Duration),
}

impl Fault {
    /// Whether it befalls a call as a whole.
    pub(crate) fn matches(&self, call: &str, gpu: Option<usize>, seconds: f64) -> bool {
        self.field.is_none()
            && self.call.as_deref().is_none_or(|name| name == call)
            && (self.gpu.is_none() || self.gpu == gpu)
            && self.is_on(seconds)
    }

    /// Whether it befalls one field of `nvmlDeviceGetFieldValues`.
    pub(crate) fn matches_field(&self, field: u32, gpu: usize, seconds: f64) -> bool {
        self.field == Some(field) && self.gpu.is_none_or(|index| index == gpu) && self.is_on(seconds)
    }

    fn is_on(&self, seconds: f64) -> bool {
        (self.from..self.until).contains(&seconds)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultEntry {
    call: String,
    gpu: Option<usize>,
    field: Option<u32>,
    #[serde(default)]
    from: f64,
    until: Option<f64>,
    error: Option<Code>,
    value: Option<Number>,
    #[serde(default)]
    hang: bool,
    #[serde(default)]
    crash: bool,
    delay_ms: Option<u64>,
}

impl FaultEntry {
    /// Everything that it says should happen.
    fn effects(&self) -> Vec<Effect> {
        let effects = [
            self.error.map(Effect::Error),
            self.value.map(Effect::Value),
            self.hang.then_some(Effect::Hang),
            self.crash.then_some(Effect::Crash),
            self.delay_ms.map(|ms| Effect::Delay(Duration::from_millis(ms))),
        ];
        effects.into_iter().flatten().collect()
    }
}

impl TryFrom<FaultEntry> for Fault {
    type Error = FaultError;

    fn try_from(entry: FaultEntry) -> Result<Self, FaultError> {
        let &[effect] = entry.effects().as_slice() else { return Err(FaultError::Effects) };
        if entry.field.is_some() {
            if entry.call != FIELD_VALUES {
                return Err(FaultError::FieldOfOtherCall);
            }
            if !matches!(effect, Effect::Error(_) | Effect::Value(_)) {
                return Err(FaultError::FieldEffect);
            }
        }
        let FaultEntry { call, gpu, field, from, until, .. } = entry;
        let call = (call != "*").then_some(call);
        Ok(Self { call, gpu, field, from, until: until.unwrap_or(f64::INFINITY), effect })
    }
}

/// Why a fault is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultError {
    Effects,
    FieldOfOtherCall,
    FieldEffect,
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Effects => f.write_str("a fault has exactly one of error, value, hang, crash and delay_ms"),
            Self::FieldOfOtherCall => write!(f, "`field` goes with call = \"{FIELD_VALUES}\" only"),
            Self::FieldEffect => f.write_str("a field's fault is an error or a value"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Result<Fault, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_fault_matches_its_call_its_gpu_and_its_time() {
        let fault = fault("call = \"a\"\ngpu = 3\nfrom = 2.0\nuntil = 10.0\nerror = \"gpu_is_lost\"").unwrap();
        assert_eq!(fault.effect, Effect::Error(Code::GpuIsLost));
        assert!(fault.matches("a", Some(3), 2.0));
        assert!(!fault.matches("b", Some(3), 2.0), "another call");
        assert!(!fault.matches("a", Some(2), 2.0) && !fault.matches("a", None, 2.0), "another GPU");
        assert!(!fault.matches("a", Some(3), 1.9) && !fault.matches("a", Some(3), 10.0), "another time");
    }

    #[test]
    fn a_star_matches_every_call() {
        let fault = fault("call = \"*\"\ndelay_ms = 1500").unwrap();
        assert_eq!(fault.effect, Effect::Delay(Duration::from_millis(1500)));
        assert!(fault.matches("a", Some(3), 0.0) && fault.matches("b", None, 1e9));
    }

    #[test]
    fn a_fields_fault_spares_the_call() {
        let fault = fault("call = \"nvmlDeviceGetFieldValues\"\nfield = 186\nvalue = 4294967295").unwrap();
        assert!(fault.matches_field(186, 0, 0.0) && !fault.matches_field(185, 0, 0.0));
        assert!(!fault.matches(FIELD_VALUES, Some(0), 0.0));
    }

    #[test]
    fn a_fault_has_one_effect() {
        let problem = |text: &str| fault(text).unwrap_err();
        assert!(problem("call = \"a\"").contains("exactly one of"));
        assert!(problem("call = \"a\"\nhang = true\ncrash = true").contains("exactly one of"));
        assert!(problem("call = \"a\"\nfield = 1\nvalue = 1").contains("goes with call"));
        assert!(problem("call = \"nvmlDeviceGetFieldValues\"\nfield = 1\nhang = true").contains("an error or a value"));
        assert!(problem("call = \"a\"\nerror = \"lost\"").contains("unknown variant `lost`"));
        assert!(problem("call = \"a\"\nhang = true\nfor = 1").contains("unknown field `for`"));
    }
}
