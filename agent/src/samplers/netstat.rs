//! Protocol statistics, from `/proc/net/{netstat,snmp,snmp6}`: the set that node_exporter takes by default.
//!
//! It calls them untyped; all but `CurrEstab` and `Forwarding` only ever grow.

use std::{sync::Arc, time::Duration};

use belfry_common::model::Metric;

use super::{Roots, SECOND, SampleError, Sampler, Source, declare, named_metrics::NamedMetrics, number};
use crate::readings::Readings;

/// More protocols than one file has.
const PROTOCOLS_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Netstat {
    tables: [(Source, Vec<Columns>); 2],
    ip6: (Source, NamedMetrics),
}

/// The columns of one protocol. They are named anew at every reading, and are the same every time.
#[derive(Debug)]
struct Columns {
    names: String,
    /// How many columns to pass over before each that is wanted.
    wanted: Vec<(usize, Arc<Metric>)>,
}

impl Netstat {
    pub(crate) fn new(roots: &Roots) -> Self {
        let source = |name| Source::new(roots.proc.join("net").join(name));
        Self {
            tables: [(source("netstat"), Vec::new()), (source("snmp"), Vec::new())],
            ip6: (source("snmp6"), NamedMetrics::default()),
        }
    }
}

impl Sampler for Netstat {
    fn name(&self) -> &'static str {
        "netstat"
    }

    fn interval(&self) -> Duration {
        SECOND
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        for (source, columns) in &mut self.tables {
            put_table(readings, columns, source.read()?);
        }
        let (source, metrics) = &mut self.ip6;
        // A machine without IPv6 has no such file.
        if let Some(text) = source.read_if_offered()? {
            put_list(readings, metrics, text);
        }
        Ok(())
    }
}

/// Pairs of lines: `Tcp: ActiveOpens …` names what `Tcp: 3556 …` counts.
fn put_table(readings: &mut Readings, known: &mut Vec<Columns>, text: &str) {
    let mut lines = text.lines();
    for place in 0..PROTOCOLS_MAX {
        let (Some(names), Some(counts)) = (lines.next(), lines.next()) else { return };
        if known.get(place).is_none_or(|columns| columns.names != names) {
            known.truncate(place);
            known.push(Columns::new(names));
        }
        // Past the protocol, which is the first word of both lines.
        let mut counts = counts.split_ascii_whitespace().skip(1);
        for (passed_over, metric) in known.get(place).into_iter().flat_map(|columns| &columns.wanted) {
            let Some(count) = counts.nth(*passed_over) else { break };
            number::put(readings, metric, &[], number::unsigned(count));
        }
    }
}

impl Columns {
    fn new(names: &str) -> Self {
        let mut wanted: Vec<(usize, Arc<Metric>)> = Vec::new();
        let (protocol, columns) = names.split_once(": ").unwrap_or_default();
        let mut passed_over = 0;
        for name in columns.split_ascii_whitespace() {
            match declare(protocol, name) {
                Some(metric) if wanted.iter().all(|(_, other)| other.name != metric.name) => {
                    wanted.push((passed_over, metric));
                    passed_over = 0;
                }
                _ => passed_over += 1,
            }
        }
        Self { names: names.to_owned(), wanted }
    }
}

/// Lines of `Udp6InDatagrams 7`: the protocol ends with the first 6.
fn put_list(readings: &mut Readings, metrics: &mut NamedMetrics, text: &str) {
    metrics.begin();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(key), Some(count)) = (words.next(), words.next()) else { continue };
        let Some((protocol, name)) = key.find('6').and_then(|six| key.split_at_checked(six + 1)) else { continue };
        if let Some(metric) = metrics.metric(protocol, name, || declare(protocol, name)) {
            number::put(readings, metric, &[], number::unsigned(count));
        }
    }
}

fn declare(protocol: &str, name: &str) -> Option<Arc<Metric>> {
    let metric = if is_level(protocol, name) { declare::gauge } else { declare::counter };
    is_wanted(protocol, name).then(|| {
        let full_name = format!("node_netstat_{}_{}", declare::name_part(protocol), declare::name_part(name));
        metric(&full_name, &[], &format!("Statistic {protocol}{name}."))
    })
}

fn is_level(protocol: &str, name: &str) -> bool {
    matches!((protocol, name), ("Tcp", "CurrEstab") | ("Ip", "Forwarding"))
}

