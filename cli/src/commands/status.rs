//! `belfry status`

use std::process::ExitCode;

use belfry_common::error_chain::ErrorChain;
use clap_complete::ArgValueCompleter;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Global, completion, run, watch, with_client};
use crate::{
    api::{NodeStatus, Request, StatusDocument},
    client::{Client, ClientError},
    credentials::Credentials,
    exit::UsageError,
    render::{
        Look,
        alert::StandingAlert,
        check::{self, Verdict},
        fleet::{self, Gpus, Tally},
        jobs,
        machine::{self, field},
        node,
        output::{self, Format, Output},
    },
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this node, in full
    #[arg(add = ArgValueCompleter::new(completion::node))]
    node: Option<String>,
    /// Keep the view on the screen and up to date; q ends
    #[arg(long, conflicts_with = "check")]
    watch: bool,
    /// The jobs that use GPUs, instead of the nodes
    #[arg(long, conflicts_with_all = ["check", "watch"])]
    jobs: bool,
    /// Judge, for monitoring systems: one line, and 0 ok, 1 warning, 2 critical or 3 unknown as the exit code
    #[arg(long)]
    check: bool,
}

pub(crate) fn execute(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let output = global.output(Format::Table);
    if args.check {
        return judge(global, args.node.clone(), &output);
    }
    if args.watch {
        if !output::is_terminal() || output.format != Format::Table {
            return Err(UsageError(
                "--watch is for terminals: scripts use `belfry tail` or `belfry alerts --follow`".into(),
            )
            .into());
        }
        return run(global, async {
            let credentials = Credentials::find(global)?;
            watch::run(&credentials, args.node.clone(), output).await
        });
    }
    with_client(global, async |client| {
        let text = match output.format {
            format if args.jobs => {
                let document = client.ask(&Request::Status { node: args.node.clone() }).await?;
                jobs::view(&document, format, &output.look())?
            }
            Format::Table => View::ask(client, args.node.clone()).await?.render(&output.look()),
            format => document(&client.text(&Request::Status { node: args.node.clone() }).await?, format)?,
        };
        output.print(&text)?;
        Ok(ExitCode::SUCCESS)
    })
}

/// What the view for people is made of.
#[derive(Debug, Clone)]
pub(super) struct View {
    document: StatusDocument,
    alerts: Vec<StandingAlert>,
    is_one_node: bool,
}

impl View {
    pub(super) async fn ask(client: &Client, node: Option<String>) -> Result<Self, ClientError> {
        let is_one_node = node.is_some();
        let (status, alerts) = (Request::Status { node: node.clone() }, Request::Alerts { states: Vec::new() });
        let (document, alerts) = tokio::try_join!(client.ask(&status), client.ask(&alerts))?;
        let mut alerts: Vec<StandingAlert> = alerts;
        if is_one_node {
            alerts.retain(|alert| alert.node() == node.as_deref());
        }
        Ok(Self { document, alerts, is_one_node })
    }

    /// The text; ages in it are counted from the collector's time, so that it matters not whether this machine's clock is right.
    pub(super) fn render(&self, look: &Look) -> String {
        let look = self.at_its_time(look);
        let view = if self.is_one_node { node::view } else { fleet::view };
        view(&self.document, &self.alerts, &look)
    }

    fn at_its_time(&self, look: &Look) -> Look {
        Look { now: crate::render::units::parse_time(&self.document.time).unwrap_or(look.now), ..*look }
    }
}

