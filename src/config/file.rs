//! Reads the configuration file, and reports all that is wrong with it, not just the first thing.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::partial::{
    PartialDeterministic, PartialEam, PartialForward, PartialPool, PartialQuota, PartialRecords,
    PartialSessions, PartialTimers,
};
use super::text::{DurationText, NetOrAddress, Text};
use super::{Partial, Place, Placed, PortRange, Problem, Problems, StaticPair};

/// A file longer than this is not a configuration.
const LONGEST_FILE: u64 = 4 << 20;

/// Reads a file. What could be read comes along with the problems, so that the values can be checked against each other
/// as well.
pub fn read(path: &Path) -> Result<(Partial, Vec<Problem>), Problems> {
    let unreadable = |source| Problems::Unreadable { path: path.to_owned(), source };
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length > LONGEST_FILE {
        let what = format!("{length} bytes are more than a configuration may have ({LONGEST_FILE})");
        return Err(unreadable(std::io::Error::other(what)));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    Ok(parse(path, &text))
}

/// Reads the text of a file.
pub(super) fn parse(path: &Path, text: &str) -> (Partial, Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { path: path.into(), text, problems: Vec::new() };
    for error in errors {
        reader.problem(error.span().unwrap_or_default(), error.message().to_owned());
    }
    let partial = reader.all(table.into_inner());
    reader.problems.sort_by_key(|problem| match problem.place {
        Place::File { line, column, .. } => (line, column),
        Place::Flag(_) => (0, 0),
    });
    (partial, reader.problems)
}

struct Reader<'t> {
    path: Arc<Path>,
    text: &'t str,
    problems: Vec<Problem>,
}

/// A table whose keys are taken out one by one; what is left in the end is unknown.
struct Section<'t> {
    name: &'static str,
    table: DeTable<'t>,
    /// The keys asked for so far, and whether they were there.
    known: Vec<(&'static str, bool)>,
}

impl<'t> Section<'t> {
    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'t>>> {
        let value = self.table.remove(key);
        self.known.push((key, value.is_some()));
        value
    }

    fn had(&self, key: &str) -> bool {
        self.known.iter().any(|(known, there)| *known == key && *there)
    }
}

impl<'t> Reader<'t> {
    fn all(&mut self, table: DeTable<'t>) -> Partial {
        let mut top = Section { name: "", table, known: Vec::new() };
        let mut partial = Partial {
            interface: self.value(&mut top, "interface"),
            translation_prefixes: self.one_or_more(&mut top, "translation_prefix"),
            reservation_timeout: self.duration(&mut top, "reservation_timeout"),
            address_rest: self.duration(&mut top, "address_rest"),
            max_leases_per_subnet: self.value(&mut top, "max_leases_per_subnet"),
            num_queues: self.value(&mut top, "num_queues"),
            mtu: self.value(&mut top, "mtu"),
            allow_from: self.list::<Ipv6Net>(&mut top, "allow_from"),
            deny_to: self.list::<Ipv4Net>(&mut top, "deny_to"),
            allow_non_global: self.value(&mut top, "allow_non_global"),
            icmp_source_v4: self.text_value(&mut top, "icmp_source_v4"),
            icmp_source_v6: self.text_value(&mut top, "icmp_source_v6"),
            icmp_errors_per_second: self.value(&mut top, "icmp_errors_per_second"),
            icmp_router_pool: self.text_value(&mut top, "icmp_router_pool"),
            enable_forwarding: self.value(&mut top, "enable_forwarding"),
            on_exit: self.value(&mut top, "on_exit"),
            prometheus: self.text_value(&mut top, "prometheus"),
            ..Partial::default()
        };
        if let Some(mut log) = self.section(&mut top, "log") {
            partial.log_format = self.value(&mut log, "format");
            partial.log_level = self.value(&mut log, "level");
            self.unknown(&log);
        }
        if let Some(mut translation) = self.section(&mut top, "translation") {
            partial.lowest_ipv6_mtu = self.value(&mut translation, "lowest_ipv6_mtu");
            partial.traffic_class = self.text_value(&mut translation, "traffic_class");
            partial.udp_zero_checksum = self.text_value(&mut translation, "udp_zero_checksum");
            self.unknown(&translation);
        }
        if let Some(mut hold) = self.section(&mut top, "hold") {
            partial.hold_packets_per_host = self.value(&mut hold, "packets_per_host");
            partial.hold_hosts = self.value(&mut hold, "hosts");
            partial.hold_timeout = self.duration(&mut hold, "timeout");
            self.unknown(&hold);
        }
        let pools = self.pools(&mut top);
        partial.pools = (!pools.is_empty()).then_some(pools);
        self.hosts(&mut top, &mut partial);
        self.nat(&mut top, &mut partial);
        self.unknown(&top);
        partial
    }

