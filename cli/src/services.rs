//! What the collector's parts share: built once by [`crate::collector`], passed to every connection.

use std::{path::PathBuf, sync::Arc};

use belfry_store::{Head, Reader};

use crate::{
    access::Access, alerting::AlertingHandle, fleet::Fleet, gpu_jobs::GpuJobs, hub::Hub, ingest::SeriesCaps,
    listen::Connections, queries::Queries, state::State, writer::WriterHandle, xid::Catalogue,
};

/// The collector's parts.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) started: belfry_common::model::Timestamp,
    pub(crate) data_directory: PathBuf,
    /// Where the collector listens, as clients on this machine reach it.
    pub(crate) address: String,
    /// Where HTTP is served, as far as the collector knows: `http://HOST:PORT`, or `https://…`, where it asks for tokens.
    pub(crate) http: String,
    pub(crate) state: State,
    pub(crate) access: Access,
    pub(crate) head: Arc<Head>,
    /// Reads the head and what is on disk.
    pub(crate) reader: Reader,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) gpu_jobs: Arc<GpuJobs>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) queries: Queries,
    pub(crate) writer: WriterHandle,
    pub(crate) alerting: AlertingHandle,
    pub(crate) connections: Connections,
    pub(crate) series_caps: SeriesCaps,
}
