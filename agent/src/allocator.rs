//! How much memory the C library's allocator keeps for itself.
//!
//! By default it gives each thread a heap of its own, and after one large allocation keeps that much for the next. That is for programs
//! that are always at work; here a handful of threads allocate a little each second, after much at the beginning.

/// One heap for all threads, and what was large goes back to the system. Before the first thread starts.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "no safe library offers mallopt(3)")]
pub(crate) fn keep_little() {
    use std::ffi::c_int;

    // From <malloc.h>.
    const TRIM_THRESHOLD: c_int = -1;
    const MMAP_THRESHOLD: c_int = -3;
    const ARENA_MAX: c_int = -8;
    const LARGE: c_int = 64 * 1024;

    // SAFETY: the declaration is that of <malloc.h> in glibc.
    unsafe extern "C" {
        safe fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }
    for (parameter, value) in [(ARENA_MAX, 1), (MMAP_THRESHOLD, LARGE), (TRIM_THRESHOLD, LARGE)] {
        // Where it does not take one, more memory is used.
        let _ = mallopt(parameter, value);
    }
}

/// Other C libraries keep little anyway.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn keep_little() {}
