//! Notices rules of others that drop what this router forwards: Docker, firewalld and the like make the FORWARD hook
//! drop by policy or by a last rule, and nothing in the router's own counters shows that.
//!
//! It looks at every nftables chain on the forward hook, iptables-nft's included. Rules of the older `ip_tables` live
//! elsewhere in the kernel; those are only known to exist.

use std::fmt;
use std::path::Path;

use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Cmp, DataAttribute, ExpressionAttribute, Expressions, Hook, HookNumber,
    Immediate, InetHookNumber, ListAttribute, Meta, MetaKey, NfTablesMessage, Operator, RuleAttribute,
    RuleMessage, Verdict, VerdictAttribute,
};

use super::netfilter::{self, NetfilterError};

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

/// `/proc/net` would be that of the process's first thread; a thread in another network namespace has its own.
const PROC_NET: &str = "/proc/thread-self/net";

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
}

impl Family {
    fn from_kernel(family: NetfilterProtoFamily) -> Option<Self> {
        match family {
            NetfilterProtoFamily::IPv4 => Some(Self::Ip),
            NetfilterProtoFamily::IPv6 => Some(Self::Ip6),
            NetfilterProtoFamily::Inet => Some(Self::Inet),
            _ => None,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        })
    }
}

/// How a chain drops what no earlier rule accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Means {
    /// By its policy.
    Policy,
    /// By a rule without a condition.
    Rule,
}

/// One thing that may keep packets from being forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Finding {
    /// An nftables chain drops what none of its rules accepts.
    Drops {
        /// Family of the table.
        family: Family,
        /// Name of the table.
        table: String,
        /// Name of the chain.
        chain: String,
        /// How it drops.
        means: Means,
        /// Whether Docker's chain for the administrator's own rules is in the same table.
        docker: bool,
        /// The interface whose packets it would drop.
        interface: String,
    },
    /// The older `ip_tables` has a `filter` table, which cannot be looked into from here.
    Legacy {
        /// Whether it is the one for IPv6.
        ipv6: bool,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drops { family, table, chain, means, docker, interface } => {
                let means = match means {
                    Means::Policy => "by its policy",
                    Means::Rule => "by a rule without a condition",
                };
                write!(
                    f,
                    "the nftables chain `{family} {table} {chain}` drops forwarded packets {means} unless an \
                     earlier rule accepts them; to let this router's packets pass: "
                )?;
                match (family, table.as_str(), chain.as_str()) {
                    (Family::Ip | Family::Ip6, "filter", "FORWARD") => {
                        let program = if *family == Family::Ip { "iptables" } else { "ip6tables" };
                        let chain = if *docker { "DOCKER-USER" } else { "FORWARD" };
                        write!(
                            f,
                            "`{program} -I {chain} -i {interface} -j ACCEPT` and `{program} -I {chain} -o \
                             {interface} -j ACCEPT`"
                        )
                    }
                    (_, "firewalld", _) => write!(
                        f,
                        "`firewall-cmd --zone=trusted --add-interface={interface}` and a policy that accepts \
                         from and to the uplinks' zones (firewalld.policies(5))"
                    ),
                    _ => write!(
                        f,
                        "`nft insert rule {family} {table} {chain} iifname \"{interface}\" accept` and `nft \
                         insert rule {family} {table} {chain} oifname \"{interface}\" accept`"
                    ),
                }
            }
            Self::Legacy { ipv6 } => {
                let program = if *ipv6 { "ip6tables-legacy" } else { "iptables-legacy" };
                write!(
                    f,
                    "legacy {} filter rules are loaded, which cannot be looked into from here; check `{program} \
                     -S FORWARD` for a policy or rule that drops",
                    if *ipv6 { "ip6_tables" } else { "ip_tables" }
                )
            }
        }
    }
}

/// Looks for what would drop forwarded packets of `interface`. A chain in whose table everything from and to that
/// interface is accepted has been dealt with and is no finding. Without `nf_tables` in the kernel only the older `ip_tables`
/// is looked for.
pub fn findings(interface: &str) -> Result<Vec<Finding>, NetfilterError> {
    let mut findings = match nftables(interface) {
        Err(NetfilterError::NoNfTables) => Vec::new(),
        other => other?,
    };
    findings.extend(legacy(Path::new(PROC_NET)));
    Ok(findings)
}

fn legacy(proc_net: &Path) -> Vec<Finding> {
    // The files exist only where ip_tables is loaded.
    let has_filter = |file: &str| {
        std::fs::read_to_string(proc_net.join(file))
            .is_ok_and(|names| names.lines().any(|name| name.trim() == "filter"))
    };
    let mut found = Vec::new();
    for (file, ipv6) in [("ip_tables_names", false), ("ip6_tables_names", true)] {
        if has_filter(file) {
            found.push(Finding::Legacy { ipv6 });
        }
    }
    found
}

