//! CPU times and the kernel's counters, from `/proc/stat`.
//!
//! One file, one read: formatting it is the dearest of what the kernel does for us each second. Frequencies
//! are in [`super::cpu_frequency`], throttling in [`super::cpu_throttle`], facts in [`super::cpu_info`].

use std::{sync::Arc, time::Duration};

use belfry_common::model::{Kind, Metric, Reason, Resolution};

use super::{Roots, SECOND, SampleError, Sampler, Source, declare, kernel::KernelCounters, number};
use crate::readings::Readings;

/// The largest `NR_CPUS` that a kernel can be built with.
const CPUS_MAX: usize = 8192;

/// The columns of a CPU's line that are modes; two more are the time spent in guests.
const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
const GUEST_MODES: [&str; 2] = ["user", "nice"];
const COLUMNS: usize = MODES.len() + GUEST_MODES.len();
const IDLE: usize = 3;

/// Idle time that falls back by this much (3 s in hundredths) means that the CPU was taken away and brought back.
const HOTPLUG_TICKS: i64 = 300;

/// Hundredths of a second by column.
type Times = [i64; COLUMNS];

#[derive(Debug)]
pub(crate) struct Cpu {
    source: Source,
    seconds: Arc<Metric>,
    guest_seconds: Arc<Metric>,
    counters: KernelCounters,
    /// What was last said, by the CPU's number.
    said: Vec<Times>,
}

impl Cpu {
    pub(crate) fn new(roots: &Roots) -> Self {
        let times = |name, help| declare::metric(name, Kind::Counter, Resolution::CENTI, &["cpu", "mode"], help);
        Self {
            source: Source::new(roots.proc.join("stat")),
            seconds: times("node_cpu_seconds_total", "Seconds the CPUs spent in each mode."),
            guest_seconds: times(
                "node_cpu_guest_seconds_total",
                "Seconds the CPUs spent in guests (VMs) for each mode.",
            ),
            counters: KernelCounters::new(),
            said: Vec::new(),
        }
    }
}

impl Sampler for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn interval(&self) -> Duration {
        SECOND
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        let text = self.source.read()?;
        let mut cpus = 0;
        for line in text.lines() {
            let Some((name, rest)) = line.split_once(' ') else { continue };
            match name.strip_prefix("cpu") {
                // The sum of all CPUs, which anyone can make.
                Some("") => {}
                Some(cpu) => {
                    let Some(said) = times_of(&mut self.said, cpu) else { continue };
                    cpus += 1;
                    put_cpu(readings, [&self.seconds, &self.guest_seconds], cpu, rest, said);
                }
                None => self.counters.put_line(readings, name, rest),
            }
        }
        if cpus == 0 {
            return Err(self.source.format_error("it names no CPU"));
        }
        self.counters.put_time(readings);
        Ok(())
    }
}

/// What was last said of this CPU; `None` for what is no CPU's number.
fn times_of<'t>(said: &'t mut Vec<Times>, cpu: &str) -> Option<&'t mut Times> {
    let number = cpu.parse::<usize>().ok().filter(|&number| number < CPUS_MAX)?;
    if number >= said.len() {
        said.resize(number + 1, Times::default());
    }
    said.get_mut(number)
}

fn put_cpu(readings: &mut Readings, metrics: [&Arc<Metric>; 2], cpu: &str, rest: &str, said: &mut Times) {
    let mut read = [Err(Reason::Error); COLUMNS];
    for (time, word) in read.iter_mut().zip(rest.split_ascii_whitespace()) {
        *time = number::unsigned(word);
    }
    let steady = steady(&read, said);
    let mut steady = steady.into_iter();
    let [seconds, guest_seconds] = metrics;
    for (mode, time) in MODES.into_iter().zip(&mut steady) {
        number::put(readings, seconds, &[cpu, mode], time);
    }
    for (mode, time) in GUEST_MODES.into_iter().zip(steady) {
        number::put(readings, guest_seconds, &[cpu, mode], time);
    }
}

