//! What happens to the nodes of a demonstration: jobs come and go, and now and then something breaks.
//!
//! Pure: everything follows from a seed and the time since the beginning, so that all nodes tell the same story.

/// GPUs of a node.
pub(super) const GPUS: usize = 8;
/// Nodes that train together.
const TEAM: usize = 2;
/// The first incident comes soon, so that nobody waits for it; then one follows the other.
const FIRST_INCIDENT: f64 = 40.0;
const BETWEEN_INCIDENTS: f64 = 110.0;
/// How long one lasts: the machine is then repaired, as it were.
pub(super) const INCIDENT: f64 = 240.0;
/// Jobs take from 15 to 40 minutes.
const JOB: (f64, f64) = (900.0, 1500.0);

const NAMES: [(&str, &str); 6] = [
    ("llama-70b-pretrain", "ada"),
    ("mixtral-sft", "grace"),
    ("diffusion-xl", "alan"),
    ("protein-fold", "rosalind"),
    ("speech-large", "claude"),
    ("vision-encoder", "katherine"),
];

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Incident {
    /// A GPU falls off the bus.
    BusLoss,
    /// A GPU's PCI Express link loses lanes, and the whole job waits for it.
    Straggler,
    /// A file system fills up.
    FullDisk,
    /// A GPU gets too hot.
    Heat,
}

/// A job that runs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) name: &'static str,
    pub(super) user: &'static str,
    /// Seconds since it began.
    age: f64,
}

/// How a GPU is at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gpu {
    pub(super) is_lost: bool,
    pub(super) utilization: f64,
    pub(super) tensor: f64,
    pub(super) memory_used: f64,
    pub(super) power_watts: f64,
    pub(super) temperature: f64,
    pub(super) clock_hertz: f64,
    pub(super) pcie_width: f64,
    pub(super) is_hot: bool,
    /// Whether a process of the node's job holds it.
    pub(super) is_held: bool,
}

/// Bytes.
pub(super) const MEMORY_TOTAL: f64 = 85_520_809_984.0;

/// The story of so many nodes.
#[derive(Debug, Clone)]
pub(super) struct Story {
    nodes: usize,
    seed: u64,
}

impl Story {
    pub(super) fn new(nodes: usize, seed: u64) -> Self {
        Self { nodes: nodes.max(1), seed }
    }

    /// What goes wrong on a node at this time, with the GPU that it happens to and the seconds since it began.
    pub(super) fn incidents(&self, node: usize, seconds: f64) -> impl Iterator<Item = (Incident, usize, f64)> {
        let newest = ((seconds - FIRST_INCIDENT) / BETWEEN_INCIDENTS).floor();
        let first = (newest - (INCIDENT / BETWEEN_INCIDENTS).ceil()).max(0.0) as u64;
        let last = if newest < 0.0 { None } else { Some(newest as u64) };
        let (seed, nodes) = (self.seed, self.nodes);
        last.into_iter().flat_map(move |last| first..=last).filter_map(move |number| {
            let age = seconds - FIRST_INCIDENT - number as f64 * BETWEEN_INCIDENTS;
            let random = mix(seed ^ number.wrapping_mul(0x9E37));
            // Each kind in turn, and not twice in a row on the same node.
            let kind = [Incident::BusLoss, Incident::Heat, Incident::FullDisk, Incident::Straggler];
            let kind = kind.get(number as usize % kind.len())?;
            let place = (random as usize % nodes + number as usize) % nodes;
            (place == node && (0.0..INCIDENT).contains(&age)).then_some((*kind, random as usize / 7 % GPUS, age))
        })
    }

    /// The job of a node, if it has one. Nodes of a team share it.
    pub(super) fn job(&self, node: usize, seconds: f64) -> Option<Job> {
        let team = (node / TEAM) as u64;
        // In the middle of something when it is first looked at.
        let mut begin = -((mix(self.seed ^ team) % 600) as f64) - 60.0;
        let mut number = 0;
        loop {
            let random = mix(self.seed ^ (team << 32) ^ number);
            let length = JOB.0 + (random % 1000) as f64 / 1000.0 * (JOB.1 - JOB.0 + 900.0);
            if seconds < begin + length {
                let is_pause = number > 0 && random % 8 == 7;
                let (name, user) = NAMES.get((self.seed + number + team) as usize % NAMES.len()).copied()?;
                let id = 4700 + team * 61 + number;
                return (!is_pause).then_some(Job { id, name, user, age: seconds - begin });
            }
            begin += length;
            number += 1;
        }
    }

    /// A GPU at this time.
    pub(super) fn gpu(&self, node: usize, gpu: usize, seconds: f64) -> Gpu {
        let job = self.job(node, seconds);
        let noise = |what: u64| wave(self.seed ^ what ^ ((node * GPUS + gpu) as u64) << 8, seconds);
        let mut state = match &job {
            Some(job) => working(job, &noise),
            None => resting(&noise),
        };
        let team = (node / TEAM * TEAM)..(node / TEAM * TEAM + TEAM);
        for mate in team {
            for (incident, at, age) in self.incidents(mate, seconds) {
                let is_it = mate == node && at == gpu;
                match incident {
                    Incident::BusLoss if is_it => state.is_lost = true,
                    Incident::Straggler if is_it => state.pcie_width = 8.0,
                    Incident::Heat if is_it => overheat(&mut state, age),
                    // The others of its job wait: busy, with little power.
                    Incident::BusLoss | Incident::Straggler if job.is_some() => wait_for_it(&mut state, incident),
                    _ => {}
                }
            }
        }
        state
    }
}

