//! `belfry-agent join`

use std::{io::Write as _, process::ExitCode};

use anyhow::{Context as _, bail};
use belfry_common::{
    client,
    identity::{Identity, JoinToken, Role},
    model::NodeName,
};

use super::{output::output, runtime};
use crate::config::Settings;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The line that `belfry token create` printed
    token: String,
    /// The collector's address
    #[arg(long, value_name = "HOST:PORT")]
    collector: String,
    /// The node's name [default: its host name]
    #[arg(long)]
    name: Option<NodeName>,
    /// Replace the identity that this node has
    #[arg(long)]
    force: bool,
}

pub(super) fn execute(args: &Args, settings: &Settings) -> anyhow::Result<ExitCode> {
    let directory = &settings.state_directory;
    let token = JoinToken::parse(&args.token)?;
    if token.role() != Role::Agent {
        bail!("this token is for the role {}, not for agents: use it with `belfry join`", token.role());
    }
    if !args.force
        && let Ok(identity) = Identity::load(directory)
    {
        bail!(
            "`{}` already holds the identity of {}: use --force to replace it",
            directory.display(),
            identity.subject.name
        );
    }
    Identity::prepare(directory)?;
    let name = args.name.clone().unwrap_or_else(host_name);
    let identity = runtime()?.block_on(client::join(&token, &args.collector, name.as_str()));
    let identity = identity.with_context(|| format!("failed to join as {name}"))?;
    identity.save(directory)?;
    Identity::save_collector_address(directory, &args.collector)?;
    let mut out = output();
    writeln!(out, "joined {} as {}; now start the agent: belfry-agent run", args.collector, identity.subject.name)?;
    Ok(ExitCode::SUCCESS)
}

fn host_name() -> NodeName {
    let uname = rustix::system::uname();
    NodeName::from_host_name(&uname.nodename().to_string_lossy())
}
