//! `belfry doctor`

use std::{process::ExitCode, time::Duration};

use belfry_common::{
    clock,
    error_chain::ErrorChain,
    identity::{Role, Subject},
    model::Timestamp,
};
use serde::Serialize;

use super::{Global, rules::RuleRow, run};
use crate::{
    api::{Health, NodeRow, Request},
    client::{Client, ClientError},
    credentials::Credentials,
    exit,
    render::{
        Look, machine,
        output::Format,
        style::Style,
        table::{Cell, Column, Fit, Table},
        units::{age, bytes, count, parse_time},
    },
};

/// From which difference of clocks on times in output mislead, and from which on certificates are at risk.
const SKEW_WARNING: Duration = Duration::from_secs(2);
const SKEW_FAILURE: Duration = Duration::from_secs(300);
/// Names listed in one finding; the others are counted.
const NAMED_MAX: usize = 5;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// What was checked, how it stands and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    subject: &'static str,
    verdict: Verdict,
    detail: String,
    /// What to do; nothing if all is well.
    help: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Failure,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

pub(crate) fn execute(global: &Global, _: &Args) -> anyhow::Result<ExitCode> {
    let output = global.output(Format::Table);
    let findings = run(global, async { Ok(examine(global).await) })?;
    let text = match output.format {
        Format::Table => table(&findings, &output.look()),
        Format::Json => machine::json(&serde_json::to_string(&findings)?),
        Format::Jsonl => {
            let lines: Result<String, _> = findings
                .iter()
                .map(|finding| serde_json::to_string(finding).map(|line| machine::json(&line)))
                .collect();
            lines?
        }
        Format::Csv => machine::csv(&["subject", "verdict", "detail", "help"], findings.iter().map(csv_row))?,
    };
    output.print(&text)?;
    let has_failed = findings.iter().any(|finding| finding.verdict == Verdict::Failure);
    Ok(if has_failed { ExitCode::from(exit::FAILED) } else { ExitCode::SUCCESS })
}

fn ok(subject: &'static str, detail: String) -> Finding {
    Finding { subject, verdict: Verdict::Ok, detail, help: None }
}

fn warning(subject: &'static str, detail: String, help: &str) -> Finding {
    Finding { subject, verdict: Verdict::Warning, detail, help: Some(help.into()) }
}

fn failure(subject: &'static str, detail: String, help: &str) -> Finding {
    Finding { subject, verdict: Verdict::Failure, detail, help: Some(help.into()) }
}

/// Checks what can be checked: each step needs the one before.
async fn examine(global: &Global) -> Vec<Finding> {
    let credentials = match Credentials::find(global) {
        Ok(credentials) => credentials,
        Err(error) => {
            let text = ErrorChain(&error).to_string();
            let mut lines = text.splitn(2, '\n');
            let detail = lines.next().unwrap_or_default().to_string();
            let help = lines
                .next()
                .unwrap_or("join again: belfry join TOKEN --collector HOST:PORT")
                .replace(":\n", ": ")
                .replace('\n', "; ");
            return vec![failure("identity", detail, &help)];
        }
    };
    let place = credentials.directory.display().to_string();
    let began = clock::monotonic();
    let connected = Client::connect_as(&credentials).await;
    // To connect renews it, if need be.
    let mut findings = vec![identity(&credentials.refreshed().identity.subject, &place, clock::now())];
    let client = match connected {
        Ok(client) => client,
        Err(error) => {
            findings.push(unreachable(&credentials.address, &error));
            return findings;
        }
    };
    let asked = clock::now();
    let with_audit = credentials.identity.subject.role == Role::Admin;
    match client.ask::<Health>(&Request::Health { with_audit }).await {
        Ok(health) => {
            let answered = clock::now();
            let took = began.elapsed().as_millis();
            findings.push(ok("collector", format!("{} answers, in {took} ms", client.address())));
            let middle = asked.plus_millis(answered.millis_since(asked) / 2);
            findings.extend(of_health(&health, middle));
            findings.extend(of_lists(&client, &health).await);
        }
        Err(error) => findings.push(unreachable(client.address(), &error)),
    }
    client.close().await;
    findings
}

fn unreachable(address: &str, error: &ClientError) -> Finding {
    let help = if error.is_passing() {
        "start the collector, or let UDP through to its port; --collector names another address"
    } else {
        "a new token gives a new identity: belfry join TOKEN --collector HOST:PORT --force"
    };
    let why = ErrorChain(error).to_string();
    failure("collector", if why.contains(address) { why } else { format!("{address}: {why}") }, help)
}

