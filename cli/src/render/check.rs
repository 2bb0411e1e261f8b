//! `belfry status --check`: the verdict of a monitoring plugin, one line with the figures behind `|`
//! (monitoring-plugins.org, Development Guidelines).

use super::{
    Look,
    alert::{StandingAlert, Urgency},
    fleet::{Tally, state, why},
    text::escape,
    units::count,
};
use crate::api::{NodeStatus, StatusDocument};

/// How it stands; the numbers are a contract, as exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// Troubles named in the line; the others are counted.
const NAMED_MAX: usize = 5;

/// The verdict on these nodes and on the alerts about them or, if it is the whole fleet, about no node at all.
pub(crate) fn verdict(document: &StatusDocument, alerts: &[StandingAlert], look: &Look) -> (Verdict, String) {
    let mut troubles: Vec<(Verdict, String)> = document.nodes.iter().filter_map(|node| of_node(node, look)).collect();
    troubles.extend(alerts.iter().filter_map(of_alert));
    troubles.sort_by_key(|trouble| std::cmp::Reverse(trouble.0));
    let verdict = match troubles.first() {
        _ if document.nodes.is_empty() => Verdict::Unknown,
        None => Verdict::Ok,
        Some((worst, _)) => *worst,
    };
    let tally = Tally::of(document, alerts);
    let unknown = tally.gpus_unknown();
    let mut words = format!("{} up", count(tally.up, "node"));
    if document.nodes.is_empty() {
        words = "no node has joined".to_string();
    }
    let parts = [
        (tally.stale, format!("{} stale", tally.stale)),
        (tally.down, format!("{} down", tally.down)),
        (tally.gpus_failed, format!("{} failed", count(tally.gpus_failed, "GPU"))),
        (tally.gpus_degraded, format!("{} degraded", count(tally.gpus_degraded, "GPU"))),
        (unknown, format!("{} unknown", count(unknown, "GPU"))),
    ];
    for (_, part) in parts.iter().filter(|(number, _)| *number > 0) {
        words.push_str(&format!(", {part}"));
    }
    let named: Vec<String> = troubles.iter().take(NAMED_MAX).map(|(_, trouble)| trouble.clone()).collect();
    if !named.is_empty() {
        words.push_str(&format!(": {}", named.join("; ")));
    }
    if troubles.len() > named.len() {
        words.push_str(&format!("; and {} more", troubles.len() - named.len()));
    }
    (verdict, line(verdict, &words) + &figures(&tally) + "\n")
}

/// The line of a check that could not be made.
pub(crate) fn unknown(why: &str) -> String {
    line(Verdict::Unknown, why) + "\n"
}

/// `|` would begin the figures.
fn line(verdict: Verdict, words: &str) -> String {
    format!("BELFRY {} - {}", verdict.as_str(), escape(words).replace('|', "/"))
}

fn figures(tally: &Tally) -> String {
    let Tally { up, stale, down, gpus, gpus_ok: _, gpus_degraded, gpus_failed, firing, pending } = tally;
    let gpus_unknown = tally.gpus_unknown();
    format!(
        " | nodes_up={up} nodes_stale={stale} nodes_down={down} gpus={gpus} gpus_failed={gpus_failed} gpus_degraded={gpus_degraded} \
         gpus_unknown={gpus_unknown} alerts_firing={firing} alerts_pending={pending}"
    )
}

fn of_node(node: &NodeStatus, look: &Look) -> Option<(Verdict, String)> {
    let failed = node.gpus.iter().filter(|gpu| gpu.state == "failed").count();
    let verdict = match (node.state.as_str(), node.reason.as_deref()) {
        // Somebody has decided so.
        ("down", Some("revoked")) => return None,
        ("down", Some("never_seen")) => Verdict::Warning,
        ("down", _) => Verdict::Critical,
        ("up", _) if failed > 0 => {
            return Some((Verdict::Warning, format!("{} has {} failed", node.name, count(failed, "GPU"))));
        }
        ("up", _) => return None,
        _ => Verdict::Warning,
    };
    let why = Some(why(node)).filter(|why| !why.is_empty()).map(|why| format!(" ({why})"));
    Some((verdict, format!("{} {}{}", node.name, state(node, look), why.unwrap_or_default())))
}

