//! What end-to-end tests need: real collectors and agents as processes, a client that says anything, a network that
//! misbehaves, and an oracle that knows what must be on disk afterwards.
//!
//! Every test has its own processes, directories and ports, so that all may run at once. Nothing here waits for a span of time
//! to pass: it polls for a condition under a deadline. Absent: what is to be tested, which is in `commands/`, `faults/` and `kill.rs`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's harness fails by panicking, which shows where"
)]

pub mod agent;
pub mod binaries;
pub mod cli;
pub mod collector;
pub mod fake_collector;
pub mod figures;
pub mod gpus;
pub mod hostile;
pub mod http;
pub mod oracle;
pub mod process;
pub mod recorder;
pub mod relay;
pub mod samples;
pub mod script;
pub mod skip;
pub mod wait;