fn identity(subject: &Subject, place: &str, now: Timestamp) -> Finding {
    let left = subject.not_after.millis_since(now);
    let detail = format!("{} ({}) from {place}", subject.name, subject.role);
    if left <= 0 {
        let help = "join again with a new token: belfry join TOKEN --collector HOST:PORT --force; on the collector's machine, restart the collector";
        return failure("identity", format!("{detail}: its certificate ended {} ago", age(-left)), help);
    }
    let detail = format!("{detail}, its certificate ends in {}", age(left));
    if now > subject.renew_at() {
        let help = "it renews itself when it is used: is the directory writable, and is the identity not revoked?";
        warning("identity", format!("{detail} and should have been renewed"), help)
    } else {
        ok("identity", detail)
    }
}

/// What the collector says of itself; `now` is this machine's time when it did.
fn of_health(health: &Health, now: Timestamp) -> Vec<Finding> {
    let own = env!("CARGO_PKG_VERSION");
    let mut findings = vec![if health.version == own {
        ok("version", format!("{own} on both sides"))
    } else {
        let help = "update the older of the two";
        warning("version", format!("the collector is {}, this is {own}", health.version), help)
    }];
    if let Some(there) = parse_time(&health.time) {
        findings.push(clock_skew(there.millis_since(now)));
    }
    let directory = &health.data_directory;
    findings.push(if health.is_full {
        let help = "agents keep their data until there is room: free some, or lower the retention";
        failure("disk", format!("{directory} is full: nothing is taken in"), help)
    } else {
        ok("disk", format!("{directory} takes data; journal {}", bytes(health.journal_bytes as f64)))
    });
    findings.push(match health.database.as_str() {
        "good" => ok("database", "good".into()),
        state if state.starts_with("retrying") => {
            warning("database", state.to_string(), "look at the disk and the collector's log")
        }
        state => failure(
            "database",
            state.to_string(),
            "look at the collector's log; a backup can be restored while it is stopped",
        ),
    });
    findings.extend(health.audit.as_deref().map(|verdict| match verdict {
        "intact" => ok("audit log", "intact".into()),
        broken => failure(
            "audit log",
            broken.to_string(),
            "somebody has changed the database by hand: compare it with a backup",
        ),
    }));
    findings
}

fn clock_skew(skew_ms: i64) -> Finding {
    let size = Duration::from_millis(skew_ms.unsigned_abs());
    let relation = if skew_ms < 0 { "behind" } else { "ahead of" };
    let detail = format!("the collector's is {:.3} s {relation} this machine's", size.as_secs_f64());
    let help = "set both by NTP or chrony: `timedatectl` shows whether it works";
    match size {
        size if size >= SKEW_FAILURE => failure("clocks", detail, help),
        size if size >= SKEW_WARNING => warning("clocks", detail, help),
        _ => ok("clocks", detail),
    }
}

async fn of_lists(client: &Client, health: &Health) -> Vec<Finding> {
    let mut findings = Vec::new();
    match client.ask::<Vec<RuleRow>>(&Request::Rules).await {
        Ok(_) if let Some(why) = &health.rules_refused => {
            let help = "mend the file and reload: the rules before are in force; `belfry rules check FILE` finds what is wrong";
            findings.push(warning("rules", format!("the last reload was refused: {}", why.replace('\n', " ")), help));
        }
        Ok(rules) => findings.push(of_rules(&rules)),
        Err(error) => findings.push(failure("rules", ErrorChain(&error).to_string(), "see the collector's log")),
    }
    match client.ask::<Vec<NodeRow>>(&Request::Nodes).await {
        Ok(nodes) => findings.extend(of_nodes(&nodes, &health.version)),
        Err(error) => findings.push(failure("nodes", ErrorChain(&error).to_string(), "see the collector's log")),
    }
    findings
}

