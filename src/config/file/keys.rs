//! Which keys there are, section by section.

use ipnet::{Ipv4Net, Ipv6Net};
use toml::de::DeTable;

use super::super::partial::{
    PartialDeterministic, PartialEam, PartialForward, PartialPool, PartialQuota, PartialRecords,
    PartialSessions, PartialState, PartialTimers,
};
use super::super::text::NetOrAddress;
use super::super::{Partial, Placed, PortRange, StaticPair};
use super::{Reader, Section};

impl<'t> Reader<'t> {
    pub(super) fn all(&mut self, table: DeTable<'t>) -> Partial {
        let mut top = Section { name: "", table, known: Vec::new() };
        let mut partial = Partial {
            interface: self.value(&mut top, "interface"),
            translation_prefixes: self.one_or_more(&mut top, "translation_prefix"),
            state: PartialState {
                dir: self.value(&mut top, "state_dir"),
                none: self.value(&mut top, "no_state"),
            },
            reservation_timeout: self.duration(&mut top, "reservation_timeout"),
            address_rest: self.duration(&mut top, "address_rest"),
            max_leases_per_subnet: self.value(&mut top, "max_leases_per_subnet"),
            num_queues: self.value(&mut top, "num_queues"),
            worker_nice: self.value(&mut top, "worker_nice"),
            mtu: self.value(&mut top, "mtu"),
            offloads: self.text_value(&mut top, "offloads"),
            join: self.value(&mut top, "join"),
            steering: self.value(&mut top, "steering"),
            mss_clamp: self.value(&mut top, "mss_clamp"),
            allow_from: self.list::<Ipv6Net>(&mut top, "allow_from"),
            deny_to: self.list::<Ipv4Net>(&mut top, "deny_to"),
            allow_non_global: self.value(&mut top, "allow_non_global"),
            icmp_source_v4: self.text_value(&mut top, "icmp_source_v4"),
            icmp_source_v6: self.text_value(&mut top, "icmp_source_v6"),
            icmp_errors_per_second: self.value(&mut top, "icmp_errors_per_second"),
            icmp_router_pool: self.text_value(&mut top, "icmp_router_pool"),
            enable_forwarding: self.value(&mut top, "enable_forwarding"),
            on_exit: self.value(&mut top, "on_exit"),
            hang_after: self.duration(&mut top, "hang_after"),
            prometheus: self.text_value(&mut top, "prometheus"),
            control_socket: self.text_value(&mut top, "control_socket"),
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
            let translation_prefix = self.text_value(&mut section, "translation_prefix");
            if let Some(net) = net {
                let reserved_ports = reserved_ports.map(|Placed { value, place }| Placed {
                    value: value.into_iter().map(|placed| placed.value).collect(),
                    place,
                });
                pools.push(PartialPool {
                    net,
                    masquerade,
                    sharing,
                    ports,
                    reserved_ports,
                    hosts,
                    translation_prefix,
                });
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
                max_resting_ports: self.value(&mut sessions, "max_resting_ports"),
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
                section: None,
                file: self.value(&mut records, "file"),
                syslog: self.text_value(&mut records, "syslog"),
                when_full: self.value(&mut records, "when_full"),
                sessions: self.value(&mut records, "sessions"),
            };
            // Without what was given and could not be read there is nothing to check.
            let unread = (records.had("file") && partial.records.file.is_none())
                || (records.had("syslog") && partial.records.syslog.is_none());
            partial.records.section = (!unread).then_some(Placed { value: (), place });
            self.unknown(&records);
        }
        if let Some((place, mut deterministic)) = self.placed_section(top, "deterministic") {
            partial.deterministic = PartialDeterministic {
                section: None,
                hosts: self.placed_list(&mut deterministic, "hosts", Self::read_text::<Ipv6Net>),
                ports_per_subscriber: self.value(&mut deterministic, "ports_per_subscriber"),
            };
            let PartialDeterministic { hosts, ports_per_subscriber, .. } = &partial.deterministic;
            let unread = (deterministic.had("hosts") && hosts.is_none())
                || (deterministic.had("ports_per_subscriber") && ports_per_subscriber.is_none());
            partial.deterministic.section = (!unread).then_some(Placed { value: (), place });
            self.unknown(&deterministic);
        }
    }
}
