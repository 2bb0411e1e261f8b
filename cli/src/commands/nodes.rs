//! `belfry nodes`

use std::process::ExitCode;

use serde_json::json;

use super::{Global, with_client};
use crate::{
    api::{NodeRow, Request},
    render::{
        Look,
        fleet::state_style,
        listing::{self, Listed},
        machine::{self, field},
        output::{Format, Output, OutputError},
        style::Style,
        table::{Cell, Column, Fit, Table},
        units::age_of,
    },
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Lists the nodes that have joined [default]
    List,
    /// Takes a node's right to send away, at once; its data stays
    Revoke { node: String },
    /// Forgets a node that is gone for good: its rights, its data in memory and its alerts
    Forget { node: String },
}

pub(crate) fn execute(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let output = global.output(Format::Table);
    with_client(global, async |client| {
        match args.command.as_ref().unwrap_or(&Command::List) {
            Command::List => listing::print::<NodeRow>(&client.text(&Request::Nodes).await?, &output)?,
            Command::Revoke { node } => {
                client.tell(&Request::RevokeNode { name: node.clone() }).await?;
                let next = format!(
                    "to let it back in: `belfry nodes forget {node}`, then a new token and `belfry-agent join --force`"
                );
                done(&output, node, "revoked", &next)?;
            }
            Command::Forget { node } => {
                client.tell(&Request::ForgetNode { name: node.clone() }).await?;
                done(&output, node, "forgotten", "it comes back with a new token and `belfry-agent join --force`")?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Says what was done to a node.
fn done(output: &Output, node: &str, done: &str, next: &str) -> Result<(), OutputError> {
    output.print(&match output.format {
        Format::Table => format!("{done}: {node} ({next})\n"),
        Format::Json | Format::Jsonl => machine::json(&json!({"node": node, "done": done}).to_string()),
        Format::Csv => format!("node,done\n{node},{done}\n"),
    })
}

const COLUMNS: &[Column] = &[
    Column::left("NODE", Fit::Name(32)),
    Column::left("STATE", Fit::Always),
    Column::right("SEEN", Fit::Always),
    Column::right("SERIES", Fit::Always),
    Column::left("AGENT", Fit::Always),
    Column::left("ADDRESS", Fit::Droppable),
    Column::right("JOINED", Fit::Droppable),
    Column::right("SKEW", Fit::Droppable),
    Column::left("NOTE", Fit::Flexible(20)),
];

/// From which difference of clocks on it is shown as a fault.
const SKEW_SECONDS: f64 = 2.0;

impl Listed for NodeRow {
    const CSV_NAMES: &'static [&'static str] = &[
        "id",
        "name",
        "state",
        "reason",
        "address",
        "agent_version",
        "joined_at",
        "last_seen",
        "series",
        "series_left_out",
        "clock_skew_seconds",
    ];

    fn csv_row(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.name.clone(),
            self.state.clone(),
            field(self.reason.as_ref()),
            field(self.address.as_ref()),
            field(self.agent_version.as_ref()),
            self.joined_at.clone(),
            field(self.last_seen.as_ref()),
            self.series.to_string(),
            self.series_left_out.to_string(),
            field(self.clock_skew_seconds),
        ]
    }

    fn table(list: &[Self], look: &Look) -> String {
        if list.is_empty() {
            return "no node has joined yet: `belfry token create` makes the line to run on one\n".to_string();
        }
        let mut list: Vec<&Self> = list.iter().collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        let rows = list.into_iter().map(|node| {
            let skew = node.clock_skew_seconds.map(|skew| {
                let style = Style::by_threshold(skew.abs(), SKEW_SECONDS, 60.0);
                Cell::new(&format!("{skew:.3}s"), style)
            });
            vec![
                Cell::plain(&node.name),
                Cell::new(&node.state, state_style(&node.state)),
                Cell::known(node.last_seen.as_deref().and_then(|time| age_of(time, look.now))),
                Cell::plain(&node.series.to_string()),
                Cell::known(node.agent_version.clone()),
                Cell::known(node.address.clone()),
                Cell::known(age_of(&node.joined_at, look.now)),
                skew.unwrap_or_else(|| Cell::known(None)),
                Cell::new(&note(node), Style::Warning),
            ]
        });
        Table { columns: COLUMNS, rows: rows.collect() }.render(look)
    }
}

fn note(node: &NodeRow) -> String {
    let mut notes: Vec<String> = node.reason.iter().cloned().collect();
    if node.series_left_out > 0 {
        notes.push(format!("{} series left out: over the limit of a node", node.series_left_out));
    }
    notes.join("; ")
}
