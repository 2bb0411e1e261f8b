//! What must happen when things go wrong, seen from outside: whole processes, a hostile client, a bad network.
//!
//! Each test names its row of the table of faults. What needs root or a tool that is absent says so and passes.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails, in its helpers as well"
)]

mod alerts;
mod backup;
mod blocks;
mod delivery;
mod identity;
mod network;
mod outage;
mod protocol;
mod reload;
mod startup;
mod storage;
