//! The composition root of the collector: opens what is on disk, builds the stages and the channels between them, announces its
//! addresses, runs until it is told to stop, and stops in the order of the data.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::DirBuilderExt as _,
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use belfry_common::{
    clock,
    identity::{Authority, Identity},
    quic::{self, EndpointError},
    stages::Stages,
};
use belfry_store::{Maintainer, NodeId, Store, StoreOptions};
use quinn::Endpoint;
use tokio::{net::TcpListener, runtime::Handle, sync::oneshot};
use tracing::{info, warn};

use crate::{
    access::Access,
    alerting::{ARRIVALS_MAX, Alerting},
    config::Settings,
    fleet::{Fleet, store_id},
    gpu_jobs::GpuJobs,
    housekeeping, http,
    hub::Hub,
    ingest::SeriesCaps,
    listen::{self, AdmissionLimits, Connections},
    maintenance,
    queries::Queries,
    series::StoreReader,
    services::Services,
    state::{State, StateError, nodes},
    store_keys::KeySource,
    writer::{Writer, writer},
    xid_files,
};

/// How long stopping may take in all.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// A collector that is ready to run.
#[derive(Debug)]
pub(crate) struct Collector {
    /// Where agents and clients of this machine reach it.
    pub(crate) address: SocketAddr,
    pub(crate) http: SocketAddr,
    services: Arc<Services>,
    endpoint: Endpoint,
    listener: TcpListener,
    /// Where HTTP is not for this machine alone.
    tls: Option<Arc<rustls::ServerConfig>>,
    admission: AdmissionLimits,
    writer: Writer,
    maintainer: Maintainer,
    alerting: Alerting,
}

impl Collector {
    /// Opens the data directory and binds the addresses. Nothing runs yet.
    pub(crate) async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let directory = &settings.data_directory;
        let now = clock::now();
        // First, so that a mistake in them is refused before anything is touched.
        let rules = settings.rules.load()?;
        let catalogue = Arc::new(xid_files::load(&settings.xid_catalogue)?);
        let keys = settings.keys.as_ref().map(KeySource::read).transpose()?.unwrap_or_default();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| format!("failed to create the data directory `{}`", directory.display()))?;
        refuse_lost_database(directory)?;
        let state = State::open(directory)?;
        let options = StoreOptions { keys, ..settings.store.clone() };
        let (store, recovery) = Store::open(directory, options, now).context("failed to open the store")?;
        if !recovery.is_clean() {
            let (journal, blocks) = (&recovery.journal, &recovery.blocks);
            warn!(torn = ?journal.torn, damages = ?journal.damages, quarantined = blocks.quarantined, "store was damaged: what can be read is kept");
        }
        let maintainer = store.maintainer();
        let reader = store.reader();
        let access =
            Access::open(directory, state.clone(), settings.certificate_life, settings.http_certificate.as_ref(), now)
                .await
                .context("failed to set up identities")?;
        let fleet = Arc::new(Fleet::new(now));
        enrol(&state, &fleet).await?;
        let hub = Arc::new(Hub::default());
        let head = store.head();
        let gpu_jobs = Arc::new(GpuJobs::open(state.clone(), now).await?);
        let series =
            StoreReader::new(reader.clone(), Arc::clone(&fleet), Arc::clone(&catalogue), Arc::clone(&gpu_jobs));
        let queries = Queries::start(series.clone()).context("failed to start threads for queries")?;
        let down_since = fleet.nodes().iter().filter_map(|node| node.facts.heard_at).max();
        let (writer_handle, writer) = writer(store, Arc::clone(&hub), Arc::clone(&fleet));
        let (alerting_handle, alerting) =
            Alerting::open((settings.rules.clone(), rules), series, Arc::clone(&fleet), state.clone(), down_since)
                .await?;

        let endpoint =
            quic::listen(settings.listen, access.server_config()?, &access.listener_secret()).map_err(|error| {
                let help = listen_help(&error);
                anyhow::Error::from(error).context(help)
            })?;
        let address = reachable(endpoint.local_addr().context("failed to read the address in use")?);
        let listener = http::bind(settings.http).await.with_context(|| {
            format!("failed to listen on TCP {}: choose another address with --http", settings.http)
        })?;
        let http = listener.local_addr().context("failed to read the address in use")?;
        let tls = !settings.http.ip().is_loopback() || settings.http_certificate.is_some();
        let tls = tls.then(|| access.http_config()).transpose()?.map(Arc::new);
        access.keep_local_identity(directory, now).await.context("failed to keep the local identity")?;
        Identity::save_collector_address(directory, &address.to_string())?;
        let services = Services {
            started: now,
            data_directory: directory.clone(),
            address: address.to_string(),
            http: format!("{}://{}", if tls.is_some() { "https" } else { "http" }, reachable(http)),
            state,
            access,
            head,
            reader,
            fleet,
            gpu_jobs,
            catalogue,
            hub,
            queries,
            writer: writer_handle,
            alerting: alerting_handle,
            connections: Connections::new(settings.admission.connections_max),
            series_caps: SeriesCaps::new(settings.limits.series_per_node),
        };
        let services = Arc::new(services);
        let admission = settings.admission;
        Ok(Self { address, http, services, endpoint, listener, tls, admission, writer, maintainer, alerting })
    }

    /// What the parts share.
    pub(crate) fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// Runs until `stop` is ready or a stage fails.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { services, endpoint, listener, tls, admission, writer, maintainer, alerting, address, http } = self;
        info!(%address, %http, directory = %services.data_directory.display(), "collector ready");
        let subscription = services.hub.subscribe(ARRIVALS_MAX);
        let state = services.state.clone();
        let mut stages = Stages::new();
        let shared = Arc::clone(&services);
        stages.spawn("listen", |token| async move {
            listen::run(endpoint, admission, shared, token).await;
            Ok(())
        });
        let shared = Arc::clone(&services);
        stages.spawn("http", |token| async move {
            http::run(listener, tls, shared, token).await;
            Ok(())
        });
        stages.spawn("housekeeping", |token| housekeeping::run(services, token));
        // With the stages above the last handles are gone: the writer ends when its queue is empty, and alerting after it.
        let writer = on_thread("writer", move || writer.run());
        stages.spawn("writer", |_| async move { Ok(writer.await??) });
        stages.spawn("maintenance", |token| maintenance::run(maintainer, token));
        let runtime = Handle::current();
        let alerting = on_thread("alerting", move || alerting.run(subscription, &runtime));
        stages.spawn("alerting", |token| async move {
            tokio::select! {
                ended = alerting => Ok(ended?),
                () = token.cancelled() => Ok(()),
            }
        });
        let database = state.clone();
        stages.spawn("database", |token| async move {
            tokio::select! {
                error = database.failed() => Err(error.into()),
                () = token.cancelled() => Ok(()),
            }
        });
        let ended = stages.run(stop, STOP_DEADLINE).await;
        state.shutdown().await;
        info!("collector stopped");
        Ok(ended?)
    }
}

