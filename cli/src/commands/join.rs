//! `belfry join`

use std::{env, fs, os::unix::fs::PermissionsExt as _, path::Path, process::ExitCode};

use anyhow::{Context as _, bail};
use belfry_common::{
    client,
    identity::{Identity, JoinToken, Role},
    model::NodeName,
};
use serde_json::json;

use super::{Global, run};
use crate::{
    credentials,
    exit::UsageError,
    render::{
        machine,
        output::{Format, Output},
    },
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The token that `belfry token create` printed
    token: String,
    /// The name under which the collector knows you [default: your user name]
    #[arg(long, value_name = "USER")]
    name: Option<NodeName>,
    /// Replace the identity that is there
    #[arg(long)]
    force: bool,
}

pub(crate) fn execute(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let token = JoinToken::parse(&args.token).map_err(|error| UsageError(error.to_string()))?;
    let Some(collector) = &global.collector else {
        return Err(UsageError("a token does not say where the collector is: add --collector HOST:PORT".into()).into());
    };
    let directory = credentials::own_directory(global)
        .context("no place to keep an identity: set HOME, or name one with --identity DIR")?;
    if !args.force
        && let Ok(identity) = Identity::load(&directory)
    {
        bail!(
            "`{}` already holds the identity of {}: use --force to replace it",
            directory.display(),
            identity.subject.name
        );
    }
    if token.role() == Role::Agent {
        bail!("this token is for an agent: use it on the node, with `belfry-agent join`");
    }
    Identity::prepare(&directory)?;
    let name = args.name.clone().unwrap_or_else(user_name);
    let identity = run(global, async { Ok(client::join(&token, collector, name.as_str()).await) })?;
    let identity = identity.with_context(|| format!("failed to join as {name}"))?;
    keep(&identity, &directory, collector)?;
    print(&identity, &directory, collector, &global.output(Format::Table))?;
    Ok(ExitCode::SUCCESS)
}

fn keep(identity: &Identity, directory: &Path, collector: &str) -> anyhow::Result<()> {
    identity.save(directory)?;
    // The directory may have been there before, open to all.
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("failed to close `{}` to others", directory.display()))?;
    Ok(Identity::save_collector_address(directory, collector)?)
}

fn print(identity: &Identity, directory: &Path, collector: &str, output: &Output) -> anyhow::Result<()> {
    let (name, role) = (&identity.subject.name, identity.subject.role);
    let place = directory.display().to_string();
    let text = match output.format {
        Format::Table => {
            format!("joined {collector} as {name} ({role}); the identity is in {place}. Try: belfry status\n")
        }
        Format::Json | Format::Jsonl => {
            let document =
                json!({"name": name.as_str(), "role": role.as_str(), "collector": collector, "directory": place});
            machine::json(&document.to_string())
        }
        Format::Csv => {
            let row = vec![name.to_string(), role.to_string(), collector.to_string(), place];
            machine::csv(&["name", "role", "collector", "directory"], [row])?
        }
    };
    Ok(output.print(&text)?)
}

fn user_name() -> NodeName {
    let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
    NodeName::from_host_name(&set("USER").or_else(|| set("LOGNAME")).unwrap_or_else(|| "user".into()))
}
