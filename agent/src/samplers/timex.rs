//! How well this machine's clock is kept, from adjtimex(2).
//!
//! The call only reads: no bit of `modes` is set. A sandbox may forbid it all the same; then the readings are missing.

use std::{io, sync::Arc, time::Duration};

use belfry_common::model::{Kind, Metric, Resolution};

use super::{SampleError, Sampler, TEN_SECONDS, declare, reason_of};
use crate::readings::Readings;

/// `TIME_ERROR`: the clock is not synchronised to a reliable server.
const TIME_ERROR: i32 = 5;
/// `STA_NANO`: some fields are nanoseconds, not microseconds.
const STA_NANO: i32 = 0x2000;
/// Parts per million with 16 bits after the point.
const PPM_16: f64 = 65_536.0 * 1e6;

/// The fields in the order in which they are said.
const FIELDS: [(&str, Kind, Resolution, &str); 17] = [
    ("sync_status", Kind::Gauge, Resolution::ONE, "Is clock synchronized to a reliable server (1 = yes, 0 = no)."),
    ("offset_seconds", Kind::Gauge, Resolution::NANO, "Time offset in between local system and reference clock."),
    ("frequency_adjustment_ratio", Kind::Gauge, Resolution::Float, "Local clock frequency adjustment."),
    ("maxerror_seconds", Kind::Gauge, Resolution::MICRO, "Maximum error in seconds."),
    ("estimated_error_seconds", Kind::Gauge, Resolution::MICRO, "Estimated error in seconds."),
    ("status", Kind::Gauge, Resolution::ONE, "Value of the status array bits."),
    ("loop_time_constant", Kind::Gauge, Resolution::ONE, "Phase-locked loop time constant."),
    ("tick_seconds", Kind::Gauge, Resolution::MICRO, "Seconds between clock ticks."),
    ("pps_frequency_hertz", Kind::Gauge, Resolution::Float, "Pulse per second frequency."),
    ("pps_jitter_seconds", Kind::Gauge, Resolution::NANO, "Pulse per second jitter."),
    ("pps_shift_seconds", Kind::Gauge, Resolution::ONE, "Pulse per second interval duration."),
    (
        "pps_stability_hertz",
        Kind::Gauge,
        Resolution::Float,
        "Pulse per second stability, average of recent frequency changes.",
    ),
    ("pps_jitter_total", Kind::Counter, Resolution::ONE, "Pulse per second count of jitter limit exceeded events."),
    ("pps_calibration_total", Kind::Counter, Resolution::ONE, "Pulse per second count of calibration intervals."),
    ("pps_error_total", Kind::Counter, Resolution::ONE, "Pulse per second count of calibration errors."),
    (
        "pps_stability_exceeded_total",
        Kind::Counter,
        Resolution::ONE,
        "Pulse per second count of stability limit exceeded events.",
    ),
    ("tai_offset_seconds", Kind::Gauge, Resolution::ONE, "International Atomic Time (TAI) offset."),
];

#[derive(Debug)]
pub(crate) struct Timex {
    metrics: [Arc<Metric>; FIELDS.len()],
}

impl Timex {
    pub(crate) fn new() -> Self {
        let declare = |(name, kind, resolution, help)| {
            declare::metric(&format!("node_timex_{name}"), kind, resolution, &[], help)
        };
        Self { metrics: FIELDS.map(declare) }
    }
}

impl Sampler for Timex {
    fn name(&self) -> &'static str {
        "timex"
    }

    fn interval(&self) -> Duration {
        TEN_SECONDS
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        match adjtimex::read() {
            Ok((state, timex)) => {
                for (metric, value) in self.metrics.iter().zip(values(state, &timex)) {
                    readings.float(metric, &[], value);
                }
            }
            Err(error) => {
                for metric in &self.metrics {
                    readings.missing(metric, &[], reason_of(&error));
                }
            }
        }
        Ok(())
    }
}

