//! The programs under test: built once, with the profile of the running test.
//!
//! `BELFRY_TEST_BINARIES` names a directory with ready ones, such as those of a package.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The collector and its command line.
#[must_use]
pub fn belfry() -> PathBuf {
    directory().join("belfry")
}

/// The agent.
#[must_use]
pub fn belfry_agent() -> PathBuf {
    directory().join("belfry-agent")
}

/// The library that plays NVML.
#[must_use]
pub fn nvml_stub() -> PathBuf {
    directory().join("libnvml_stub.so")
}

fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| env::var_os("BELFRY_TEST_BINARIES").map_or_else(build, PathBuf::from))
}

/// Tests are at `<target>/<profile>/deps/<test>`; the programs belong at `<target>/<profile>`.
fn build() -> PathBuf {
    let test = env::current_exe().unwrap();
    let directory = test.ancestors().nth(2).unwrap();
    let profile = match directory.file_name().and_then(|name| name.to_str()).unwrap() {
        "debug" => "dev",
        name => name,
    };
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // What cargo told this test about its own package would make build scripts run anew, and all that depends on them.
    for (name, _) in env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|of_test| name.to_string_lossy().starts_with(of_test)) {
            build.env_remove(name);
        }
    }
    build.args([
        "build",
        "--quiet",
        "-p",
        "belfry",
        "-p",
        "belfry-agent",
        "-p",
        "belfry-nvml-stub",
        "--profile",
        profile,
        "--target-dir",
    ]);
    let status = build.arg(directory.parent().unwrap()).status().unwrap();
    assert!(status.success(), "the programs under test cannot be built");
    directory.to_path_buf()
}
