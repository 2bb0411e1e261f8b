//! `belfry token`

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use belfry_common::identity::Role;
use serde_json::json;

use super::{Global, duration, millis, with_client};
use crate::{
    api::{HttpTokenCreated, Request, TokenCreated, TokenRow},
    client::Client,
    render::{
        Look,
        listing::{self, Listed},
        machine,
        output::{Format, Output},
        style::Style,
        table::{Cell, Column, Fit, Table},
        text::escape,
        units::{age, age_of, parse_time},
    },
    rules::duration::show,
};

#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Makes a token and prints the line to run where it is to be used; the token is shown once and kept nowhere
    Create(Create),
    /// Lists the tokens, without their secrets
    List,
    /// Makes a token useless; who has joined with it stays
    Revoke { id: String },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// What those who join may do: send (agent), read (viewer), also silence alerts (operator), everything (admin)
    /// [default: agent, with --http viewer]
    #[arg(long)]
    role: Option<Role>,
    /// How long it can be used [default: 1h, with --http 90d]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
    /// How many can join with it
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    /// Which names they may take; `*` stands for any characters
    #[arg(long, value_name = "PATTERN", default_value = "*")]
    name: String,
    /// Make a token for HTTP instead, which somebody of this name shows with each request, such as Grafana
    #[arg(long, value_name = "NAME", conflicts_with_all = ["uses", "name"])]
    http: Option<String>,
}

/// How long a token lives if nobody says.
const JOIN_TTL: Duration = Duration::from_secs(3600);
const HTTP_TTL: Duration = Duration::from_secs(90 * 24 * 3600);

