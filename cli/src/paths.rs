//! Where things are kept by default.

use std::{env, path::PathBuf};

/// The data directory of a collector on this machine: the system's for root, the user's otherwise.
pub(crate) fn data_directory() -> PathBuf {
    if let Some(directory) = env::var_os("BELFRY_DATA_DIR").filter(|directory| !directory.is_empty()) {
        return directory.into();
    }
    if rustix::process::geteuid().is_root() {
        return "/var/lib/belfry".into();
    }
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = env::var_os("XDG_STATE_HOME").filter(|directory| !directory.is_empty()).map(PathBuf::from).or_else(home);
    state.unwrap_or_else(|| ".".into()).join("belfry")
}
