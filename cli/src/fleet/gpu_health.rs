//! How a GPU is: a verdict and its causes, from nothing but what was measured.
//!
//! Pure. What is not known is no cause: a card without a reading has no fault by it.

/// The verdict on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Health {
    Ok,
    /// It works, and something about it needs attention.
    Degraded,
    /// Nothing is known of it at present.
    Unknown,
    /// No work should be put on it.
    Failed,
}

impl Health {
    /// The word of the contract.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
        }
    }
}

/// What is known of a GPU that bears on its health. `None` is not known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signs {
    /// Whether it answers.
    pub(crate) is_up: Option<bool>,
    /// The call of its driver that hangs, if one does.
    pub(crate) stuck_call: Option<String>,
    /// The driver's state, if it is none in which readings come.
    pub(crate) driver_state: Option<String>,
    /// What the driver says is needed, other than `none`.
    pub(crate) recovery_action: Option<String>,
    /// Errors of the class fatal within the last day, by number and name.
    pub(crate) fatal_xids: Vec<(u32, String)>,
    pub(crate) has_row_remap_failure: bool,
    pub(crate) has_row_remap_pending: bool,
    pub(crate) has_retired_pages_pending: bool,
    /// Uncorrected memory errors since the driver was loaded.
    pub(crate) uncorrected_errors: f64,
    /// Reasons for which the hardware holds clocks down.
    pub(crate) slowdowns: Vec<String>,
    pub(crate) links_up: usize,
    /// NVLinks that it should have.
    pub(crate) links: usize,
    pub(crate) pcie_width: Option<(f64, f64)>,
    /// A fabric that is not joined, or runs with less than it should.
    pub(crate) fabric: Option<String>,
}

/// Judges a GPU: the worst of all causes counts.
pub(crate) fn judge(signs: &Signs) -> (Health, Vec<String>) {
    let mut causes: Vec<(Health, String)> = Vec::new();
    let mut cause = |health: Health, words: String| causes.push((health, words));
    match (signs.is_up, &signs.stuck_call, &signs.driver_state) {
        (Some(true), ..) => {}
        (Some(false), ..) => cause(Health::Failed, "does not answer: lost, or in need of a reset".into()),
        (None, Some(call), _) => cause(Health::Unknown, format!("driver does not answer ({call})")),
        (None, None, Some(state)) => cause(Health::Unknown, format!("driver: {}", state.replace('_', " "))),
        (None, None, None) => cause(Health::Unknown, "no readings".into()),
    }
    for (xid, name) in &signs.fatal_xids {
        cause(Health::Failed, format!("XID {xid}: {name}"));
    }
    if let Some(action) = &signs.recovery_action {
        cause(Health::Failed, format!("driver asks for {}", action.replace('_', " ")));
    }
    if signs.has_row_remap_failure {
        cause(Health::Failed, "memory row could not be remapped".into());
    }
    if signs.has_row_remap_pending {
        cause(Health::Degraded, "memory row waits for a reset to be remapped".into());
    }
    if signs.has_retired_pages_pending {
        cause(Health::Degraded, "memory page waits for a reboot to be retired".into());
    }
    if signs.uncorrected_errors > 0.0 {
        cause(Health::Degraded, format!("{} uncorrected memory errors", signs.uncorrected_errors));
    }
    for slowdown in &signs.slowdowns {
        cause(Health::Degraded, format!("clocks held down: {}", slowdown.replace('_', " ")));
    }
    let links_down = signs.links.saturating_sub(signs.links_up);
    if links_down > 0 && signs.is_up == Some(true) {
        cause(Health::Degraded, format!("{links_down} of {} NVLinks down", signs.links));
    }
    if let Some((width, max)) = signs.pcie_width.filter(|(width, max)| width < max) {
        cause(Health::Degraded, format!("PCIe runs on {width} of {max} lanes"));
    }
    if let Some(fabric) = &signs.fabric {
        cause(Health::Degraded, format!("NVLink fabric: {}", fabric.replace('_', " ")));
    }
    causes.sort_by_key(|(health, _)| std::cmp::Reverse(*health));
    let worst = causes.first().map_or(Health::Ok, |(health, _)| *health);
    (worst, causes.into_iter().map(|(_, words)| words).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up() -> Signs {
        Signs { is_up: Some(true), ..Signs::default() }
    }

    #[test]
    fn what_is_not_known_is_no_fault() {
        assert_eq!(judge(&up()), (Health::Ok, vec![]));
        assert_eq!(judge(&Signs::default()), (Health::Unknown, vec!["no readings".into()]));
    }

    #[test]
    fn the_worst_cause_comes_first_and_decides() {
        let signs = Signs {
            has_row_remap_pending: true,
            fatal_xids: vec![(79, "GPU has fallen off the bus".into())],
            is_up: Some(false),
            ..up()
        };
        let (health, causes) = judge(&signs);
        assert_eq!(health, Health::Failed);
        assert_eq!(
            causes,
            [
                "does not answer: lost, or in need of a reset",
                "XID 79: GPU has fallen off the bus",
                "memory row waits for a reset to be remapped"
            ]
        );
    }

    #[test]
    fn a_driver_that_hangs_says_nothing_about_its_gpus_but_what_was_known_stands() {
        let signs = Signs { stuck_call: Some("nvmlDeviceGetTemperature".into()), ..Signs::default() };
        assert_eq!(judge(&signs).0, Health::Unknown);
        let signs = Signs { has_row_remap_failure: true, ..signs };
        assert_eq!(judge(&signs).0, Health::Failed);
    }

    #[test]
    fn fewer_links_than_the_neighbours_have_is_a_fault() {
        let signs = Signs { links: 18, links_up: 16, ..up() };
        assert_eq!(judge(&signs), (Health::Degraded, vec!["2 of 18 NVLinks down".into()]));
    }

    #[test]
    fn fewer_lanes_than_there_are_is_a_fault_and_a_slower_link_at_rest_is_not() {
        let signs = Signs { pcie_width: Some((8.0, 16.0)), ..up() };
        assert_eq!(judge(&signs), (Health::Degraded, vec!["PCIe runs on 8 of 16 lanes".into()]));
        assert_eq!(judge(&Signs { pcie_width: Some((16.0, 16.0)), ..up() }).0, Health::Ok);
    }
}
