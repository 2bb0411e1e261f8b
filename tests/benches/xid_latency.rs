//! From an error that a GPU's driver reports to the line in a script's hands, with what to do in it.
//!
//! `cargo bench -p belfry-tests --bench xid_latency [-- TRIALS]`
//!
//! A real agent at its defaults loads the stub that plays as many H100 as there are trials. Each trial reports XID 79 of the next
//! GPU at a random moment, in turn through the driver's library alone and through the kernel's log alone, and waits for the line
//! that `belfry alerts --follow | while read` passes on. The rules are those that ship.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark says what it measured, and fails by panicking"
)]

use std::{thread, time::Duration};

use belfry_common::clock;
use belfry_tests::{
    agent::Agent,
    cli::Cli,
    collector::Collector,
    figures::Figures,
    gpus::Gpus,
    script::Script,
    wait::{SOON, eventually},
};

const TRIALS: usize = 20;

fn main() {
    let trials = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(TRIALS);
    tokio::runtime::Runtime::new().unwrap().block_on(run(trials));
}

async fn run(trials: usize) {
    let mut collector = Collector::start_with("").await;
    let well = format!("[[gpu]]\nkind = \"h100\"\ncount = {trials}\n");
    let mut gpus = Gpus::new(&well);
    let places = places(&gpus).await;
    let mut agent = Agent::join(&collector, "bench", collector.address()).await;
    agent.equip(&gpus, "");
    agent.start();
    let cli = Cli::admin(&collector);
    eventually("the GPUs are read", SOON, async || {
        let node = cli.json(&["status", "bench"]).await["nodes"][0].clone();
        let states = node["gpus"].as_array()?.iter().filter(|gpu| gpu["state"] == "ok").count();
        (states == trials).then_some(())
    })
    .await;
    let mut script = Script::start(&collector);

    let (mut library, mut log) = (Figures::default(), Figures::default());
    for (gpu, place) in places.iter().enumerate() {
        thread::sleep(Duration::from_millis(fastrand::u64(1500..2500)));
        let (reported, figures) = (clock::now(), if gpu % 2 == 0 { &mut library } else { &mut log });
        if gpu % 2 == 0 {
            gpus.set(&format!("{well}[[xid]]\ngpu = {gpu}\ncode = 79\n"));
        } else {
            gpus.log(&format!("NVRM: Xid (PCI:{place}): 79, GPU has fallen off the bus."));
        }
        let (told, line) =
            script.wait_for(|line| line["event"] == "firing" && line["labels"]["gpu"] == gpu.to_string().as_str());
        let labels = &line["labels"];
        assert_eq!((&labels["xid"], &labels["class"]), (&"79".into(), &"fatal".into()), "{line}");
        assert_eq!(labels["action"], "reboot_inspect", "{line}");
        figures.add(told.millis_since(reported) as f64);
    }
    println!("{trials} trials in turn, milliseconds");
    println!("XID 79 through the library     {library}");
    println!("XID 79 through the kernel log  {log}");
    drop(script);
    agent.stop().await;
    collector.stop().await;
}

/// The addresses of the GPUs as the kernel's log writes them, in the order of their indices.
async fn places(gpus: &Gpus) -> Vec<String> {
    let samples = gpus.sampled().await;
    let of_gpu = |sample: &serde_json::Value| {
        let labels = &sample["labels"];
        let (index, address) = (labels["gpu"].as_str()?.parse::<usize>().ok()?, labels["pci_bus_id"].as_str()?);
        Some((index, address.split_once('.')?.0.to_owned()))
    };
    let infos = samples.iter().filter(|sample| sample["metric"] == "gpu_info");
    let mut places: Vec<(usize, String)> = infos.filter_map(of_gpu).collect();
    places.sort();
    places.into_iter().map(|(_, place)| place).collect()
}
