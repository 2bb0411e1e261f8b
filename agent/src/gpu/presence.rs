//! Whether this node has GPUs at all: on the many that have none there is no worker.

use std::{fs, path::Path};

use super::driver::Maker;
use crate::samplers::Roots;

/// Makers by their number on the PCI bus.
const NVIDIA: &str = "0x10de";
pub(super) const AMD: &str = "0x1002";

/// Devices looked at: a large machine has some hundreds.
const DEVICES_MAX: usize = 4096;

/// Whether a GPU of this maker is on the PCI bus, or a driver of its has left its mark.
pub(super) fn is_present(maker: Maker, roots: &Roots) -> bool {
    match maker {
        Maker::Nvidia => {
            // The last two: without a PCI bus of its own (WSL), or on one that is hidden from a container.
            has_display(&roots.sys, |device| is_of(NVIDIA, device)) || roots.proc.join("driver/nvidia").exists()
        }
        Maker::Amd => {
            // What has another driver is given to a virtual machine, or older than this one.
            let is_ours = |device: &Path| driver_of(device).is_none_or(|driver| driver == "amdgpu");
            has_display(&roots.sys, |device| is_of(AMD, device) && is_ours(device))
        }
    }
}

/// Whether a GPU of this maker is on the PCI bus, whoever drives it.
pub(super) fn is_on_bus(maker: Maker, roots: &Roots) -> bool {
    let number = match maker {
        Maker::Nvidia => NVIDIA,
        Maker::Amd => AMD,
    };
    has_display(&roots.sys, |device| is_of(number, device))
}

/// Whether a PCI device is of this maker.
pub(super) fn is_of(maker: &str, device: &Path) -> bool {
    fs::read_to_string(device.join("vendor")).is_ok_and(|vendor| vendor.trim() == maker)
}

/// The driver that a device is bound to.
pub(super) fn driver_of(device: &Path) -> Option<String> {
    let driver = fs::read_link(device.join("driver")).ok()?;
    Some(driver.file_name()?.to_str()?.to_owned())
}

/// Whether there is such a display or 3D controller.
fn has_display(sys: &Path, is_wanted: impl Fn(&Path) -> bool) -> bool {
    let Ok(devices) = fs::read_dir(sys.join("bus/pci/devices")) else { return false };
    devices.take(DEVICES_MAX).flatten().any(|device| {
        // 0x0300 VGA, 0x0302 3D, 0x0380 other; 0x1200 is an accelerator.
        let class = fs::read_to_string(device.path().join("class")).unwrap_or_default();
        (class.starts_with("0x03") || class.starts_with("0x12")) && is_wanted(&device.path())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::fixture::Fixture;

    fn device(fixture: Fixture, vendor: &str, class: &str) -> Fixture {
        fixture.sys("bus/pci/devices/0000:03:00.0/vendor", vendor).sys("bus/pci/devices/0000:03:00.0/class", class)
    }

    #[test]
    fn a_gpu_is_there_with_its_driver_and_without_any() {
        let check = |fixture: &Fixture| Maker::ALL.map(|maker| is_present(maker, &fixture.roots()));
        assert_eq!(check(&Fixture::new()), [false, false]);
        assert_eq!(check(&device(Fixture::new(), "0x10de\n", "0x030200\n")), [true, false]);
        assert_eq!(check(&device(Fixture::new(), "0x1002\n", "0x040300\n")), [false, false], "its sound is no GPU");
        let accelerator = device(Fixture::new(), "0x1002\n", "0x120000\n");
        assert_eq!(check(&accelerator), [false, true]);
        let driven = |driver: &str| {
            let fixture = device(Fixture::new(), "0x1002\n", "0x030000\n");
            fixture.sys_link("bus/pci/devices/0000:03:00.0/driver", &format!("bus/pci/drivers/{driver}"))
        };
        assert_eq!(check(&driven("amdgpu")), [false, true]);
        assert_eq!(check(&driven("vfio-pci")), [false, false]);
        assert!(is_on_bus(Maker::Amd, &driven("vfio-pci").roots()));
    }
}
