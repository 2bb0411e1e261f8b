//! Who uses the GPUs.

use std::{
    collections::BTreeMap,
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
use serde_json::Value;

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

/// Starts a process on a machine whose `/proc` is made of files, since no test may make the cgroups of a scheduler.
fn start(gpus: &Gpus, pid: u32, cgroup: &str, environ: &str) {
    let directory = gpus.file("proc").join(pid.to_string());
    fs::create_dir_all(&directory).unwrap();
    let fields = ["0"; 18].join(" ");
    for (name, text) in [
        ("stat", format!("{pid} (python3) S {fields} {pid} 0 0")),
        ("status", "Uid:\t4711\t4711\t4711\t4711\n".to_owned()),
        ("cgroup", format!("0::{cgroup}\n")),
        ("cmdline", "python3\0train.py\0".to_owned()),
        ("environ", environ.replace(' ', "\0")),
    ] {
        fs::write(directory.join(name), text).unwrap();
    }
}

/// An agent that takes those for the processes of its machine.
async fn among_files(collector: &Collector, gpus: &Gpus) -> Agent {
    let mut agent = Agent::join(collector, "gpu-01", collector.address()).await;
    let paths = format!("[paths]\nproc = {:?}\n", gpus.file("proc"));
    agent.equip(gpus, &format!("{paths}[samplers.gpu_condition]\ninterval = \"500ms\"\n"));
    agent.start();
    agent
}

#[tokio::test]
async fn a_job_is_named_is_a_series_and_can_be_joined_with() {
    const RULES: &str = "groups:\n- name: test\n  rules:\n  - alert: JobIsBusy\n    expr: gpu_utilization_ratio * on (instance, uuid) group_left (job_id, job_name) gpu_job_info > 0.5\n";
    let collector = Collector::start_with_rules(RULES).await;
    let process = "[[gpu.process]]\npid = 4242\nmemory = 1073741824\nsm = 90\n";
    let gpus = Gpus::new(&format!("[[gpu]]\nkind = \"h100\"\n{process}[[gpu]]\nkind = \"h100\"\n"));
    let environ = "SLURM_JOB_ID=4711 SLURM_JOB_NAME=llama-70b SLURM_JOB_PARTITION=gpu";
    start(&gpus, 4242, "/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0", environ);
    let mut agent = among_files(&collector, &gpus).await;
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

/// The newest sample for each GPU and instance.
fn newest(samples: &[Value]) -> BTreeMap<(&str, &str), &Value> {
    samples.iter().map(|sample| (place(sample), sample)).collect()
}

fn place(sample: &Value) -> (&str, &str) {
    let label = |name| sample["labels"][name].as_str().unwrap_or_default();
    (label("gpu"), label("gpu_instance"))
}

/// Waits until so many processes of the job are on each of these GPUs and instances; gives the job's own labels there.
async fn labels_of(cli: &Cli, job: &str, expected: &[((&str, &str), f64)]) -> Vec<Value> {
    let mut tail = cli.start(&["tail", &format!("gpu_job_processes{{job_id={job:?}}}"), "-o", "jsonl"]);
    let is_so = |samples: &[Value]| {
        let newest = newest(samples);
        expected.iter().all(|(place, count)| newest.get(place).is_some_and(|sample| sample["value"] == *count))
    };
    let samples = tail.until("the job's processes", is_so).await;
    tail.stop().await;
    let newest = newest(&samples);
    let of_job = |(place, _): &(_, _)| {
        let mut labels = newest[place]["labels"].as_object().unwrap().clone();
        labels.retain(|name, _| !["gpu", "uuid", "gpu_instance"].contains(&name.as_str()));
        Value::Object(labels)
    };
    expected.iter().map(of_job).collect()
}

#[tokio::test]
async fn gpus_that_a_job_was_given_and_does_not_use_are_told_and_alerted() {
    let collector = Collector::start_with("").await;
    let holder = |pid: u32| format!("[[gpu.process]]\npid = {pid}\nmemory = 5\n");
    let gpu = "[[gpu]]\nkind = \"h100\"\n";
    let gpus = Gpus::new(&format!("{gpu}{}{gpu}{gpu}", holder(8)));
    let job = "/system.slice/slurmstepd.scope/job_7";
    start(&gpus, 7, &format!("{job}/step_batch/user/task_0"), "SLURM_JOB_ID=7 SLURM_JOB_GPUS=0,1 SLURM_JOB_NAME=train");
    start(&gpus, 8, &format!("{job}/step_0/user/task_0"), "SLURM_JOB_ID=7 SLURM_STEP_GPUS=0");
    start(&gpus, 9, "/system.slice/other.service", "NVIDIA_VISIBLE_DEVICES=2");
    let mut agent = among_files(&collector, &gpus).await;
    let cli = Cli::admin(&collector);
    let labels = labels_of(&cli, "7", &[(("0", ""), 1.0), (("1", ""), 0.0)]).await;
    assert_eq!(labels[0]["job_name"], "train");
    assert_eq!(labels[0]["step"], "0");
    assert_eq!(labels[0]["user"], "4711");
    assert_eq!(labels[0], labels[1]);
    let alert = eventually("the alert is pending", SOON, async || {
        let alerts = cli.json(&["alerts"]).await;
        alerts.as_array().unwrap().iter().find(|alert| alert["rule"] == "GpuAllocatedUnused").cloned()
    })
    .await;
    assert_eq!((&alert["labels"]["gpu"], &alert["labels"]["job_id"]), (&Value::from("1"), &Value::from("7")));

    gpus.set(&format!("{gpu}{gpu}{}{gpu}", holder(8)));
    let others = labels_of(&cli, "7", &[(("0", ""), 0.0), (("1", ""), 1.0)]).await;
    assert_eq!(others, labels, "a job keeps its labels");
    agent.stop().await;
}

#[tokio::test]
async fn an_instance_that_a_container_was_given_and_does_not_use_is_told() {
    let collector = Collector::start().await;
    let gpu = "[[gpu]]\nkind = \"h100_mig\"\n";
    let gpus = Gpus::new(gpu);
    let samples = gpus.sampled().await;
    let mut instances = samples.iter().filter(|sample| sample["metric"] == "gpu_instance_info");
    let [first, second] = [(); 2].map(|()| &instances.next().unwrap()["labels"]);
    let [uuid, other] = [first, second].map(|labels| labels["instance_uuid"].as_str().unwrap());
    let [used, unused] = [first, second].map(|labels| labels["gpu_instance"].as_str().unwrap());
    gpus.set(&format!("{gpu}[[gpu.process]]\npid = 7\nmemory = 5\ngpu_instance = {used}\ncompute_instance = 0\n"));
    let id = "95510329f5bd2b884b8ec944cf023b76b60db0ca361d6fc59e4659daad669873";
    start(&gpus, 7, &format!("/system.slice/docker-{id}.scope"), &format!("NVIDIA_VISIBLE_DEVICES={uuid},{other}"));
    let mut agent = among_files(&collector, &gpus).await;
    let cli = Cli::admin(&collector);
    let labels = labels_of(&cli, &id[..12], &[(("0", used), 1.0), (("0", unused), 0.0)]).await;
    assert_eq!(labels[0], labels[1]);
    agent.stop().await;
}
