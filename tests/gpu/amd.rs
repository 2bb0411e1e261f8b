//! AMD's GPUs, of which the kernel's files are all that is read: here they are a test's.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use belfry_tests::{
    binaries,
    cli::{Stream, objects},
    gpus::workers,
    process::{Said, finish},
    wait::{SOON, eventually},
};
use serde_json::Value;
use tempfile::TempDir;

const DEVICE: &str = "devices/pci0000:c0/0000:c0:01.1/0000:c1:00.0";
const FILES: [(&str, &str); 14] = [
    ("vendor", "0x1002"),
    ("device", "0x74a1"),
    ("class", "0x120000"),
    ("unique_id", "5a1d0c44b2f09e37"),
    ("product_name", "AMD Instinct MI300X OAM"),
    ("power/runtime_status", "active"),
    ("gpu_busy_percent", "87"),
    ("mem_info_vram_total", "206141652992"),
    ("mem_info_vram_used", "103070826496"),
    ("hwmon/hwmon4/name", "amdgpu"),
    ("hwmon/hwmon4/temp2_label", "junction"),
    ("hwmon/hwmon4/temp2_input", "71000"),
    ("hwmon/hwmon4/power1_average", "654000000"),
    ("ras/umc_err_count", "ue: 1\nce: 20"),
];

/// A machine with one card.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::Builder::new().prefix("belfry-test-amd-").tempdir().unwrap());
        for (file, text) in FILES {
            machine.write(&format!("{DEVICE}/{file}"), text);
        }
        machine.link("bus/pci/devices/0000:c1:00.0", DEVICE);
        machine.link("class/drm/card1/device", DEVICE);
        machine
    }

    fn with_driver(self) -> Self {
        self.write("bus/pci/drivers/amdgpu/bind", "");
        self.link(&format!("{DEVICE}/driver"), "bus/pci/drivers/amdgpu");
        self
    }

    fn at(&self, path: &str) -> PathBuf {
        let path = self.0.path().join("sys").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.at(path), format!("{text}\n")).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        symlink(self.at(target), self.at(path)).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        let in_it = |name: &str| self.0.path().join(name);
        fs::write(in_it("agent.toml"), format!("[paths]\nsys = {:?}\n", in_it("sys"))).unwrap();
        fs::create_dir_all(in_it("state")).unwrap();
        let mut command = Command::new(binaries::belfry_agent());
        command.arg("--config").arg(in_it("agent.toml")).arg("--state-dir").arg(in_it("state")).args(words);
        command
    }

    async fn agent(&self, words: &[&str]) -> Said {
        finish(&mut self.command(words)).await
    }
}

/// Another file in this one's place that is never read to its end.
fn hang(path: &Path) {
    let fifo = path.with_extension("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success(), "no named pipe");
    fs::rename(fifo, path).unwrap();
}

fn value<'a>(samples: &'a [Value], metric: &str, labels: &[(&str, &str)]) -> &'a Value {
    let is_it = |sample: &&Value| {
        sample["metric"] == metric && labels.iter().all(|(name, value)| sample["labels"][*name] == *value)
    };
    let found: Vec<&Value> = samples.iter().filter(is_it).collect();
    let [one] = found[..] else { panic!("{metric} {labels:?}: {found:?}") };
    &one["value"]
}

#[tokio::test]
async fn a_card_is_read_under_the_names_of_every_gpu() {
    let machine = Machine::new().with_driver();
    let samples = objects(&machine.agent(&["sample", "--once", "-o", "jsonl"]).await.done());
    let card = [("gpu", "0"), ("uuid", "GPU-5a1d0c44b2f09e37")];
    let with = |more: (&'static str, &'static str)| [card[0], card[1], more];
    assert_eq!(*value(&samples, "gpu_driver_state", &[("driver", "amd"), ("state", "ok")]), 1.0);
    assert_eq!(*value(&samples, "gpu_devices", &[("driver", "amd")]), 1.0);
    assert_eq!(*value(&samples, "gpu_up", &card), 1.0);
    assert_eq!(*value(&samples, "gpu_info", &with(("model", "AMD Instinct MI300X OAM"))), 1.0);
    assert_eq!(*value(&samples, "gpu_utilization_ratio", &card), 0.87);
    assert_eq!(*value(&samples, "gpu_memory_used_bytes", &card), 103_070_826_496.0);
    assert_eq!(*value(&samples, "gpu_temperature_celsius", &with(("sensor", "gpu"))), 71.0);
    assert_eq!(*value(&samples, "gpu_temperature_celsius", &with(("sensor", "junction"))), 71.0);
    assert_eq!(*value(&samples, "gpu_power_watts", &card), 654.0);
    let errors = [card[0], ("type", "corrected"), ("location", "umc")];
    assert_eq!(*value(&samples, "gpu_ecc_errors_total", &errors), 20.0);
}