fn judge(global: &Global, node: Option<String>, output: &Output) -> anyhow::Result<ExitCode> {
    let view = with_client(global, async |client| Ok(View::ask(client, node).await?));
    let (verdict, line) = match view {
        Ok(view) => check::verdict(&view.document, &view.alerts, &view.at_its_time(&output.look())),
        Err(error) => {
            let error: &(dyn std::error::Error + 'static) = error.as_ref();
            (Verdict::Unknown, check::unknown(&ErrorChain(error).to_string()))
        }
    };
    output.print(&line)?;
    Ok(ExitCode::from(verdict as u8))
}

/// The document for scripts.
fn document(json: &str, format: Format) -> anyhow::Result<String> {
    match format {
        Format::Jsonl => {
            let document: Nodes = serde_json::from_str(json).map_err(ClientError::Unreadable)?;
            Ok(machine::json_lines(&document.nodes))
        }
        Format::Csv => {
            let document: StatusDocument = serde_json::from_str(json).map_err(ClientError::Unreadable)?;
            Ok(machine::csv(CSV_NAMES, document.nodes.iter().map(csv_row))?)
        }
        Format::Json | Format::Table => Ok(machine::json(json)),
    }
}

#[derive(Deserialize)]
struct Nodes {
    nodes: Vec<Box<RawValue>>,
}

const CSV_NAMES: &[&str] = &[
    "name",
    "state",
    "reason",
    "last_seen",
    "agent_version",
    "boot_time",
    "cpu_utilization_ratio",
    "cpu_cores",
    "load1",
    "memory_used_bytes",
    "memory_total_bytes",
    "disk_used_ratio_max",
    "disk_mountpoint",
    "network_receive_bytes_per_second",
    "network_transmit_bytes_per_second",
    "gpus",
    "gpus_failed",
    "gpus_degraded",
    "gpus_unknown",
    "gpu_utilization_ratio",
    "gpu_memory_used_bytes",
    "gpu_memory_total_bytes",
    "gpu_temperature_celsius_max",
    "gpu_power_watts",
    "alerts_firing",
    "alerts_pending",
];

fn csv_row(node: &NodeStatus) -> Vec<String> {
    let gpus = Gpus::of(node);
    let mut tally = Tally::default();
    tally.add(node);
    vec![
        node.name.clone(),
        node.state.clone(),
        field(node.reason.as_ref()),
        field(node.last_seen.as_ref()),
        field(node.agent_version.as_ref()),
        field(node.boot_time.as_ref()),
        field(node.cpu.utilization_ratio),
        field(node.cpu.cores),
        field(node.cpu.load1),
        field(node.memory.used_bytes),
        field(node.memory.total_bytes),
        field(node.disk.used_ratio_max),
        field(node.disk.mountpoint.as_ref()),
        field(node.network.receive_bytes_per_second),
        field(node.network.transmit_bytes_per_second),
        tally.gpus.to_string(),
        tally.gpus_failed.to_string(),
        tally.gpus_degraded.to_string(),
        tally.gpus_unknown().to_string(),
        field(gpus.utilization),
        field(gpus.memory.map(|(used, _)| used)),
        field(gpus.memory.map(|(_, total)| total)),
        field(gpus.temperature_max),
        field(gpus.power_watts),
        node.alerts.firing.to_string(),
        node.alerts.pending.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_of_the_table_has_its_name() {
        let node = r#"{"name":"a","state":"up","reason":null,"last_seen":null,"agent_version":null,"boot_time":null,
            "cpu":{"utilization_ratio":0.5,"cores":2,"load1":0.1},"memory":{"used_bytes":1,"total_bytes":2},
            "disk":{"used_ratio_max":null,"mountpoint":null},
            "network":{"receive_bytes_per_second":null,"transmit_bytes_per_second":null},
            "gpus":[],"alerts":{"firing":0,"pending":0}}"#;
        assert_eq!(csv_row(&serde_json::from_str(node).unwrap()).len(), CSV_NAMES.len());
        let json = format!("{{\"time\":\"t\",\"nodes\":[{node}]}}");
        assert_eq!(document(&json, Format::Csv).unwrap().lines().count(), 2);
        let line = document(&json, Format::Jsonl).unwrap();
        assert!(line.starts_with("{\"name\":\"a\""), "{line}");
    }
}
