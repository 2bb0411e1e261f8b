//! Which threads go first.

/// Lets threads of a lower number than this go first, from 0, where all begin, to 19.
pub(crate) fn step_back(nice: i32) {
    // On Linux this is the thread's own priority and not the process'. Not allowed to: then all go on alike.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice) {
        tracing::debug!(%error, "a thread runs at the priority of all else");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = nice;
}