pub(crate) fn execute(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let output = global.output(Format::Table);
    with_client(global, async |client| {
        match &args.command {
            Command::Create(Create { http: Some(name), role, ttl, .. }) => {
                let (role, life) = (role.unwrap_or(Role::Viewer), ttl.unwrap_or(HTTP_TTL));
                create_http(client, name, (role, life), &output).await?;
            }
            Command::Create(args) => create(client, args, &output).await?,
            Command::List => listing::print::<TokenRow>(&client.text(&Request::Tokens).await?, &output)?,
            Command::Revoke { id } => {
                client.tell(&Request::RevokeToken { id: id.clone() }).await?;
                output.print(&match output.format {
                    Format::Table => format!("revoked: token {}\n", escape(id)),
                    Format::Json | Format::Jsonl => machine::json(&json!({"id": id, "done": "revoked"}).to_string()),
                    Format::Csv => machine::csv(&["id", "done"], [vec![id.clone(), "revoked".into()]])?,
                })?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn create(client: &Client, args: &Create, output: &Output) -> anyhow::Result<()> {
    let life = args.ttl.unwrap_or(JOIN_TTL);
    let wish = Request::CreateToken {
        role: args.role.unwrap_or(Role::Agent).to_string(),
        ttl_ms: millis(life),
        uses: args.uses,
        names: args.name.clone(),
    };
    let created: TokenCreated = client.ask(&wish).await?;
    // The collector knows how this machine reaches it. If it is here under all of its addresses, others need one of them.
    let line = command(&created);
    let TokenCreated { id, token, role, expires_at, collector } = &created;
    output.print(&match output.format {
        Format::Table => text(&created, (args.uses, life), &line, &output.look()),
        Format::Json | Format::Jsonl => {
            let document = json!({"id": id, "token": token, "role": role, "expires_at": expires_at, "collector": collector, "command": line});
            machine::json(&document.to_string())
        }
        Format::Csv => {
            let row = [id, token, role, expires_at, collector, &line].map(Clone::clone).to_vec();
            machine::csv(&["id", "token", "role", "expires_at", "collector", "command"], [row])?
        }
    })?;
    Ok(())
}

async fn create_http(
    client: &Client,
    name: &str,
    (role, life): (Role, Duration),
    output: &Output,
) -> anyhow::Result<()> {
    let wish = Request::CreateHttpToken { name: name.to_string(), role: role.to_string(), ttl_ms: millis(life) };
    let created = client.text(&wish).await?;
    let HttpTokenCreated { id, token, name, role, expires_at, url } = serde_json::from_str(&created)?;
    output.print(&match output.format {
        Format::Table => {
            let life = show(i64::try_from(life.as_millis()).unwrap_or(i64::MAX));
            let mut text = format!(
                "Token {} lets {} read {} for {life}, as {}. It is shown this once:\n\n    {}\n\n\
                 It goes into a header of each request: `Authorization: Bearer TOKEN`.\n",
                escape(&id),
                escape(&name),
                escape(&url),
                escape(&role),
                escape(&token)
            );
            if url.starts_with("http://") {
                let hint = "\nHTTP answers this machine alone, without a token; let the collector listen elsewhere with --http.\n";
                text.push_str(&Style::Warning.paint(hint, output.look().is_colored));
            }
            text
        }
        Format::Json | Format::Jsonl => machine::json(&created),
        Format::Csv => {
            machine::csv(&["id", "token", "name", "role", "expires_at", "url"], [vec![id, token, name, role, expires_at, url]])?
        }
    })?;
    Ok(())
}

/// The line that uses the token.
fn command(created: &TokenCreated) -> String {
    let program = if created.role == Role::Agent.as_str() { "belfry-agent" } else { "belfry" };
    format!("{program} join {} --collector {}", created.token, created.collector)
}

fn text(created: &TokenCreated, (uses, life): (u32, Duration), line: &str, look: &Look) -> String {
    let life = humantime::format_duration(life);
    let place = if created.role == Role::Agent.as_str() { "the node" } else { "the machine of the person" };
    let times = if uses == 1 { "once".to_string() } else { format!("up to {uses} times") };
    let mut text = format!(
        "Run this on {place}, {times}, within {life} (token {}, role {}):\n\n    {}\n",
        escape(&created.id),
        escape(&created.role),
        escape(line)
    );
    if created.collector.parse().is_ok_and(|address: SocketAddr| address.ip().is_loopback()) {
        let hint = "\nOn another machine, put this machine's name or address in place of the loopback address.\n";
        text.push_str(&Style::Warning.paint(hint, look.is_colored));
    }
    text
}

const COLUMNS: &[Column] = &[
    Column::left("TOKEN", Fit::Always),
    Column::left("STATE", Fit::Always),
    Column::left("FOR", Fit::Always),
    Column::left("ROLE", Fit::Always),
    Column::right("USES LEFT", Fit::Always),
    Column::right("EXPIRES IN", Fit::Always),
    Column::left("NAMES", Fit::Flexible(8)),
    Column::right("CREATED", Fit::Droppable),
    Column::left("BY", Fit::Droppable),
];

impl Listed for TokenRow {
    const CSV_NAMES: &'static [&'static str] =
        &["id", "role", "names", "uses_left", "uses_total", "expires_at", "created_at", "created_by", "state", "kind"];

    fn csv_row(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.role.clone(),
            self.names.clone(),
            machine::field(self.uses_left),
            machine::field(self.uses_total),
            self.expires_at.clone(),
            self.created_at.clone(),
            self.created_by.clone(),
            self.state.clone(),
            self.kind.clone(),
        ]
    }

    fn table(list: &[Self], look: &Look) -> String {
        if list.is_empty() {
            return "no tokens\n".to_string();
        }
        let rows = list.iter().map(|token| {
            let is_usable = token.state == "usable";
            let style = if is_usable { Style::Good } else { Style::Dim };
            let left = parse_time(&token.expires_at).filter(|_| is_usable);
            vec![
                Cell::plain(&token.id),
                Cell::new(&token.state, style),
                Cell::plain(&token.kind),
                Cell::plain(&token.role),
                match (token.uses_left, token.uses_total) {
                    (Some(left), Some(total)) => Cell::plain(&format!("{left} of {total}")),
                    _ => Cell::default(),
                },
                Cell::known(left.map(|end| age(end.millis_since(look.now)))),
                Cell::plain(&token.names),
                Cell::known(age_of(&token.created_at, look.now).map(|age| format!("{age} ago"))),
                Cell::plain(&token.created_by),
            ]
        });
        Table { columns: COLUMNS, rows: rows.collect() }.render(look)
    }
}