/// A database is made at the first start, and the authority after it. A second one would know no node that has joined.
fn refuse_lost_database(directory: &Path) -> anyhow::Result<()> {
    let path = State::path(directory);
    anyhow::ensure!(
        path.exists() || !Authority::exists(directory),
        "`{}` is missing while the certificate authority is there: restore it from a backup; with a new one every enrolled node would be \
         locked out, and its history given to another",
        path.display()
    );
    Ok(())
}

/// Runs blocking work on a thread of its own; the receiver gets its result, or nothing if it panicked.
fn on_thread<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (done, result) = oneshot::channel();
    let thread = thread::Builder::new().name(name.to_string()).spawn(move || {
        // Nobody waits any more when the process is past its deadline.
        drop(done.send(work()));
    });
    if let Err(error) = thread {
        // The receiver learns of it as of a thread that died.
        warn!(%error, name, "no thread");
    }
    result
}

/// Who was heard this much earlier than others, by what was written down of both, was gone before the collector ended.
const GONE_MS: i64 = nodes::LAST_SEEN_LAG_MAX_MS + 30_000;

/// Takes the nodes that the database knows into the fleet.
async fn enrol(state: &State, fleet: &Fleet) -> Result<(), StateError> {
    let known = state.read(nodes::list).await?;
    let ended = known.iter().filter_map(|node| node.last_seen).max();
    for node in known {
        let is_refused = match node.standing {
            nodes::Standing::Admitted => false,
            nodes::Standing::Locked(_) | nodes::Standing::Revoked(_) => true,
            nodes::Standing::Forgotten(_) => continue,
        };
        let id = store_id(node.id);
        if id != NodeId::COLLECTOR {
            let mut facts = fleet.remembered(node.last_seen, node.has_left, is_refused);
            // Who was gone when the collector ended is not waited for: its alerts stand.
            let gone_for = ended.zip(node.last_seen).map_or(0, |(ended, seen)| ended.millis_since(seen));
            facts.is_awaited = gone_for <= GONE_MS;
            fleet.remember(id, node.name, facts);
        }
    }
    Ok(())
}

/// What to do about an address that cannot be listened on.
fn listen_help(error: &EndpointError) -> &'static str {
    match error {
        EndpointError::Bind { source, .. } if source.kind() == ErrorKind::AddrNotAvailable => {
            "this machine has no such address: choose one of its own with --listen"
        }
        _ => "another collector may be using the address: choose one with --listen",
    }
}

/// How this machine reaches an address that may stand for all of its addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
