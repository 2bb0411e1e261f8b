//! `belfry up`: a collector and an agent on this machine, and the status to look at.

use std::{
    env,
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, bail};
use belfry_common::{
    client, clock,
    identity::{Identity, Role},
    model::NodeName,
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use super::{Global, collect, simulate, watch};
use crate::{
    access::TokenWish,
    allocator,
    client::Client,
    collector::Collector,
    credentials::Credentials,
    render::output::{self, Format},
    services::Services,
    state::nodes,
};

const AGENT: &str = "belfry-agent";
const LOG_FILE: &str = "up.log";
/// A token that is used at once.
const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// How long the agent may take to leave.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    overrides: collect::Overrides,
    /// Run without the live status
    #[arg(long)]
    no_watch: bool,
    /// Add this many simulated 8-GPU nodes, called sim-00000 and so on, for as long as this runs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    demo: Option<u16>,
}

pub(crate) fn execute(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let settings = collect::settings(None, &args.overrides)?;
    let is_watched = !args.no_watch && output::is_terminal();
    if is_watched {
        // The screen belongs to the status; what there is to say goes to a file.
        std::fs::create_dir_all(&settings.data_directory)
            .with_context(|| format!("failed to create the data directory `{}`", settings.data_directory.display()))?;
        let file = BoxMakeWriter::new(Mutex::new(log_file(&settings.data_directory)?));
        super::log_to(file, false, global, LevelFilter::INFO);
    } else {
        super::start_logging(global, LevelFilter::INFO);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().on_thread_park(allocator::give_back).build()?;
    runtime.block_on(async {
        let collector = Collector::open(&settings).await?;
        let services = Arc::clone(collector.services());
        let (stop, stopped) = oneshot::channel::<()>();
        let mut collector = Running::from_iter([collector.run(async {
            // Its other end is dropped when all beside the collector has ended.
            drop(stopped.await);
        })]);
        let result = beside(&mut collector, services, global, args, is_watched).await;
        drop(stop);
        match collector.join_next().await {
            Some(ended) => result.and(finished(Some(ended))),
            None => result,
        }
    })
}

type Running = tokio::task::JoinSet<anyhow::Result<()>>;

/// Runs the agent and the view beside the collector until one of them ends.
async fn beside(
    collector: &mut Running,
    services: Arc<Services>,
    global: &Global,
    args: &Args,
    is_watched: bool,
) -> anyhow::Result<ExitCode> {
    let directory = services.data_directory.clone();
    let agent_directory = directory.join("agent");
    let mut agent = tokio::select! {
        enrolled = enrol(&services, &agent_directory) => {
            enrolled?;
            start_agent(&agent_directory, is_watched.then_some(&directory))?
        }
        ended = collector.join_next() => return finished(ended),
    };
    drop(services);
    let view = async {
        if !is_watched {
            collect::stop_signal().await;
            return Ok(ExitCode::SUCCESS);
        }
        let credentials = Credentials::load(directory.clone(), None)?;
        watch::run(&credentials, None, global.output(Format::Table)).await
    };
    let stop_demo = CancellationToken::new();
    let mut demo = Box::pin(demo(&directory, args.demo, stop_demo.clone()));
    let mut is_demo_over = false;
    let result = tokio::select! {
        result = view => result,
        result = &mut demo => {
            is_demo_over = true;
            result.map(|()| ExitCode::SUCCESS).context("failed to simulate nodes")
        }
        ended = collector.join_next() => finished(ended),
        status = exited(&mut agent) => Err(anyhow::anyhow!("the agent has ended ({status}): see its messages above or in `{}`", directory.join(LOG_FILE).display())),
    };
    stop_demo.cancel();
    if !is_demo_over {
        // What is not removed now is so at the next start.
        drop(tokio::time::timeout(LEAVE_TIMEOUT, demo).await);
    }
    stop_agent(agent).await;
    result
}

/// Simulated nodes until they are stopped; none never end.
async fn demo(directory: &Path, nodes: Option<u16>, stop: CancellationToken) -> anyhow::Result<()> {
    let Some(nodes) = nodes else {
        stop.cancelled().await;
        return Ok(());
    };
    let client = Client::connect_as(&Credentials::load(directory.to_path_buf(), None)?).await?;
    simulate::run_beside(&client, nodes.into(), stop).await
}

fn finished(ended: Option<Result<anyhow::Result<()>, tokio::task::JoinError>>) -> anyhow::Result<ExitCode> {
    match ended {
        Some(Ok(result)) => result.map(|()| ExitCode::SUCCESS),
        Some(Err(error)) => Err(error).context("the collector has crashed"),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Gives this machine's agent an identity, if it has none.
async fn enrol(services: &Services, directory: &Path) -> anyhow::Result<()> {
    let name = NodeName::from_host_name(&rustix::system::uname().nodename().to_string_lossy());
    let wanted = name.clone();
    let node = services.state.read(move |view| nodes::by_name(view, &wanted)).await?;
    if let Some(node) = node {
        if node.standing != nodes::Standing::Admitted {
            bail!("this machine, {name}, is shut out: start `belfry collect` and run `belfry nodes forget {name}`");
        }
        let is_current =
            |identity: Identity| identity.subject.id == node.id.as_u64() && identity.subject.not_after > clock::now();
        if !Identity::load(directory).is_ok_and(is_current) {
            // Its certificate ran out while it was off, or was deleted. It is the same node all the same.
            let (key, csr) = Identity::request()?;
            let access = &services.access;
            let certificate = access.certify(name, Role::Agent, Some(node.id), csr, clock::now()).await?;
            let authorities = access.authorities().into_iter().map(Into::into).collect();
            Identity::new(key, certificate, authorities)?.save(directory)?;
        }
        return Ok(Identity::save_collector_address(directory, &services.address)?);
    }
    let wish = TokenWish {
        role: Role::Agent,
        names: name.as_str().parse().context("failed to make a token for this machine")?,
        uses: std::num::NonZeroU32::MIN,
        life: TOKEN_LIFE,
        created_by: NodeName::from_host_name("local-admin"),
    };
    let (_, token) = services.access.create_token(wish, clock::now()).await?;
    let identity =
        client::join(&token, &services.address, name.as_str()).await.context("failed to enrol this machine")?;
    identity.save(directory)?;
    Ok(Identity::save_collector_address(directory, &services.address)?)
}

/// Starts the agent that lies beside this program or in the path. It stops when this process does, however that ends.
fn start_agent(directory: &Path, log: Option<&PathBuf>) -> anyhow::Result<Child> {
    let beside = env::current_exe().ok().and_then(|path| Some(path.parent()?.join(AGENT))).filter(|path| path.exists());
    let program = beside.unwrap_or_else(|| AGENT.into());
    let mut command = Command::new(&program);
    command
        .arg("--state-dir")
        .arg(directory)
        .args(["run", "--with-parent"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    if let Some(directory) = log {
        command.stderr(log_file(directory)?);
    }
    command
        .spawn()
        .with_context(|| format!("failed to start `{}`: it must lie beside `belfry` or in the path", program.display()))
}

fn log_file(directory: &Path) -> anyhow::Result<std::fs::File> {
    let path = directory.join(LOG_FILE);
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    file.with_context(|| format!("failed to open `{}`", path.display()))
}

/// Ready when the agent has ended by itself.
async fn exited(agent: &mut Child) -> String {
    loop {
        match agent.try_wait() {
            Ok(Some(status)) => return status.to_string(),
            Ok(None) => tokio::time::sleep(Duration::from_millis(200)).await,
            Err(error) => return error.to_string(),
        }
    }
}

/// Ends the agent's standard input, which it takes for our end, and waits for it to take leave.
async fn stop_agent(mut agent: Child) {
    drop(agent.stdin.take());
    if tokio::time::timeout(LEAVE_TIMEOUT, exited(&mut agent)).await.is_err() {
        // It has had its time. What it has not sent is in its spool.
        drop(agent.kill());
    }
    drop(agent.wait());
}
