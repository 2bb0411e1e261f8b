//! Whether this node has GPUs at all: on the many that have none there is no worker.

use std::{fs, path::Path};

use super::driver::Maker;
use crate::samplers::Roots;

/// Devices looked at: a large machine has some hundreds.
const DEVICES_MAX: usize = 4096;

/// Whether a GPU of this maker is on the PCI bus, or a driver of its has left its mark.
pub(super) fn is_present(maker: Maker, roots: &Roots) -> bool {
    match maker {
        Maker::Nvidia => {
            // The last two: without a PCI bus of its own (WSL), or on one that is hidden from a container.
            has_display("0x10de", &roots.sys) || roots.proc.join("driver/nvidia").exists()
        }
    }
}

/// Whether there is a display or 3D controller of this vendor.
fn has_display(vendor: &str, sys: &Path) -> bool {
    let Ok(devices) = fs::read_dir(sys.join("bus/pci/devices")) else { return false };
    devices.take(DEVICES_MAX).flatten().any(|device| {
        let read = |name| fs::read_to_string(device.path().join(name)).unwrap_or_default();
        // 0x0300 VGA, 0x0302 3D, 0x0380 other; 0x1200 is an accelerator.
        let class = read("class");
        (class.starts_with("0x03") || class.starts_with("0x12")) && read("vendor").trim() == vendor
    })
}
