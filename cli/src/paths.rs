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
    user_state_directory().unwrap_or_else(|| "belfry".into())
}

/// Where a collector on this machine may keep its data, the likeliest first.
pub(crate) fn data_directories() -> Vec<PathBuf> {
    let mut directories = vec![data_directory(), PathBuf::from("/var/lib/belfry")];
    directories.extend(user_state_directory());
    directories.dedup();
    directories
}

/// Where this user's identity is kept.
pub(crate) fn user_directory() -> Option<PathBuf> {
    xdg("XDG_CONFIG_HOME", ".config")
}

fn user_state_directory() -> Option<PathBuf> {
    xdg("XDG_STATE_HOME", ".local/state")
}

/// This program's directory in a place of the XDG Base Directory Specification.
fn xdg(variable: &str, below_home: &str) -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let place = set(variable).or_else(|| Some(set("HOME")?.join(below_home)))?;
    Some(place.join("belfry"))
}
