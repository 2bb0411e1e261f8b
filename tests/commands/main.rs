//! What a user sees: the programs run as processes, and their output, files, messages and exit codes are compared with what is
//! promised to people and scripts.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails, in its helpers as well"
)]

mod agent;
mod alerts;
mod backup;
mod completion;
mod dashboards;
mod doctor;
mod http;
mod http_access;
mod join;
mod node;
mod nodes;
mod query;
mod rules;
mod simulate;
mod status;
mod store;
mod tail;
mod token;
mod up;
mod usage;