#[tokio::test]
async fn a_card_that_is_gone_is_missed() {
    let machine = Machine::new().with_driver();
    let sample = async || objects(&machine.agent(&["sample", "--once", "-o", "jsonl"]).await.done());
    assert_eq!(*value(&sample().await, "gpu_devices", &[("driver", "amd")]), 1.0);
    fs::remove_file(machine.at("bus/pci/devices/0000:c1:00.0")).unwrap();
    let samples = sample().await;
    assert_eq!(*value(&samples, "gpu_devices", &[("driver", "amd")]), 0.0);
    assert_eq!(*value(&samples, "gpu_devices_expected", &[("driver", "amd")]), 1.0);
}

#[tokio::test]
async fn a_pause_says_nothing_where_there_is_no_card_and_hides_that_one_is_taken_out() {
    let machine = Machine::new().with_driver();
    let card = machine.at("bus/pci/devices/0000:c1:00.0");
    let sample = async || objects(&machine.agent(&["sample", "--once", "-o", "jsonl"]).await.done());
    let says = |samples: &[Value], metric: &str| samples.iter().any(|sample| sample["metric"] == metric);
    fs::remove_file(&card).unwrap();
    machine.agent(&["gpu", "pause"]).await.done();
    assert!(!says(&sample().await, "gpu_driver_state"), "there is no card");

    machine.agent(&["gpu", "resume"]).await.done();
    symlink(machine.at(DEVICE), &card).unwrap();
    assert!(says(&sample().await, "gpu_up"));
    machine.agent(&["gpu", "pause"]).await.done();
    fs::remove_file(&card).unwrap();
    let samples = sample().await;
    assert_eq!(*value(&samples, "gpu_driver_state", &[("driver", "amd"), ("state", "paused")]), 1.0);
    assert!(!says(&samples, "gpu_devices"), "it was taken out on purpose");
}

#[tokio::test]
async fn a_card_without_a_driver_is_told_with_what_to_do() {
    let said = Machine::new().agent(&["doctor"]).await;
    assert!(said.output.contains("amd: no driver: ") && said.output.contains("modprobe amdgpu"), "{said:?}");
    let said = Machine::new().with_driver().agent(&["doctor"]).await;
    assert!(said.output.contains("amd: its driver answers"), "{said:?}");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_to_its_end_is_named() {
    let machine = Machine::new().with_driver();
    let mut stream = Stream::start(&mut machine.command(&["sample", "-o", "jsonl"]));
    let is = |metric: &'static str| move |sample: &Value| sample["metric"] == metric;
    stream.until("the card is read", |samples| samples.iter().any(is("gpu_power_watts"))).await;
    hang(&machine.at(&format!("{DEVICE}/gpu_busy_percent")));
    stream.until("the file is named", |samples| samples.iter().any(is("gpu_driver_stuck_call_info"))).await;
    let samples = stream.objects();
    let stuck = samples.iter().find(|sample| is("gpu_driver_stuck_call_info")(sample)).unwrap();
    let labels = &stuck["labels"];
    assert_eq!(
        (&labels["driver"], &labels["call"], &labels["gpu"]),
        (&"amd".into(), &"gpu_busy_percent".into(), &"0".into())
    );
    // Killed while a worker hangs.
    let state = machine.0.path().join("state");
    drop(stream);
    eventually("no worker is left", SOON, async || (workers(&state) == 0).then_some(())).await;
}