fn of_alert(alert: &StandingAlert) -> Option<(Verdict, String)> {
    // What is pending may pass: its rule says how long it must last to matter.
    if !alert.is_firing() {
        return None;
    }
    let verdict = match alert.urgency() {
        Urgency::Info => return None,
        Urgency::Critical => Verdict::Critical,
        Urgency::Warning => Verdict::Warning,
    };
    Some((verdict, format!("{}: {}", alert.rule, alert.words())))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::render::{
        alert::tests::alert,
        tests::{TIME, down, look, picture, stale, up},
    };

    fn check(nodes: Vec<NodeStatus>, alerts: &[StandingAlert], expected: Verdict, line: &Expect) {
        let (found, shown) = verdict(&StatusDocument { time: TIME.into(), nodes }, alerts, &look(None));
        assert_eq!(found, expected);
        line.assert_eq(&shown);
    }

    #[test]
    fn a_check_is_as_bad_as_the_worst() {
        let (document, alerts) = picture();
        check(
            document.nodes,
            &alerts,
            Verdict::Critical,
            &expect![[r#"
                BELFRY CRITICAL - 4 nodes up, 1 stale, 1 GPU failed, 8 GPUs unknown: GpuLost: XID 79 on GPU 3: fell off the bus; gpu-02 has 1 GPU failed; gpu-03 stale 8s (silent); NodeStale: gpu-03 has stopped sending | nodes_up=4 nodes_stale=1 nodes_down=0 gpus=32 gpus_failed=1 gpus_degraded=0 gpus_unknown=8 alerts_firing=2 alerts_pending=1
            "#]],
        );
        check(
            vec![up("a", &[0.5])],
            &[],
            Verdict::Ok,
            &expect![[r#"
                BELFRY OK - 1 node up | nodes_up=1 nodes_stale=0 nodes_down=0 gpus=1 gpus_failed=0 gpus_degraded=0 gpus_unknown=0 alerts_firing=0 alerts_pending=0
            "#]],
        );
        check(
            vec![stale("a", &[]), up("b", &[])],
            &[],
            Verdict::Warning,
            &expect![[r#"
                BELFRY WARNING - 1 node up, 1 stale: a stale 8s (silent) | nodes_up=1 nodes_stale=1 nodes_down=0 gpus=0 gpus_failed=0 gpus_degraded=0 gpus_unknown=0 alerts_firing=0 alerts_pending=0
            "#]],
        );
        check(
            vec![down("a", "unreachable")],
            &[],
            Verdict::Critical,
            &expect![[r#"
                BELFRY CRITICAL - 0 nodes up, 1 down: a down 3h (unreachable) | nodes_up=0 nodes_stale=0 nodes_down=1 gpus=0 gpus_failed=0 gpus_degraded=0 gpus_unknown=0 alerts_firing=0 alerts_pending=0
            "#]],
        );
        check(
            Vec::new(),
            &[],
            Verdict::Unknown,
            &expect![[r#"
                BELFRY UNKNOWN - no node has joined | nodes_up=0 nodes_stale=0 nodes_down=0 gpus=0 gpus_failed=0 gpus_degraded=0 gpus_unknown=0 alerts_firing=0 alerts_pending=0
            "#]],
        );
    }

    #[test]
    fn a_check_minds_alerts_by_their_urgency() {
        let pending = alert("pending", "critical", Some("a"), "Hot", "it is 90 | 91 degrees\n");
        check(
            vec![up("a", &[])],
            &[pending],
            Verdict::Ok,
            &expect![[r#"
                BELFRY OK - 1 node up | nodes_up=1 nodes_stale=0 nodes_down=0 gpus=0 gpus_failed=0 gpus_degraded=0 gpus_unknown=0 alerts_firing=0 alerts_pending=1
            "#]],
        );
        let firing = alert("firing", "warning", Some("a"), "Hot", "it is 90 | 91 degrees\n");
        check(
            vec![up("a", &[])],
            &[firing],
            Verdict::Warning,
            &expect![[r#"
                BELFRY WARNING - 1 node up: Hot: it is 90 / 91 degrees\n | nodes_up=1 nodes_stale=0 nodes_down=0 gpus=0 gpus_failed=0 gpus_degraded=0 gpus_unknown=0 alerts_firing=1 alerts_pending=0
            "#]],
        );
        let watchdog = alert("firing", "none", None, "Watchdog", "always on");
        check(
            vec![up("a", &[])],
            &[watchdog],
            Verdict::Ok,
            &expect![[r#"
                BELFRY OK - 1 node up | nodes_up=1 nodes_stale=0 nodes_down=0 gpus=0 gpus_failed=0 gpus_degraded=0 gpus_unknown=0 alerts_firing=1 alerts_pending=0
            "#]],
        );
        let revoked = down("b", "revoked");
        check(
            vec![up("a", &[]), revoked],
            &[],
            Verdict::Ok,
            &expect![[r#"
                BELFRY OK - 1 node up, 1 down | nodes_up=1 nodes_stale=0 nodes_down=1 gpus=0 gpus_failed=0 gpus_degraded=0 gpus_unknown=0 alerts_firing=0 alerts_pending=0
            "#]],
        );
        let mut dead = up("a", &[0.5, 0.5]);
        dead.gpus[1].state = "failed".into();
        check(
            vec![dead],
            &[],
            Verdict::Warning,
            &expect![[r#"
                BELFRY WARNING - 1 node up, 1 GPU failed: a has 1 GPU failed | nodes_up=1 nodes_stale=0 nodes_down=0 gpus=2 gpus_failed=1 gpus_degraded=0 gpus_unknown=0 alerts_firing=0 alerts_pending=0
            "#]],
        );
    }
}
