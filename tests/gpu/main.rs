//! GPUs, from the driver to the operator: real agents and collectors, and a library in the driver's place that plays what a test's
//! scenario says. It is loaded as NVIDIA's is.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking, which shows where")]

mod dcgm;
mod driver;
mod hang;
mod readings;
mod usage;
mod xid;