fn of_rules(rules: &[RuleRow]) -> Finding {
    let failing: Vec<String> = rules
        .iter()
        .filter(|rule| rule.health == "err")
        .map(|rule| format!("{} ({})", rule.rule, rule.last_error.as_deref().unwrap_or("no reason given")))
        .collect();
    let left_out: Vec<String> = rules.iter().filter(|rule| rule.left_out > 0).map(|rule| rule.rule.clone()).collect();
    if !failing.is_empty() {
        let detail = format!("{} of {} failing: {}", failing.len(), rules.len(), named(&failing));
        return failure(
            "rules",
            detail,
            "mend the expressions; `belfry rules check FILE` finds what is wrong with a file",
        );
    }
    if !left_out.is_empty() {
        return warning(
            "rules",
            format!("more alerts than the limit: {}", named(&left_out)),
            "aggregate in these rules",
        );
    }
    match rules.len() {
        0 => warning(
            "rules",
            "none are loaded".into(),
            "nothing will alert: start the collector with --rules, or with its own rules",
        ),
        rules => ok("rules", format!("{}, none failing", count(rules, "rule"))),
    }
}

fn of_nodes(nodes: &[NodeRow], collector: &str) -> Vec<Finding> {
    if nodes.is_empty() {
        return vec![warning(
            "nodes",
            "none has joined yet".into(),
            "`belfry token create` makes the line to run on one",
        )];
    }
    let some = |filter: &dyn Fn(&&NodeRow) -> bool| -> Vec<String> {
        nodes.iter().filter(|node| filter(node)).map(|node| node.name.clone()).collect()
    };
    let up = some(&|node| node.state == "up").len();
    let mut findings = vec![ok("nodes", format!("{up} of {} up", count(nodes.len(), "node")))];
    let mut find = |found: Vec<String>, what: &str, help: &str| {
        if !found.is_empty() {
            findings.push(warning("nodes", format!("{} {what}: {}", found.len(), named(&found)), help));
        }
    };
    find(
        some(&|node| node.state == "down" && node.last_seen.is_some()),
        "down",
        "look at the machine; `belfry nodes forget NODE` removes one that is gone for good",
    );
    find(
        some(&|node| node.state == "stale"),
        "stale",
        "look at the machine, and at `journalctl -u belfry-agent` there",
    );
    find(
        some(&|node| node.last_seen.is_none()),
        "joined and never sent anything",
        "start the agent there: `systemctl enable --now belfry-agent`, or `belfry-agent run`",
    );
    find(
        some(&|node| node.series_left_out > 0),
        "with more series than a node may have",
        "switch samplers off on the agent, or raise the limit in the collector's configuration",
    );
    find(
        some(&|node| node.clock_skew_seconds.is_some_and(|skew| skew.abs() >= SKEW_WARNING.as_secs_f64())),
        "with a clock that is off",
        "set it by NTP or chrony",
    );
    find(
        some(&|node| {
            // Behind the version there can be a remark.
            let version = node.agent_version.as_deref().and_then(|version| version.split_whitespace().next());
            version.is_some_and(|version| version != collector)
        }),
        "with another version than the collector",
        "update the older ones",
    );
    findings
}

fn named(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED_MAX).map(String::as_str).collect();
    let more = names.len() - shown.len();
    let rest = if more > 0 { format!(", and {more} more") } else { String::new() };
    shown.join(", ") + &rest
}

const COLUMNS: &[Column] =
    &[Column::left("VERDICT", Fit::Always), Column::left("SUBJECT", Fit::Always), Column::left("FINDING", Fit::Always)];

/// Findings are read to their end: none is cut, and what to do stands below.
fn table(findings: &[Finding], look: &Look) -> String {
    let mut rows = Vec::new();
    for finding in findings {
        let style = match finding.verdict {
            Verdict::Ok => Style::Good,
            Verdict::Warning => Style::Warning,
            Verdict::Failure => Style::Bad,
        };
        let head = [Cell::new(finding.verdict.as_str(), style), Cell::plain(finding.subject)];
        rows.push(head.into_iter().chain([Cell::plain(&finding.detail)]).collect());
        if let Some(help) = &finding.help {
            rows.push(vec![Cell::default(), Cell::default(), Cell::new(&format!("→ {help}"), Style::Bold)]);
        }
    }
    Table { columns: COLUMNS, rows }.render(&Look { width: None, ..*look })
}

