//! Every way in which a driver cannot be used, and ways in which it ends while it is.

use belfry_tests::{
    gpus::{Gpus, workers},
    wait::{SOON, eventually},
};

use crate::scene::{Scene, TWO, are_ok};

#[tokio::test]
async fn a_driver_that_cannot_be_used_is_named_with_what_to_do() {
    for (error, state) in [
        ("driver_not_loaded", "no driver"),
        ("no_permission", "no permission"),
        ("lib_rm_version_mismatch", "version mismatch"),
        ("unknown", "failed"),
    ] {
        let gpus = Gpus::new(&format!("init_error = {error:?}\n{TWO}"));
        let said = gpus.agent(&["doctor"]).await;
        let line = said.output.lines().find(|line| line.contains(" gpu ")).unwrap_or_else(|| panic!("{said:?}"));
        assert!(line.contains(&format!("nvidia: {state}: ")), "{line}");
    }
    let gpus = Gpus::new("");
    let said = gpus.agent(&["doctor"]).await;
    assert!(said.output.contains("nvidia: no devices: "), "{said:?}");
    gpus.set(TWO);
    let said = gpus.agent(&["doctor"]).await;
    assert!(said.output.contains("nvidia: its driver answers"), "{said:?}");
}

#[tokio::test]
async fn a_gpu_that_is_lost_has_failed_and_the_others_go_on() {
    let scene = Scene::begin(TWO).await;
    scene.until("both are ok", are_ok).await;
    scene.gpus.set("[[gpu]]\nkind = \"h100\"\n[[gpu]]\nkind = \"h100\"\nlost = true\n");
    let gpus = scene.until("one has failed", |gpus| gpus[1]["state"] == "failed").await;
    assert_eq!(gpus[0]["state"], "ok");
    assert!(gpus[1]["temperature_celsius"].is_null(), "{}", gpus[1]);
    let alert = scene.firing("GpuLost").await;
    assert_eq!(alert["labels"]["gpu"], "1");
    scene.gpus.set(TWO);
    scene.until("it is back", are_ok).await;
    scene.resolved("GpuLost").await;
    scene.end().await;
}

#[tokio::test]
async fn a_gpu_that_could_not_be_opened_is_found_when_it_answers() {
    let scene = Scene::begin(&format!(
        "{TWO}[[fault]]\ncall = \"nvmlDeviceGetHandleByIndex_v2\"\ngpu = 1\nerror = \"gpu_is_lost\"\n"
    ))
    .await;
    scene.until("one is read", |gpus| gpus.len() == 1 && gpus[0]["state"] == "ok").await;
    scene.gpus.set(TWO);
    scene.until("both are ok", are_ok).await;
    scene.end().await;
}

#[tokio::test]
async fn a_library_that_crashes_costs_one_worker() {
    let scene = Scene::begin(TWO).await;
    scene.until("both are ok", are_ok).await;
    scene.gpus.set(&format!("{TWO}[[fault]]\ncall = \"nvmlDeviceGetPowerUsage\"\ncrash = true\n"));
    scene.until("nothing is known", |gpus| gpus.iter().all(|gpu| gpu["state"] == "unknown")).await;
    scene.gpus.set(TWO);
    scene.until("both are ok again", are_ok).await;
    scene.end().await;
}

#[tokio::test]
async fn a_pause_lets_go_of_every_handle_and_marks_the_gap() {
    let mut scene = Scene::begin(TWO).await;
    scene.until("both are ok", are_ok).await;
    let state = scene.agent.state_directory();
    let said = belfry_tests::cli::agent(&state, &["gpu", "pause"]).await.done();
    assert!(said.starts_with("paused: no GPU is held."), "{said}");
    assert_eq!(workers(&state), 0, "the worker is gone before the command ends");
    let gpus = scene.until("they are paused", |gpus| gpus.iter().all(|gpu| gpu["state"] == "unknown")).await;
    assert_eq!(gpus[0]["causes"][0], "driver: paused");

    // It outlives the agent.
    scene.agent.stop().await;
    scene.agent.start();
    scene.until("still paused", |gpus| gpus.iter().all(|gpu| gpu["causes"][0] == "driver: paused")).await;
    assert_eq!(belfry_tests::cli::agent(&state, &["gpu", "resume"]).await.done(), "resumed\n");
    scene.until("both are ok again", are_ok).await;
    scene.end().await;
}

#[tokio::test]
async fn a_gpu_that_is_not_found_any_more_is_missed() {
    let mut scene = Scene::begin(TWO).await;
    scene.until("both are ok", are_ok).await;
    scene.agent.stop().await;
    scene.gpus.set("[[gpu]]\nkind = \"h100\"\n");
    scene.agent.start();
    eventually("the alert is pending", SOON, async || {
        let alerts = scene.cli.json(&["alerts"]).await;
        alerts.as_array().unwrap().iter().any(|alert| alert["rule"] == "GpuMissing").then_some(())
    })
    .await;
    scene.end().await;
}