#[derive(Debug)]
struct Chain {
    family: Family,
    table: String,
    name: String,
    forward: bool,
    policy: Option<u32>,
}

fn nftables(interface: &str) -> Result<Vec<Finding>, NetfilterError> {
    let query = NfTablesMessage::GetChain(ChainMessage { attributes: vec![] });
    let chains: Vec<Chain> =
        netfilter::dump("list the nftables chains", NetfilterProtoFamily::Unspec, &query)?
            .into_iter()
            .filter_map(|(family, object)| match object {
                NfTablesMessage::NewChain(chain) => read_chain(family, &chain),
                _ => None,
            })
            .collect();
    if !chains.iter().any(|chain| chain.forward) {
        return Ok(Vec::new());
    }
    let query = NfTablesMessage::GetRule(RuleMessage { attributes: vec![] });
    let rules: Vec<(Family, RuleMessage)> =
        netfilter::dump("list the nftables rules", NetfilterProtoFamily::Unspec, &query)?
            .into_iter()
            .filter_map(|(family, object)| match object {
                NfTablesMessage::NewRule(rule) => Some((Family::from_kernel(family)?, rule)),
                _ => None,
            })
            .collect();
    Ok(judge(&chains, &rules, interface))
}

fn judge(chains: &[Chain], rules: &[(Family, RuleMessage)], interface: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for chain in chains.iter().filter(|chain| chain.forward) {
        let by_rule = rules.iter().any(|(family, rule)| {
            *family == chain.family
                && rule.attributes.contains(&RuleAttribute::Table(chain.table.clone()))
                && rule.attributes.contains(&RuleAttribute::Chain(chain.name.clone()))
                && drops_everything(rule)
        });
        let means = match (chain.policy, by_rule) {
            (Some(NF_DROP), _) => Means::Policy,
            (_, true) => Means::Rule,
            _ => continue,
        };
        // Any chain of the table counts: Docker's for own rules is jumped to, and which chains are is not followed.
        let accepted = |key| {
            rules.iter().any(|(family, rule)| {
                *family == chain.family
                    && rule.attributes.contains(&RuleAttribute::Table(chain.table.clone()))
                    && accepts_all_of(rule, key, interface)
            })
        };
        if accepted(MetaKey::Iifname) && accepted(MetaKey::Oifname) {
            continue;
        }
        let docker = chains.iter().any(|other| {
            other.family == chain.family && other.table == chain.table && other.name == "DOCKER-USER"
        });
        findings.push(Finding::Drops {
            family: chain.family,
            table: chain.table.clone(),
            chain: chain.name.clone(),
            means,
            docker,
            interface: interface.to_owned(),
        });
    }
    findings
}

fn read_chain(family: NetfilterProtoFamily, chain: &ChainMessage) -> Option<Chain> {
    let family = Family::from_kernel(family)?;
    let mut read = Chain { family, table: String::new(), name: String::new(), forward: false, policy: None };
    for attribute in &chain.attributes {
        match attribute {
            ChainAttribute::Table(table) => read.table.clone_from(table),
            ChainAttribute::Name(name) => read.name.clone_from(name),
            ChainAttribute::Hook(hook) => {
                read.forward = hook.contains(&Hook::Number(HookNumber::Inet(InetHookNumber::Forward)));
            }
            ChainAttribute::Policy(policy) => read.policy = Some(*policy),
            _ => {}
        }
    }
    Some(read)
}

/// The expressions of a rule with their names, without those that only take note.
fn expressions(rule: &RuleMessage) -> Vec<(&str, Option<&Expressions>)> {
    let list = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Expressions(list) => Some(list.as_slice()),
        _ => None,
    });
    let mut expressions = Vec::new();
    for element in list.unwrap_or_default() {
        let ListAttribute::Element(attributes) = element else { continue };
        let mut name = "";
        let mut data = None;
        for attribute in attributes {
            match attribute {
                ExpressionAttribute::Name(text) => name = text,
                ExpressionAttribute::Data(expression) => data = Some(expression),
                _ => {}
            }
        }
        if !matches!(name, "counter" | "log") {
            expressions.push((name, data));
        }
    }
    expressions
}

/// Whether a rule has no condition and ends in a drop or a reject.
fn drops_everything(rule: &RuleMessage) -> bool {
    match expressions(rule).first() {
        Some(("reject", _)) => true,
        Some(("immediate", Some(Expressions::Immediate(immediate)))) => has_verdict(immediate, NF_DROP),
        _ => false,
    }
}