fn working(job: &Job, noise: &impl Fn(u64) -> f64) -> Gpu {
    // A checkpoint every five minutes.
    let is_saving = job.age % 300.0 < 12.0;
    let utilization = if is_saving { 0.06 + 0.03 * noise(1) } else { (0.975 + 0.02 * noise(1)).min(1.0) };
    let load = if is_saving { 0.15 } else { 0.92 + 0.05 * noise(2) };
    Gpu {
        is_lost: false,
        utilization,
        tensor: if is_saving { 0.0 } else { 0.42 + 0.04 * noise(3) },
        memory_used: MEMORY_TOTAL * (0.88 + 0.01 * noise(4)),
        power_watts: 90.0 + 590.0 * load,
        temperature: 34.0 + 32.0 * load + 3.0 * noise(5),
        clock_hertz: 1.755e9 + 15e6 * (4.0 * noise(6)).round(),
        pcie_width: 16.0,
        is_hot: false,
        is_held: true,
    }
}

fn resting(noise: &impl Fn(u64) -> f64) -> Gpu {
    Gpu {
        is_lost: false,
        utilization: 0.0,
        tensor: 0.0,
        memory_used: 4.3e6,
        power_watts: 76.0 + 3.0 * noise(2),
        temperature: 30.0 + 2.0 * noise(5),
        clock_hertz: 345e6,
        pcie_width: 16.0,
        is_hot: false,
        is_held: false,
    }
}

fn overheat(gpu: &mut Gpu, age: f64) {
    gpu.temperature = (gpu.temperature + age * 0.9).min(91.0);
    if gpu.temperature > 87.0 {
        gpu.is_hot = true;
        gpu.clock_hertz = 1.095e9;
        gpu.power_watts *= 0.62;
    }
}

fn wait_for_it(gpu: &mut Gpu, incident: Incident) {
    if incident == Incident::Straggler {
        gpu.utilization *= 0.72;
        gpu.tensor *= 0.7;
        gpu.power_watts *= 0.75;
    } else {
        gpu.utilization = 1.0;
        gpu.tensor = 0.0;
        gpu.power_watts = 132.0;
    }
}

/// From -1 to 1, smooth over some seconds.
fn wave(seed: u64, seconds: f64) -> f64 {
    let step = (seconds / 5.0).floor();
    let at = |step: f64| (mix(seed ^ (step as i64 as u64).wrapping_mul(0x51_7C_C1)) % 2001) as f64 / 1000.0 - 1.0;
    let part = seconds / 5.0 - step;
    at(step) * (1.0 - part) + at(step + 1.0) * part
}

/// A well-mixed number (SplitMix64, Steele, Lea and Flood, 2014).
pub(super) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn within_eight_minutes_everything_has_gone_wrong_once() {
        for nodes in [1, 2, 4, 40] {
            let story = Story::new(nodes, 7);
            let mut seen = BTreeSet::new();
            for second in 0..480 {
                for node in 0..nodes {
                    seen.extend(story.incidents(node, f64::from(second)).map(|(kind, ..)| format!("{kind:?}")));
                }
            }
            assert_eq!(seen.len(), 4, "{nodes} nodes: {seen:?}");
        }
    }

    #[test]
    fn nothing_is_wrong_at_the_beginning_and_most_is_well_at_any_time() {
        let story = Story::new(8, 7);
        assert_eq!((0..8).map(|node| story.incidents(node, 10.0).count()).sum::<usize>(), 0);
        for second in 0..3600 {
            let wrong = (0..8).filter(|node| story.incidents(*node, f64::from(second)).next().is_some()).count();
            assert!(wrong <= 3, "{wrong} nodes at {second}");
        }
    }

    #[test]
    fn what_a_gpu_does_is_possible() {
        let story = Story::new(3, 11);
        for second in 0..7200 {
            let gpu = story.gpu(second % 3, second % GPUS, second as f64);
            assert!((0.0..=1.0).contains(&gpu.utilization) && (0.0..=1.0).contains(&gpu.tensor), "{gpu:?}");
            assert!((20.0..=95.0).contains(&gpu.temperature) && (50.0..=720.0).contains(&gpu.power_watts), "{gpu:?}");
            assert!(gpu.memory_used <= MEMORY_TOTAL);
        }
    }

    #[test]
    fn nodes_of_a_team_run_the_same_job() {
        let story = Story::new(4, 3);
        let id = |node, second| story.job(node, second).map(|job| job.id);
        for second in [0.0, 500.0, 5000.0] {
            assert_eq!(id(0, second), id(1, second));
            assert!(id(0, second).is_none() || id(0, second) != id(2, second));
        }
        assert!(id(0, 0.0).is_some() && id(2, 0.0).is_some(), "work from the beginning");
    }
}