/// node_exporter's default pattern of `protocol_name`.
fn is_wanted(protocol: &str, name: &str) -> bool {
    if matches!(name, "InErrors" | "InErrs") {
        return true;
    }
    match protocol {
        "Ip" => name == "Forwarding",
        "Ip6" | "IpExt" => matches!(name, "InOctets" | "OutOctets"),
        "Icmp" | "Icmp6" => matches!(name, "InMsgs" | "OutMsgs"),
        "TcpExt" => {
            name.starts_with("Listen")
                || name.starts_with("Syncookies")
                || matches!(name, "TCPSynRetrans" | "TCPTimeouts" | "TCPOFOQueue" | "TCPRcvQDrop")
        }
        "Tcp" => matches!(
            name,
            "ActiveOpens" | "InSegs" | "OutSegs" | "OutRsts" | "PassiveOpens" | "RetransSegs" | "CurrEstab"
        ),
        "Udp" | "Udp6" => {
            matches!(name, "InDatagrams" | "OutDatagrams" | "NoPorts" | "RcvbufErrors" | "SndbufErrors")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    #[test]
    fn the_default_set_of_each_protocol() {
        let fixture = Fixture::new()
            .proc(
                "net/netstat",
                "TcpExt: SyncookiesSent TW ListenDrops TCPTimeouts TCPOFOQueue TCPRcvQDrop
TcpExt: 1 2 3 4 5 6
IpExt: InNoRoutes InOctets OutOctets
IpExt: 7 8 -9
Broken: A
",
            )
            .proc(
                "net/snmp",
                "Ip: Forwarding DefaultTTL
Ip: 1 64
Icmp: InMsgs InErrors
Icmp: 104 0
Tcp: RtoAlgorithm MaxConn ActiveOpens CurrEstab
Tcp: 1 -1 3556 120
UdpLite: InErrors
UdpLite: 5
Udp: InDatagrams RcvbufErrors
Udp: 88542
",
            )
            .proc("net/snmp6", "Ip6InOctets    \t460\nIcmp6InErrors  0\nUdpLite6InErrors 2\nUdp6NoPorts x\nnothing\n");
        expect![[r#"
            node_netstat_TcpExt_SyncookiesSent 1
            node_netstat_TcpExt_ListenDrops 3
            node_netstat_TcpExt_TCPTimeouts 4
            node_netstat_TcpExt_TCPOFOQueue 5
            node_netstat_TcpExt_TCPRcvQDrop 6
            node_netstat_IpExt_InOctets 8
            node_netstat_IpExt_OutOctets missing (out_of_range)
            node_netstat_Ip_Forwarding 1
            node_netstat_Icmp_InMsgs 104
            node_netstat_Icmp_InErrors 0
            node_netstat_Tcp_ActiveOpens 3556
            node_netstat_Tcp_CurrEstab 120
            node_netstat_UdpLite_InErrors 5
            node_netstat_Udp_InDatagrams 88542
            node_netstat_Ip6_InOctets 460
            node_netstat_Icmp6_InErrors 0
            node_netstat_UdpLite6_InErrors 2
            node_netstat_Udp6_NoPorts missing (error)
        "#]]
        .assert_eq(&fixture.print(&mut Netstat::new(&fixture.roots())));
    }

    #[test]
    fn columns_of_another_kernel_are_learned_anew() {
        let mut fixture =
            Fixture::new().proc("net/netstat", "").proc("net/snmp", "Tcp: A InSegs OutSegs\nTcp: 1 2 3\n");
        let mut sampler = Netstat::new(&fixture.roots());
        let expected = "node_netstat_Tcp_InSegs 2\nnode_netstat_Tcp_OutSegs 3\n";
        assert_eq!(fixture.print(&mut sampler), expected);
        assert_eq!(fixture.print(&mut sampler), expected);
        fixture = fixture.proc("net/snmp", "Udp: InErrors\nUdp: 7\nTcp: OutSegs B InSegs\nTcp: 3 1 2\n");
        let expected = "node_netstat_Udp_InErrors 7\nnode_netstat_Tcp_OutSegs 3\nnode_netstat_Tcp_InSegs 2\n";
        assert_eq!(fixture.print(&mut sampler), expected);
    }

    #[test]
    fn a_machine_without_ip6_has_the_rest() {
        let fixture = Fixture::new().proc("net/netstat", "").proc("net/snmp", "Ip: Forwarding\nIp: 1\n");
        assert_eq!(fixture.print(&mut Netstat::new(&fixture.roots())), "node_netstat_Ip_Forwarding 1\n");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".*|((Tcp|Ip6): (InErrs|InSegs|[0-9x-]{0,22} ){0,9}\n){0,6}") {
            let fixture = Fixture::new().proc("net/netstat", &text).proc("net/snmp", &text).proc("net/snmp6", &text);
            let _ = fixture.try_print(&mut Netstat::new(&fixture.roots()));
        }
    }
}