/// The kernel's idle and iowait times now and then step back by a few ticks, which a rate would take for a
/// restart at zero: a time that does so stays where it was. node_exporter has the same rule.
fn steady(read: &[Result<i64, Reason>; COLUMNS], said: &mut Times) -> [Result<i64, Reason>; COLUMNS] {
    let idle = |times: &[i64]| times.get(IDLE).copied().unwrap_or_default();
    if let Some(Ok(idle_now)) = read.get(IDLE)
        && idle(said.as_slice()) - idle_now >= HOTPLUG_TICKS
    {
        *said = Times::default();
    }
    let mut steady = *read;
    for (time, said) in steady.iter_mut().zip(said) {
        if let Ok(time) = time {
            *said = (*said).max(*time);
            *time = *said;
        }
    }
    steady
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    const STAT: &str = "cpu  301854 612 111922 8979004 3552 2 3944 0 44 36
cpu0 44490 19 21045 1087069 220 1 3410 5 2 1
cpu1 47869 23 16474 1110787 591 0 46 0 3 1
intr 8885917 17 0 0 0 0
ctxt 38014093
btime 1418183276
processes 26442
procs_running 2
procs_blocked 1
softirq 5057579 250191 1481983
";

    #[test]
    fn every_mode_of_every_cpu_and_the_kernels_counters() {
        let fixture = Fixture::new().proc("stat", STAT);
        let printed = fixture.print(&mut Cpu::new(&fixture.roots()));
        let without_time: Vec<_> = printed.lines().filter(|line| !line.starts_with("node_time_seconds ")).collect();
        expect![[r#"
            node_cpu_seconds_total{cpu="0",mode="user"} 444.9
            node_cpu_seconds_total{cpu="0",mode="nice"} 0.19
            node_cpu_seconds_total{cpu="0",mode="system"} 210.45
            node_cpu_seconds_total{cpu="0",mode="idle"} 10870.69
            node_cpu_seconds_total{cpu="0",mode="iowait"} 2.2
            node_cpu_seconds_total{cpu="0",mode="irq"} 0.01
            node_cpu_seconds_total{cpu="0",mode="softirq"} 34.1
            node_cpu_seconds_total{cpu="0",mode="steal"} 0.05
            node_cpu_guest_seconds_total{cpu="0",mode="user"} 0.02
            node_cpu_guest_seconds_total{cpu="0",mode="nice"} 0.01
            node_cpu_seconds_total{cpu="1",mode="user"} 478.69
            node_cpu_seconds_total{cpu="1",mode="nice"} 0.23
            node_cpu_seconds_total{cpu="1",mode="system"} 164.74
            node_cpu_seconds_total{cpu="1",mode="idle"} 11107.87
            node_cpu_seconds_total{cpu="1",mode="iowait"} 5.91
            node_cpu_seconds_total{cpu="1",mode="irq"} 0
            node_cpu_seconds_total{cpu="1",mode="softirq"} 0.46
            node_cpu_seconds_total{cpu="1",mode="steal"} 0
            node_cpu_guest_seconds_total{cpu="1",mode="user"} 0.03
            node_cpu_guest_seconds_total{cpu="1",mode="nice"} 0.01
            node_intr_total 8885917
            node_context_switches_total 38014093
            node_boot_time_seconds 1418183276
            node_forks_total 26442
            node_procs_running 2
            node_procs_blocked 1"#]]
        .assert_eq(&without_time.join("\n"));
        assert_eq!(printed.lines().count(), without_time.len() + 1);
    }

    #[test]
    fn a_time_that_steps_back_a_little_stays_and_a_cpu_that_came_back_starts_again() {
        let idle = |fixture: &Fixture, sampler: &mut Cpu| {
            let printed = fixture.print(sampler);
            let is_idle = |line: &&str| line.contains("\"idle\"") || line.contains("\"user\"");
            printed.lines().filter(is_idle).take(2).collect::<Vec<_>>().join("\n")
        };
        let mut fixture = Fixture::new().proc("stat", "cpu0 100 0 0 1000 50 0 0 0 0 0\n");
        let mut sampler = Cpu::new(&fixture.roots());
        idle(&fixture, &mut sampler);
        fixture = fixture.proc("stat", "cpu0 110 0 0 990 50 0 0 0 0 0\n");
        expect![[r#"
            node_cpu_seconds_total{cpu="0",mode="user"} 1.1
            node_cpu_seconds_total{cpu="0",mode="idle"} 10"#]]
        .assert_eq(&idle(&fixture, &mut sampler));
        fixture = fixture.proc("stat", "cpu0 5 0 0 10 0 0 0 0 0 0\n");
        expect![[r#"
            node_cpu_seconds_total{cpu="0",mode="user"} 0.05
            node_cpu_seconds_total{cpu="0",mode="idle"} 0.1"#]]
        .assert_eq(&idle(&fixture, &mut sampler));
    }

    #[test]
    fn garbled_times_are_missing_and_no_cpu_is_an_error() {
        let mut fixture = Fixture::new().proc("stat", "cpu0 1 x -3\ncpu99999999999 1 2\ncpufoo 1\nctxt\nintr \n");
        let mut sampler = Cpu::new(&fixture.roots());
        expect![[r#"
            node_cpu_seconds_total{cpu="0",mode="user"} 0.01
            node_cpu_seconds_total{cpu="0",mode="nice"} missing (error)
            node_cpu_seconds_total{cpu="0",mode="system"} missing (out_of_range)
            node_cpu_seconds_total{cpu="0",mode="idle"} missing (error)
            node_cpu_seconds_total{cpu="0",mode="iowait"} missing (error)
            node_cpu_seconds_total{cpu="0",mode="irq"} missing (error)
            node_cpu_seconds_total{cpu="0",mode="softirq"} missing (error)
            node_cpu_seconds_total{cpu="0",mode="steal"} missing (error)
            node_cpu_guest_seconds_total{cpu="0",mode="user"} missing (error)
            node_cpu_guest_seconds_total{cpu="0",mode="nice"} missing (error)
            node_intr_total missing (error)
        "#]]
        .assert_eq(&fixture.print_without(&mut sampler, "node_time_seconds"));
        fixture = fixture.proc("stat", "");
        assert!(fixture.try_print(&mut sampler).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".*|(cpu|intr|ctxt)[0-9]{0,4} [0-9 x-]{0,60}\n") {
            let fixture = Fixture::new().proc("stat", &text);
            let _ = fixture.try_print(&mut Cpu::new(&fixture.roots()));
        }
    }
}
