//! The limit on what one family may say.

use tracing::warn;

/// Devices, mounts or chips of one family. A node with more is not a node; a runaway container engine is.
pub(super) const DEVICES_MAX: usize = 1024;

/// Warns once about what a family leaves out.
#[derive(Debug)]
pub(super) struct Cap {
    family: &'static str,
    warned: bool,
}

impl Cap {
    pub(super) fn new(family: &'static str) -> Self {
        Self { family, warned: false }
    }

    /// Whether one more is allowed when there are `count`.
    pub(super) fn allows(&mut self, count: usize) -> bool {
        let allowed = count < DEVICES_MAX;
        if !allowed {
            self.left_out(1);
        }
        allowed
    }

    /// Says that so many, or more, were left out.
    pub(super) fn left_out(&mut self, count: usize) {
        if count > 0 && !self.warned {
            self.warned = true;
            warn!(sampler = self.family, "more devices or readings than are allowed: the rest is left out");
        }
    }
}