fn values(state: i32, timex: &adjtimex::Timex) -> [f64; FIELDS.len()] {
    let fine = if timex.status & STA_NANO == 0 { 1e6 } else { 1e9 };
    [
        f64::from(u8::from(state != TIME_ERROR)),
        timex.offset as f64 / fine,
        1.0 + timex.freq as f64 / PPM_16,
        timex.maxerror as f64 / 1e6,
        timex.esterror as f64 / 1e6,
        f64::from(timex.status),
        timex.constant as f64,
        timex.tick as f64 / 1e6,
        timex.ppsfreq as f64 / PPM_16,
        timex.jitter as f64 / fine,
        f64::from(timex.shift),
        timex.stabil as f64 / PPM_16,
        timex.jitcnt as f64,
        timex.calcnt as f64,
        timex.errcnt as f64,
        timex.stbcnt as f64,
        f64::from(timex.tai),
    ]
}

/// The one system call that no safe library offers.
#[expect(unsafe_code, reason = "no safe library offers adjtimex(2)")]
mod adjtimex {
    use std::ffi::{c_int, c_long};

    use super::io;

    /// `struct timex` of <sys/timex.h>, the same for all 64-bit architectures of Linux.
    #[repr(C)]
    #[derive(Debug, Default)]
    pub(super) struct Timex {
        pub(super) modes: c_int,
        pub(super) offset: c_long,
        pub(super) freq: c_long,
        pub(super) maxerror: c_long,
        pub(super) esterror: c_long,
        pub(super) status: c_int,
        pub(super) constant: c_long,
        pub(super) precision: c_long,
        pub(super) tolerance: c_long,
        pub(super) time: [c_long; 2],
        pub(super) tick: c_long,
        pub(super) ppsfreq: c_long,
        pub(super) jitter: c_long,
        pub(super) shift: c_int,
        pub(super) stabil: c_long,
        pub(super) jitcnt: c_long,
        pub(super) calcnt: c_long,
        pub(super) errcnt: c_long,
        pub(super) stbcnt: c_long,
        pub(super) tai: c_int,
        pub(super) reserved: [c_int; 11],
    }

    // The kernel writes this many bytes.
    const _: () = assert!(size_of::<Timex>() == 208, "struct timex is only known for 64-bit architectures");

    // SAFETY: the declaration is that of <sys/timex.h> in glibc and musl.
    unsafe extern "C" {
        fn adjtimex(timex: *mut Timex) -> c_int;
    }

    /// The clock's state and what the kernel knows of it.
    pub(super) fn read() -> io::Result<(c_int, Timex)> {
        let mut timex = Timex::default();
        // SAFETY: `timex` is a valid `struct timex` of the size that the kernel writes, it outlives the call, and any
        // bytes are valid for its fields. `modes` is 0: nothing is set.
        let state = unsafe { adjtimex(&raw mut timex) };
        if state < 0 { Err(io::Error::last_os_error()) } else { Ok((state, timex)) }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::print;

    #[test]
    fn the_kernel_answers() {
        let printed = print(&mut Timex::new()).unwrap();
        assert_eq!(printed.lines().count(), FIELDS.len());
        assert!(
            printed.contains("node_timex_tick_seconds 0.01\n") || printed.contains("missing (permission)"),
            "{printed}"
        );
    }

    #[test]
    fn fields_are_brought_to_seconds_and_ratios() {
        let nano = adjtimex::Timex { status: STA_NANO, offset: 1500, freq: 65_536, ..Default::default() };
        expect!["Some([1.0, 1.5e-6, 1.000001, 0.0])"].assert_eq(&format!("{:?}", values(0, &nano).get(..4)));
        let micro = adjtimex::Timex { offset: 1500, maxerror: 16_000_000, tick: 10_000, ..Default::default() };
        expect!["Some([0.0, 0.0015, 1.0, 16.0])"].assert_eq(&format!("{:?}", values(TIME_ERROR, &micro).get(..4)));
    }
}