    fn pools(&mut self, top: &mut Section<'t>) -> Vec<PartialPool> {
        let mut pools = Vec::new();
        for (span, mut section) in self.sections(top, "pool") {
            let net: Option<Placed<Ipv4Net>> = self.text_value(&mut section, "prefix");
            let net = self.required(net, &section, "prefix", span);
            let masquerade = self.value(&mut section, "masquerade").is_some_and(|placed| placed.value);
            let sharing = self.value(&mut section, "sharing");
            let ports = self.value::<PortRange>(&mut section, "ports");
            let reserved_ports = self.placed_list(&mut section, "reserved_ports", Self::read::<PortRange>);
            let hosts = self.placed_list(&mut section, "hosts", Self::read_text::<Ipv6Net>);
            if let Some(net) = net {
                let reserved_ports = reserved_ports.map(|Placed { value, place }| Placed {
                    value: value.into_iter().map(|placed| placed.value).collect(),
                    place,
                });
                pools.push(PartialPool { net, masquerade, sharing, ports, reserved_ports, hosts });
            }
            self.unknown(&section);
        }
        pools
    }

    /// What single hosts have: pairs, mappings, forwards.
    fn hosts(&mut self, top: &mut Section<'t>, partial: &mut Partial) {
        for (span, mut section) in self.sections(top, "static") {
            let address = self.text_value(&mut section, "address");
            let host = self.text_value(&mut section, "host");
            let address = self.required(address, &section, "address", span.clone());
            let host = self.required(host, &section, "host", span);
            if let (Some(address), Some(host)) = (address, host) {
                let value = StaticPair { address: address.value, host: host.value };
                partial.static_pairs.push(Placed { value, place: address.place });
            }
            self.unknown(&section);
        }
        for (span, mut section) in self.sections(top, "eam") {
            let ipv4 = self.text_value(&mut section, "ipv4");
            let ipv6 = self.text_value(&mut section, "ipv6");
            let ipv4 = self.required(ipv4, &section, "ipv4", span.clone());
            let ipv6 = self.required(ipv6, &section, "ipv6", span);
            if let (Some(ipv4), Some(ipv6)) = (ipv4, ipv6) {
                let (ipv4, ipv6) = (ipv4.map(|NetOrAddress(net)| net), ipv6.map(|NetOrAddress(net)| net));
                partial.eams.push(PartialEam { ipv4, ipv6 });
            }
            self.unknown(&section);
        }
        for (span, mut section) in self.sections(top, "forward") {
            let protocol = self.value(&mut section, "protocol");
            let address = self.text_value(&mut section, "address");
            let port = self.value(&mut section, "port");
            let host = self.text_value(&mut section, "host");
            let host_port = self.value(&mut section, "host_port");
            let prefix = self.text_value(&mut section, "prefix");
            let protocol = self.required(protocol, &section, "protocol", span.clone());
            let address = self.required(address, &section, "address", span.clone());
            let port = self.required(port, &section, "port", span.clone());
            let host = self.required(host, &section, "host", span);
            if let (Some(protocol), Some(address), Some(port), Some(host)) = (protocol, address, port, host) {
                partial.forwards.push(PartialForward { protocol, address, port, host, host_port, prefix });
            }
            self.unknown(&section);
        }
    }