/// Whether a rule accepts whatever comes in (or goes out) by this interface, with no further condition.
fn accepts_all_of(rule: &RuleMessage, key: MetaKey, interface: &str) -> bool {
    match expressions(rule).as_slice() {
        [
            ("meta", Some(Expressions::Meta(meta))),
            ("cmp", Some(Expressions::Cmp(cmp))),
            ("immediate", Some(Expressions::Immediate(immediate))),
        ] => {
            meta.contains(&Meta::Key(key))
                && cmp.contains(&Cmp::Op(Operator::Equal))
                && cmp.iter().any(|attribute| match attribute {
                    // nft pads the name to 16 bytes, iptables-nft ends it with one zero.
                    Cmp::Data(DataAttribute::Value(name)) => {
                        name.split(|byte| *byte == 0).next() == Some(interface.as_bytes())
                            && name.contains(&0)
                    }
                    _ => false,
                })
                && has_verdict(immediate, NF_ACCEPT)
        }
        _ => false,
    }
}

fn has_verdict(immediate: &[Immediate], verdict: u32) -> bool {
    immediate.iter().any(|attribute| match attribute {
        Immediate::Data(DataAttribute::Verdict(attributes)) => {
            attributes.contains(&VerdictAttribute::Code(Verdict::Other(verdict)))
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(table: &str, name: &str, forward: bool, policy: Option<u32>) -> Chain {
        Chain { family: Family::Ip, table: table.into(), name: name.into(), forward, policy }
    }

    fn drop_rule(condition: bool) -> RuleMessage {
        let mut list: Vec<ListAttribute<ExpressionAttribute>> = Vec::new();
        if condition {
            list.push(Expressions::Cmp(vec![]).into());
        }
        list.push(Expressions::Other { expression_type: "counter".into(), attributes: vec![] }.into());
        let verdict = DataAttribute::Verdict(vec![VerdictAttribute::Code(Verdict::Other(NF_DROP))]);
        list.push(Expressions::Immediate(vec![Immediate::Data(verdict)]).into());
        RuleMessage {
            attributes: vec![
                RuleAttribute::Table("t".into()),
                RuleAttribute::Chain("c".into()),
                RuleAttribute::Expressions(list),
            ],
        }
    }

    #[test]
    fn a_drop_policy_on_the_forward_hook_is_named_with_a_remedy() {
        let chains = [chain("filter", "FORWARD", true, Some(0)), chain("filter", "INPUT", false, Some(0))];
        let found = judge(&chains, &[], "nat64");
        assert_eq!(found.len(), 1);
        let sentence = found[0].to_string();
        assert!(sentence.contains("`ip filter FORWARD`"), "{sentence}");
        assert!(sentence.contains("iptables -I FORWARD -i nat64 -j ACCEPT"), "{sentence}");
    }

    #[test]
    fn beside_docker_the_remedy_goes_into_its_chain_for_own_rules() {
        let chains = [chain("filter", "FORWARD", true, Some(0)), chain("filter", "DOCKER-USER", false, None)];
        let sentence = judge(&chains, &[], "nat64")[0].to_string();
        assert!(sentence.contains("iptables -I DOCKER-USER -o nat64"), "{sentence}");
    }

    #[test]
    fn a_last_rule_that_drops_counts_and_a_conditional_one_does_not() {
        let chains = [chain("t", "c", true, Some(1))];
        assert_eq!(judge(&chains, &[(Family::Ip, drop_rule(true))], "n"), []);
        assert_eq!(judge(&chains, &[(Family::Ip6, drop_rule(false))], "n"), []);
        let found = judge(&chains, &[(Family::Ip, drop_rule(false))], "n");
        assert!(matches!(found.as_slice(), [Finding::Drops { means: Means::Rule, .. }]), "{found:?}");
        assert!(found[0].to_string().contains("nft insert rule ip t c iifname \"n\" accept"));
    }

    #[test]
    fn an_accepting_chain_is_not_reported() {
        assert_eq!(judge(&[chain("t", "c", true, Some(1))], &[], "n"), []);
    }

    #[test]
    fn legacy_tables_are_named_from_their_proc_files() {
        let directory = std::env::temp_dir().join(format!("protomask-legacy-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("ip_tables_names"), "nat\nfilter\n").unwrap();
        std::fs::write(directory.join("ip6_tables_names"), "nat\n").unwrap();
        let found = legacy(&directory);
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(found, [Finding::Legacy { ipv6: false }]);
        assert!(found[0].to_string().contains("iptables-legacy -S FORWARD"));
    }
}
