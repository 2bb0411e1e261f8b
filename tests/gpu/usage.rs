//! Who uses the GPUs.

use std::{
    fs,
    process::{Child, Command},
};

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

/// A `/proc` with one process of a Slurm job.
fn proc_of_a_job(directory: &std::path::Path, pid: u32) {
    let process = directory.join(pid.to_string());
    fs::create_dir_all(&process).unwrap();
    let stat = format!(
        "{pid} (python3) S 1 1 1 0 -1 4194304 100 0 0 0 10 5 0 0 20 0 1 0 4242 1000000 100 18446744073709551615"
    );
    fs::write(process.join("stat"), stat + &" 0".repeat(30)).unwrap();
    fs::write(process.join("status"), "Name:\tpython3\nUid:\t1000\t1000\t1000\t1000\n").unwrap();
    fs::write(process.join("cgroup"), "0::/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0\n").unwrap();
    fs::write(process.join("cmdline"), "python3\0train.py\0").unwrap();
    fs::write(process.join("environ"), "SLURM_JOB_ID=4711\0SLURM_JOB_NAME=llama-70b\0SLURM_JOB_PARTITION=gpu\0")
        .unwrap();
}

#[tokio::test]
async fn a_job_is_named_is_a_series_and_can_be_joined_with() {
    const RULES: &str = "groups:\n- name: test\n  rules:\n  - alert: JobIsBusy\n    expr: gpu_utilization_ratio * on (instance, uuid) group_left (job_id, job_name) gpu_job_info > 0.5\n";
    let collector = Collector::start_with_rules(RULES).await;
    let process = "[[gpu.process]]\npid = 4242\nmemory = 1073741824\nsm = 90\n";
    let gpus = Gpus::new(&format!("[[gpu]]\nkind = \"h100\"\n{process}[[gpu]]\nkind = \"h100\"\n"));
    let proc = gpus.file("proc");
    proc_of_a_job(&proc, 4242);
    let mut agent = Agent::join(&collector, "gpu-01", collector.address()).await;
    agent.equip(&gpus, &format!("[paths]\nproc = {proc:?}\n[samplers.gpu_condition]\ninterval = \"1s\"\n"));
    agent.start();
    let cli = Cli::admin(&collector);
    let alert = eventually("the join finds the job", SOON, async || {
        cli.json(&["alerts", "--state", "firing"]).await.as_array().unwrap().first().cloned()
    })
    .await;
    assert_eq!((&alert["labels"]["job_id"], &alert["labels"]["job_name"]), (&"4711".into(), &"llama-70b".into()));
    assert_eq!(alert["labels"]["gpu"], "0");

    let status = cli.json(&["status", "gpu-01"]).await["nodes"][0]["gpus"][0]["processes"][0].clone();
    assert_eq!((&status["job"], &status["command"]), (&"slurm 4711".into(), &"python3 train.py".into()));
    let jobs = cli.json(&["status", "--jobs"]).await;
    assert_eq!((&jobs[0]["job"], &jobs[0]["labels"]["job_name"]), (&"slurm 4711".into(), &"llama-70b".into()));
    assert_eq!(jobs[0]["gpus"], serde_json::json!([{"node": "gpu-01", "index": "0"}]));
    let mut tail = cli.start(&["tail", "gpu_job_*", "-o", "jsonl"]);
    tail.until("the job's series", |samples| {
        let of = |metric: &str| {
            samples.iter().any(|sample| sample["metric"] == metric && sample["labels"]["job_id"] == "4711")
        };
        of("gpu_job_processes") && of("gpu_job_memory_used_bytes") && of("gpu_job_utilization_ratio")
    })
    .await;
    drop(tail);

    // The job ends, and so does what is joined with it.
    gpus.set("[[gpu]]\nkind = \"h100\"\ncount = 2\n");
    eventually("the job is gone", SOON, async || {
        (cli.json(&["status", "--jobs"]).await == serde_json::json!([])).then_some(())
    })
    .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_gpu_that_does_not_say_who_holds_it_is_not_held_by_nobody() {
    let fault = "[[fault]]\ncall = \"nvmlDeviceGetComputeRunningProcesses_v3\"\ngpu = 1\nerror = \"unknown\"\n";
    let gpus = Gpus::new(&format!("[[gpu]]\nkind = \"h100\"\ncount = 2\n{fault}"));
    let samples = gpus.sampled().await;
    let counts = samples.iter().filter(|sample| sample["metric"] == "gpu_processes");
    let counts: Vec<_> = counts.map(|sample| (&sample["labels"]["gpu"], &sample["value"])).collect();
    assert_eq!(counts, [(&"0".into(), &0.0.into())]);
}
