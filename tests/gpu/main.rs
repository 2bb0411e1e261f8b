//! GPUs, from the driver to the operator: real agents and collectors, and a library in the driver's place that plays what a test's
//! scenario says. It is loaded as NVIDIA's is; AMD's are made of files.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking, which shows where")]

mod amd;
mod dcgm;
mod driver;
mod hang;
mod readings;
mod scene;
mod usage;
mod xid;