fn csv_row(finding: &Finding) -> Vec<String> {
    let Finding { subject, verdict, detail, help } = finding;
    vec![subject.to_string(), verdict.as_str().to_string(), detail.clone(), machine::field(help.as_ref())]
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

    fn check(findings: &[Finding], expected: &Expect) {
        let shown = table(findings, &Look { width: Some(80), is_colored: false, now: NOW });
        expected.assert_eq(&shown.replace(env!("CARGO_PKG_VERSION"), "OWN"));
    }

    fn health() -> Health {
        Health {
            cpu_seconds: Some(1.0),
            resident_bytes: Some(1e8),
            version: env!("CARGO_PKG_VERSION").into(),
            time: crate::api::time(NOW),
            started_at: crate::api::time(NOW),
            data_directory: "/var/lib/belfry".into(),
            is_full: false,
            database: "good".into(),
            audit: Some("intact".into()),
            nodes: 1,
            connections: 1,
            series: 500,
            head_bytes: 0,
            journal_bytes: 64 << 20,
            batches: 1,
            rules: 12,
            rules_refused: None,
            rules_failing: 0,
            next_event: 1,
        }
    }

    fn node(name: &str, state: &str) -> NodeRow {
        NodeRow {
            id: 1,
            name: name.into(),
            state: state.into(),
            reason: None,
            address: None,
            agent_version: Some("9.9.9 (simulated)".into()),
            joined_at: crate::api::time(NOW),
            last_seen: Some(crate::api::time(NOW)),
            series: 500,
            series_left_out: 0,
            clock_skew_seconds: Some(0.01),
        }
    }

    #[test]
    fn a_collector_that_is_well() {
        check(
            &of_health(&health(), NOW),
            &expect![[r#"
                VERDICT  SUBJECT    FINDING
                ok       version    OWN on both sides
                ok       clocks     the collector's is 0.000 s ahead of this machine's
                ok       disk       /var/lib/belfry takes data; journal 64 MiB
                ok       database   good
                ok       audit log  intact
            "#]],
        );
    }

    #[test]
    fn a_collector_in_trouble_and_what_to_do() {
        let ill = Health {
            version: "9.9.9".into(),
            is_full: true,
            database: "failed: disk I/O error\u{1b}[31m".into(),
            audit: Some("row 7 is not what was written".into()),
            ..health()
        };
        check(
            &of_health(&ill, NOW.plus_millis(-400_000)),
            &expect![[r#"
                VERDICT  SUBJECT    FINDING
                warning  version    the collector is 9.9.9, this is OWN
                                    → update the older of the two
                failure  clocks     the collector's is 400.000 s ahead of this machine's
                                    → set both by NTP or chrony: `timedatectl` shows whether it works
                failure  disk       /var/lib/belfry is full: nothing is taken in
                                    → agents keep their data until there is room: free some, or lower the retention
                failure  database   failed: disk I/O error\u{1b}[31m
                                    → look at the collector's log; a backup can be restored while it is stopped
                failure  audit log  row 7 is not what was written
                                    → somebody has changed the database by hand: compare it with a backup
            "#]],
        );
    }

    #[test]
    fn nodes_that_need_somebody() {
        let silent = NodeRow { last_seen: None, agent_version: None, ..node("new", "stale") };
        let crowded = NodeRow { series_left_out: 7, clock_skew_seconds: Some(-61.0), ..node("big", "up") };
        let many = (0..7).map(|number| node(&format!("gone-{number}"), "down"));
        let nodes: Vec<NodeRow> = [silent, crowded].into_iter().chain(many).collect();
        check(
            &of_nodes(&nodes, "9.9.9"),
            &expect![[r#"
            VERDICT  SUBJECT  FINDING
            ok       nodes    1 of 9 nodes up
            warning  nodes    7 down: gone-0, gone-1, gone-2, gone-3, gone-4, and 2 more
                              → look at the machine; `belfry nodes forget NODE` removes one that is gone for good
            warning  nodes    1 stale: new
                              → look at the machine, and at `journalctl -u belfry-agent` there
            warning  nodes    1 joined and never sent anything: new
                              → start the agent there: `systemctl enable --now belfry-agent`, or `belfry-agent run`
            warning  nodes    1 with more series than a node may have: big
                              → switch samplers off on the agent, or raise the limit in the collector's configuration
            warning  nodes    1 with a clock that is off: big
                              → set it by NTP or chrony
        "#]],
        );
        check(
            &of_nodes(&[], "9.9.9"),
            &expect![[r#"
            VERDICT  SUBJECT  FINDING
            warning  nodes    none has joined yet
                              → `belfry token create` makes the line to run on one
        "#]],
        );
    }
}