    /// Stateful translation.
    fn nat(&mut self, top: &mut Section<'t>, partial: &mut Partial) {
        if let Some(mut sessions) = self.section(top, "sessions") {
            partial.sessions = PartialSessions {
                max: self.value(&mut sessions, "max"),
                max_hosts: self.value(&mut sessions, "max_hosts"),
                max_stored_syns: self.value(&mut sessions, "max_stored_syns"),
                filtering: self.value(&mut sessions, "filtering"),
                answer_filtered: self.value(&mut sessions, "answer_filtered"),
                block_size: self.value(&mut sessions, "block_size"),
                block_for: self.value(&mut sessions, "block_for"),
            };
            self.unknown(&sessions);
        }
        if let Some(mut quota) = self.section(top, "quota") {
            partial.quota = PartialQuota {
                subscriber_prefix_len: self.value(&mut quota, "subscriber_prefix_len"),
                ports: self.value(&mut quota, "ports"),
                sessions: self.value(&mut quota, "sessions"),
                new_sessions_per_second: self.value(&mut quota, "new_sessions_per_second"),
                new_sessions_burst: self.value(&mut quota, "new_sessions_burst"),
            };
            self.unknown(&quota);
        }
        if let Some(mut timers) = self.section(top, "timers") {
            partial.timers = PartialTimers {
                tcp_established: self.duration(&mut timers, "tcp_established"),
                tcp_transitory: self.duration(&mut timers, "tcp_transitory"),
                tcp_incoming_syn: self.duration(&mut timers, "tcp_incoming_syn"),
                udp: self.duration(&mut timers, "udp"),
                icmp: self.duration(&mut timers, "icmp"),
                port_rest: self.duration(&mut timers, "port_rest"),
                tcp_port_rest: self.duration(&mut timers, "tcp_port_rest"),
                fragment: self.duration(&mut timers, "fragment"),
                block_idle: self.duration(&mut timers, "block_idle"),
                below_rfc: self.value(&mut timers, "below_rfc"),
            };
            self.unknown(&timers);
        }
        if let Some(mut fragments) = self.section(top, "fragments") {
            partial.fragments_memory = self.value(&mut fragments, "memory");
            self.unknown(&fragments);
        }
        if let Some((place, mut records)) = self.placed_section(top, "records") {
            partial.records = PartialRecords {
                section: Some(Placed { value: (), place }),
                file: self.value(&mut records, "file"),
                syslog: self.text_value(&mut records, "syslog"),
                when_full: self.value(&mut records, "when_full"),
                sessions: self.value(&mut records, "sessions"),
            };
            self.unknown(&records);
        }
        if let Some((place, mut deterministic)) = self.placed_section(top, "deterministic") {
            partial.deterministic = PartialDeterministic {
                section: Some(Placed { value: (), place }),
                hosts: self.placed_list(&mut deterministic, "hosts", Self::read_text::<Ipv6Net>),
                ports_per_subscriber: self.value(&mut deterministic, "ports_per_subscriber"),
            };
            self.unknown(&deterministic);
        }
    }

    fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Place::File { path: Arc::clone(&self.path), line, column }
    }

    fn problem(&mut self, span: Range<usize>, message: String) {
        let place = self.place(&span);
        self.problems.push(Problem { place, message });
    }

    fn read<T: DeserializeOwned>(&mut self, key: &str, value: Spanned<DeValue<'t>>) -> Option<Placed<T>> {
        let span = value.span();
        let place = self.place(&span);
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(Placed { value, place }),
            Err(error) => {
                self.problem(error.span().unwrap_or(span), format!("{key}: {}", error.message()));
                None
            }
        }
    }

    fn value<T: DeserializeOwned>(
        &mut self,
        section: &mut Section<'t>,
        key: &'static str,
    ) -> Option<Placed<T>> {
        let value = section.take(key)?;
        self.read(key, value)
    }

    fn text_value<T>(&mut self, section: &mut Section<'t>, key: &'static str) -> Option<Placed<T>>
    where
        Text<T>: DeserializeOwned,
    {
        self.value::<Text<T>>(section, key).map(|placed| placed.map(|text| text.0))
    }

    fn duration(
        &mut self,
        section: &mut Section<'t>,
        key: &'static str,
    ) -> Option<Placed<std::time::Duration>> {
        self.value::<DurationText>(section, key).map(|placed| placed.map(|text| text.0))
    }

    fn read_text<T>(&mut self, key: &str, value: Spanned<DeValue<'t>>) -> Option<Placed<T>>
    where
        Text<T>: DeserializeOwned,
    {
        self.read::<Text<T>>(key, value).map(|placed| placed.map(|text| text.0))
    }

    fn list<T>(&mut self, section: &mut Section<'t>, key: &'static str) -> Option<Vec<Placed<T>>>
    where
        Text<T>: DeserializeOwned,
    {
        self.placed_list(section, key, Self::read_text::<T>).map(|placed| placed.value)
    }

    /// A list, and where it begins.
    fn placed_list<T>(
        &mut self,
        section: &mut Section<'t>,
        key: &'static str,
        read: impl Fn(&mut Self, &str, Spanned<DeValue<'t>>) -> Option<Placed<T>>,
    ) -> Option<Placed<Vec<Placed<T>>>> {
        let value = section.take(key)?;
        let span = value.span();
        let DeValue::Array(items) = value.into_inner() else {
            self.problem(span, format!("{key}: a list is expected, like {key} = [\"...\", \"...\"]"));
            return None;
        };
        let value = items.into_iter().filter_map(|item| read(self, key, item)).collect();
        Some(Placed { value, place: self.place(&span) })
    }

    /// One text, or a list that is not empty.
    fn one_or_more<T>(&mut self, section: &mut Section<'t>, key: &'static str) -> Option<Vec<Placed<T>>>
    where
        Text<T>: DeserializeOwned,
    {
        if !matches!(section.table.get(key).map(Spanned::get_ref), Some(DeValue::Array(_))) {
            return self.text_value(section, key).map(|placed| vec![placed]);
        }
        let span = section.table.get(key).map(Spanned::span).unwrap_or_default();
        if matches!(section.table.get(key).map(Spanned::get_ref), Some(DeValue::Array(items)) if items.is_empty())
        {
            self.problem(span, format!("{key}: the list is empty; leave the line out for the default"));
        }
        self.list(section, key)
    }

    fn section(&mut self, parent: &mut Section<'t>, key: &'static str) -> Option<Section<'t>> {
        self.placed_section(parent, key).map(|(_, section)| section)
    }

    /// A table, and where it begins.
    fn placed_section(
        &mut self,
        parent: &mut Section<'t>,
        key: &'static str,
    ) -> Option<(Place, Section<'t>)> {
        let value = parent.take(key)?;
        let span = value.span();
        let DeValue::Table(table) = value.into_inner() else {
            self.problem(span, format!("{key}: a table is expected; write [{key}]"));
            return None;
        };
        Some((self.place(&span), Section { name: key, table, known: Vec::new() }))
    }

    fn sections(&mut self, parent: &mut Section<'t>, key: &'static str) -> Vec<(Range<usize>, Section<'t>)> {
        let Some(value) = parent.take(key) else { return Vec::new() };
        let span = value.span();
        let DeValue::Array(items) = value.into_inner() else {
            self.problem(span, format!("{key}: a list of tables is expected; write [[{key}]] for each"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items {
            let span = item.span();
            match item.into_inner() {
                DeValue::Table(table) => {
                    sections.push((span, Section { name: key, table, known: Vec::new() }));
                }
                _ => self.problem(span, format!("{key}: a table is expected; write [[{key}]]")),
            }
        }
        sections
    }

    /// A value that its section cannot do without. One that was given and is wrong has been reported already.
    fn required<T>(
        &mut self,
        value: Option<Placed<T>>,
        section: &Section<'t>,
        key: &'static str,
        span: Range<usize>,
    ) -> Option<Placed<T>> {
        if value.is_none() && !section.had(key) {
            self.problem(span, format!("{} needs {key}", section.name));
        }
        value
    }

    fn unknown(&mut self, section: &Section<'t>) {
        for key in section.table.keys() {
            let within =
                if section.name.is_empty() { String::new() } else { format!(" in {}", section.name) };
            let known: Vec<_> = section.known.iter().map(|(known, _)| *known).collect();
            let message = format!("unknown key {}{within}; known here: {}", key.get_ref(), known.join(", "));
            self.problem(key.span(), message);
        }
    }
}
