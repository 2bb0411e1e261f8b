//! What Belfry's agent and collector have in common: the model, the wire format, the journal, identity.
//!
//! Only what *both* sides use lives here. Nothing in it knows samplers, rules or commands.
#![warn(missing_docs)]

pub mod backoff;
pub mod client;
pub mod clock;
pub mod config_file;
pub mod error_chain;
pub mod identity;
pub mod journal;
pub mod limits;
pub mod model;
pub mod quic;
pub mod sequences;
pub mod stages;
pub mod storage;
pub mod terminal;
pub mod wire;
