//! Packets from the IPv4 side.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use fast_nat::nat64::{Inbound, Refused};
use interproto::{EmbeddedRewrite, Ipv4Packet, PortRewrite, Ports, Rewrite, Tuple, VirtioNetHdr};

use super::reunite::Reunited;
use super::{
    DropReason, Output, Refusal, Router, Rules, Stop, Verdict, forward, is_host_v4, passing, refusal,
    rewritten, shared_flow,
};

/// The bit of TCP's flags that opens a connection.
const SYN: u8 = 0x02;

impl Router<'_> {
    pub(super) fn four_to_six(
        &mut self,
        storage: &mut [u8],
        packet: Range<usize>,
        offload: &VirtioNetHdr,
        out: &mut (impl Output + ?Sized),
    ) -> Verdict {
        let checked = match Ipv4Packet::check_offloaded(storage, packet.clone(), offload) {
            Ok(checked) => checked,
            Err(reason) => {
                let is_redirect = reason == interproto::DropReason::IcmpNotTranslatable
                    && is_redirect(storage.get(packet).unwrap_or_default());
                if is_redirect {
                    // Two hosts that reach each other by the router make the kernel tell them of a shorter way, which is none.
                    self.counters.kernel_chatter.add(1);
                    return Verdict::Ignore;
                }
                return self.drop(reason.into());
            }
        };
        let tuple = checked.tuple();
        let Some(part) = checked.fragment() else { return self.route_v4(checked, tuple.ports, out) };
        let reunited = if is_host_v4(tuple.source) && self.is_ours(tuple.destination) {
            let needs_ports = self.own_host(tuple.destination).is_none();
            self.reunite_v4(storage, &tuple, &part, needs_ports)
        } else {
            Reunited::Now(tuple.ports)
        };
        match reunited {
            Reunited::Now(ports) => self.fragment_v4(storage, packet, ports, out),
            Reunited::Whole(mut whole) => {
                match Ipv4Packet::check_reassembled(&mut whole.storage, whole.packet) {
                    Ok(checked) => {
                        let ports = checked.tuple().ports;
                        self.route_v4(checked, ports, out)
                    }
                    Err(reason) => self.drop(reason.into()),
                }
            }
            Reunited::Not(verdict) => verdict,
        }
    }

    /// A fragment that has met the others of its datagram.
    pub(super) fn fragment_v4(
        &mut self,
        storage: &mut [u8],
        packet: Range<usize>,
        ports: Ports,
        out: &mut (impl Output + ?Sized),
    ) -> Verdict {
        match Ipv4Packet::check(storage, packet) {
            Ok(checked) => self.route_v4(checked, ports, out),
            Err(reason) => self.drop(reason.into()),
        }
    }

    /// Translates a packet whose ports are known: its own, or those of its datagram's first fragment.
    fn route_v4(
        &mut self,
        mut checked: Ipv4Packet<'_>,
        ports: Ports,
        out: &mut (impl Output + ?Sized),
    ) -> Verdict {
        let tuple = Tuple { ports, ..checked.tuple() };
        let reason = match self.map_v4(&checked, &tuple) {
            Ok(rewrite) => {
                if let Some(clamp) = self.rules.mss_clamp {
                    checked.clamp_mss(clamp.to_v6);
                }
                match checked.translate(&rewrite, &self.rules.params) {
                    interproto::Verdict::Forward(packets) => {
                        return forward(packets, self.identifications, out);
                    }
                    interproto::Verdict::Reply(reason)
                    | interproto::Verdict::Hold(reason)
                    | interproto::Verdict::Drop(reason) => reason.into(),
                }
            }
            Err(Stop::Echo) => return self.send_reply(checked.echo_reply_framed(), out),
            // Never on this side: an outsider cannot make a host take a lease.
            Err(Stop::Hold(_)) => Refusal::NoBinding.into(),
            Err(Stop::Drop(reason)) => reason,
        };
        let verdict = self.drop(reason);
        self.answer_v4(checked, reason, out);
        verdict
    }

    /// The host that has this IPv4 address for itself, if one has.
    fn own_host(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        let rules = self.rules;
        // Inbound traffic refreshes nothing: an outsider must not be able to pin a lease (RFC 4787 REQ-6).
        rules.eam.0.to_v6(address).or_else(|| {
            rules.has_leases.then(|| self.tables.leases.by_address(address)).flatten().map(|lease| lease.host)
        })
    }

    fn is_ours(&self, address: Ipv4Addr) -> bool {
        self.is_own(address) || self.own_host(address).is_some()
    }

    /// Looks up where the packet goes.
    fn map_v4(&self, checked: &Ipv4Packet<'_>, tuple: &Tuple<Ipv4Addr>) -> Result<Rewrite<Ipv6Addr>, Stop> {
        if let Some(embedded) = checked.embedded() {
            return self.map_error_v4(tuple, &embedded);
        }
        let own_host = self.own_host(tuple.destination);
        let is_shared = own_host.is_none() && self.rules.is_shared(tuple.destination);
        let is_to_us = own_host.is_none() && checked.is_echo_request() && self.is_own(tuple.destination);
        if own_host.is_none() && !is_shared && !is_to_us {
            return Err(Refusal::NoBinding.into());
        }
        if !is_host_v4(tuple.source) {
            return Err(Refusal::SourceNotEligible.into());
        }
        if let Some(host) = own_host {
            let prefix = self.rules.prefix_of(tuple.destination);
            return self.appear_to(prefix, tuple.source, host, PortRewrite::Keep);
        }
        if !is_shared {
            return Err(Stop::Echo);
        }
        let flow = shared_flow(tuple.protocol, tuple.ports, false).ok_or(Refusal::NoBinding)?;
        let (protocol, remote_port, port) = flow;
        // Nothing begins with a packet that will be refused.
        if let Some(reason) = checked.refusal() {
            return Err(Stop::Drop(reason.into()));
        }
        let flow = Inbound { protocol, address: tuple.destination, port, remote: tuple.source, remote_port };
        let on_the_wire = (checked.segments(), checked.wire_length());
        let packet = passing(on_the_wire, checked.tcp_flags(), checked.bytes());
        match self.tables.nat.inbound(&flow, &packet, self.now) {
            Ok(reached) => {
                if reached.created {
                    self.counters.sessions_begun.add(1);
                }
                let ports = rewritten(protocol, reached.port, remote_port, reached.port);
                self.appear_to(reached.prefix, tuple.source, reached.host, ports)
            }
            Err(Refused::NoBinding | Refused::Filtered) if is_to_us => Err(Stop::Echo),
            Err(refused) => Err(refusal(refused, Some(packet.signal)).into()),
        }
    }

    fn appear_to(
        &self,
        prefix: u8,
        remote: Ipv4Addr,
        host: Ipv6Addr,
        ports: PortRewrite,
    ) -> Result<Rewrite<Ipv6Addr>, Stop> {
        if !self.rules.permits(prefix, remote) {
            return Err(Refusal::NonGlobal.into());
        }
        let source = self.rules.prefix(prefix).embed(remote);
        Ok(Rewrite { source, destination: host, ports, embedded: None })
    }

    /// An ICMP error. It passes whatever its source is (RFC 7915 §4.1), but only about what a host here has sent.
    fn map_error_v4(
        &self,
        tuple: &Tuple<Ipv4Addr>,
        embedded: &Tuple<Ipv4Addr>,
    ) -> Result<Rewrite<Ipv6Addr>, Stop> {
        if !self.is_ours(tuple.destination) {
            return Err(Refusal::NoBinding.into());
        }
        let unrelated = Stop::from(Refusal::UnrelatedError);
        if embedded.source != tuple.destination {
            return Err(unrelated);
        }
        let (prefix, host, ports) = if let Some(host) = self.own_host(embedded.source) {
            (self.rules.prefix_of(embedded.source), host, PortRewrite::Keep)
        } else {
            let flow = shared_flow(embedded.protocol, embedded.ports, true).ok_or(unrelated)?;
            let (protocol, port, remote_port) = flow;
            let (address, remote) = (embedded.source, embedded.destination);
            let flow = Inbound { protocol, address, port, remote, remote_port };
            let reached = self.tables.nat.find_inbound(&flow).ok_or(unrelated)?;
            let ports = rewritten(protocol, reached.port, reached.port, remote_port);
            (reached.prefix, reached.host, ports)
        };
        let prefix = self.rules.prefix(prefix);
        Ok(Rewrite {
            source: prefix.embed(tuple.source),
            destination: host,
            ports: PortRewrite::Keep,
            embedded: Some(EmbeddedRewrite {
                source: host,
                destination: prefix.embed(embedded.destination),
                ports,
            }),
        })
    }

    pub(super) fn answer_v4(
        &mut self,
        about: Ipv4Packet<'_>,
        reason: DropReason,
        out: &mut (impl Output + ?Sized),
    ) {
        let Some(kind) = reason.answer_v4() else { return };
        // A connection attempt from outside is not answered before its time (RFC 5382 REQ-4).
        let is_attempt = about.tcp_flags() & SYN != 0 && self.rules.is_shared(about.tuple().destination);
        let is_silent = is_attempt || reason == Refusal::Filtered.into() && !self.rules.answer_filtered;
        if is_silent || !about.may_be_answered() {
            return;
        }
        let make = |rules: &Rules| about.error_framed(kind, rules.icmp_source_v4, &rules.params);
        self.send_error(|limiters| &mut limiters.v4, make, out);
    }
}

/// Whether a packet whose form was checked is an ICMP redirect (RFC 792): it concerns its sender's own link only.
fn is_redirect(packet: &[u8]) -> bool {
    let header = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    packet.get(9) == Some(&1) && packet.get(header) == Some(&5)
}
