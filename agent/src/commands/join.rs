//! `belfry-agent join`

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use belfry_common::{
    client,
    identity::{Identity, JoinToken, Role, Subject},
    model::NodeName,
};

use serde_json::json;

use super::{
    output::{Output, print_one},
    runtime,
};
use crate::{
    Cli,
    config::{Settings, is_host_and_port},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The line that `belfry token create` printed
    token: String,
    /// The collector's address
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    collector: String,
    /// The node's name [default: its host name]
    #[arg(long)]
    name: Option<NodeName>,
    /// Replace the identity that this node has
    #[arg(long)]
    force: bool,
}

pub(super) fn execute(cli: &Cli, args: &Args, settings: &Settings, output: Output) -> anyhow::Result<ExitCode> {
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
    print(&identity.subject, directory, &args.collector, &options(cli), output)?;
    Ok(ExitCode::SUCCESS)
}

/// What the agent is to be started with, as this command was.
fn options(cli: &Cli) -> String {
    let option = |name, path: &Option<PathBuf>| path.as_ref().map(|path| format!(" {name} {}", path.display()));
    let all = [option("--config", &cli.config), option("--state-dir", &cli.state_dir)];
    all.into_iter().flatten().collect()
}

/// Says who this node is now, with the fields of `belfry join`.
fn print(subject: &Subject, directory: &Path, collector: &str, options: &str, output: Output) -> io::Result<()> {
    let (name, role) = (subject.name.as_str(), subject.role.as_str());
    let object =
        json!({"name": name, "role": role, "collector": collector, "directory": directory.display().to_string()});
    let words = format!("joined {collector} as {name}; now start the agent: belfry-agent{options} run");
    print_one(output, &words, &object, &["name", "role", "collector", "directory"])
}

fn host_and_port(text: &str) -> Result<String, &'static str> {
    if is_host_and_port(text) {
        Ok(text.to_string())
    } else {
        Err("it must be HOST:PORT, such as belfry.example.org:7460")
    }
}

fn host_name() -> NodeName {
    let uname = rustix::system::uname();
    NodeName::from_host_name(&uname.nodename().to_string_lossy())
}
