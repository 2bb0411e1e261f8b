//! Who uses the GPUs.

use std::process::{Child, Command};

use belfry_tests::{
    agent::Agent,
    cli::Cli,
    collector::Collector,
    gpus::Gpus,
    wait::{SOON, eventually},
};

/// A process of this test that the driver says to hold a GPU.
struct Holder(Child);

impl Holder {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn the_processes_of_a_gpu_are_shown_with_user_command_and_share() {
    let collector = Collector::start().await;
    let holder = Holder::start();
    let pid = holder.0.id();
    let process = format!("[[gpu.process]]\npid = {pid}\nmemory = 1073741824\nsm = 90\n");
    let gone = "[[gpu.process]]\npid = 4194000\nmemory = 5\n";
    let gpus = Gpus::new(&format!("[[gpu]]\nkind = \"h100\"\n{process}{gone}[[gpu]]\nkind = \"h100\"\n"));
    let mut agent = Agent::join(&collector, "gpu-01", collector.address()).await;
    agent.equip(&gpus, "[samplers.gpu_condition]\ninterval = \"500ms\"\n");
    agent.start();
    let cli = Cli::admin(&collector);
    let status = eventually("the process is shown", SOON, async || {
        let status = cli.json(&["status", "gpu-01"]).await["nodes"][0]["gpus"].clone();
        // The second look knows what it did since the first.
        let process = &status[0]["processes"][0];
        (process["pid"] == pid && process["utilization_ratio"] == 0.9).then_some(status)
    })
    .await;
    let processes = status[0]["processes"].as_array().unwrap();
    assert_eq!(processes.len(), 1, "what is gone is not shown: {processes:?}");
    assert_eq!(processes[0]["command"], "sleep");
    assert_eq!(processes[0]["memory_bytes"], 1_073_741_824.0);
    assert!(!processes[0]["user"].as_str().unwrap().is_empty());
    assert_eq!(status[1]["processes"], serde_json::json!([]));
    let page = cli.done(&["status", "gpu-01"]).await;
    assert!(
        page.lines().any(|line| line.starts_with("0 ") && line.contains(&pid.to_string()) && line.ends_with("sleep")),
        "{page}"
    );

    drop(holder);
    eventually("it is gone", SOON, async || {
        let status = cli.json(&["status", "gpu-01"]).await["nodes"][0]["gpus"].clone();
        (status[0]["processes"] == serde_json::json!([])).then_some(())
    })
    .await;
    agent.stop().await;
}
