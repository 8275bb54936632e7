//! Packets from the IPv6 side.

use std::hash::BuildHasher as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use fast_nat::is_eligible_host;
use fast_nat::nat64::{Outbound, Refused};
use interproto::{EmbeddedRewrite, Ipv6Packet, PortRewrite, Ports, Rewrite, Tuple, VirtioNetHdr};

use super::reunite::Reunited;
use super::{
    Ask, DropReason, Held, Output, Refusal, Router, Rules, Stop, Verdict, forward, passing, refusal,
    rewritten, shared_flow,
};
use crate::config::Sharing;

/// What the rules make of a packet, before any table is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed {
    prefix: u8,
    destination: Ipv4Addr,
    /// Whom it belongs to: its sender, or, of an ICMP error, the one whose packet it is about.
    host: Ipv6Addr,
}

impl Router<'_> {
    pub(super) fn six_to_four(
        &mut self,
        storage: &mut [u8],
        packet: Range<usize>,
        offload: &VirtioNetHdr,
        out: &mut (impl Output + ?Sized),
    ) -> Verdict {
        // The kernel sends router solicitations and MLD reports on every device of its own accord.
        if packet.len() > 24 && storage.get(packet.start + 24) == Some(&0xff) {
            self.counters.kernel_chatter.add(1);
            return Verdict::Ignore;
        }
        let checked = match Ipv6Packet::check_offloaded(storage, packet.clone(), offload) {
            Ok(checked) => checked,
            Err(reason) => return self.drop(reason.into()),
        };
        let tuple = checked.tuple();
        let Some(part) = checked.fragment() else { return self.route_v6(checked, tuple.ports, out) };
        let reunited = match self.allows_v6(&tuple, None) {
            Ok(allowed) => {
                let needs_ports = self.is_shared_host(allowed.host);
                if needs_ports {
                    self.renumber(storage, packet.start + part.headers, allowed.host);
                }
                self.reunite_v6(storage, &tuple, &part, needs_ports)
            }
            Err(_) => Reunited::Now(tuple.ports),
        };
        match reunited {
            Reunited::Now(ports) => self.fragment_v6(storage, packet, ports, out),
            Reunited::Whole(mut whole) => {
                let checked = match Ipv6Packet::check_reassembled(&mut whole.storage, whole.packet.clone()) {
                    Ok(checked) => checked,
                    Err(reason) => return self.drop(reason.into()),
                };
                let ports = checked.tuple().ports;
                let verdict = self.route_v6(checked, ports, out);
                if matches!(verdict, Verdict::Hold(_)) {
                    self.scratch.whole = whole.storage.get(whole.packet).map(Box::from);
                }
                verdict
            }
            Reunited::Not(verdict) => verdict,
        }
    }

    /// A fragment that has met the others of its datagram.
    pub(super) fn fragment_v6(
        &mut self,
        storage: &mut [u8],
        packet: Range<usize>,
        ports: Ports,
        out: &mut (impl Output + ?Sized),
    ) -> Verdict {
        match Ipv6Packet::check(storage, packet) {
            Ok(checked) => self.route_v6(checked, ports, out),
            Err(reason) => self.drop(reason.into()),
        }
    }

    /// Gives a fragment another identification: hosts that share an address must not use the same ones (RFC 6864 §5.3.1). Those
    /// of one host stay as different as they were, and those of two hosts are alike by chance only.
    fn renumber(&self, storage: &mut [u8], behind_headers: usize, host: Ipv6Addr) {
        let mask = (self.tables.secret.hash_one(host) as u16).to_be_bytes();
        let lower = storage.get_mut(behind_headers - 2..behind_headers).unwrap_or_default();
        for (byte, mask) in lower.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }

    /// Translates a packet whose ports are known: its own, or those of its datagram's first fragment.
    fn route_v6(
        &mut self,
        mut checked: Ipv6Packet<'_>,
        ports: Ports,
        out: &mut (impl Output + ?Sized),
    ) -> Verdict {
        let tuple = Tuple { ports, ..checked.tuple() };
        let judged = self
            .allows_v6(&tuple, checked.embedded().as_ref())
            .and_then(|allowed| self.map_v6(&checked, &tuple, allowed));
        let reason = match judged {
            Ok(rewrite) => {
                if let Some(clamp) = self.rules.mss_clamp {
                    checked.clamp_mss(clamp.to_v4);
                }
                let identifications = |segments| self.identifications.range(segments);
                match checked.translate(&rewrite, identifications, &self.rules.params) {
                    interproto::Verdict::Forward(packets) => {
                        return forward(packets, self.identifications, out);
                    }
                    interproto::Verdict::Reply(reason)
                    | interproto::Verdict::Hold(reason)
                    | interproto::Verdict::Drop(reason) => reason.into(),
                }
            }
            Err(Stop::Hold(ask)) => match checked.refusal() {
                None => {
                    let ports = checked.fragment().is_some().then_some(ports);
                    return Verdict::Hold(Held { ask, ports });
                }
                // It takes no lease.
                Some(reason) => reason.into(),
            },
            Err(Stop::Echo) => return self.send_reply(checked.echo_reply_framed(), out),
            Err(Stop::Drop(reason)) => reason,
        };
        let verdict = self.drop(reason);
        self.answer_v6(checked, reason, out);
        verdict
    }

    /// What the rules say of a packet.
    fn allows_v6(
        &self,
        tuple: &Tuple<Ipv6Addr>,
        embedded: Option<&Tuple<Ipv6Addr>>,
    ) -> Result<Allowed, Stop> {
        let rules = self.rules;
        let (prefix, destination) = rules.extract(tuple.destination).ok_or(Refusal::NotInPrefix)?;
        if rules.is_translated(tuple.source) {
            return Err(Refusal::SourceInPrefix.into());
        }
        // An ICMP error may come from a router on the way, which holds no lease and never takes one (RFC 6791).
        let host = embedded.map_or(tuple.source, |embedded| embedded.destination);
        if !is_eligible_host(host) {
            return Err(Refusal::SourceNotEligible.into());
        }
        if rules.allow_from.as_ref().is_some_and(|allowed| !allowed.contains(host)) {
            return Err(Refusal::SourceNotAllowed.into());
        }
        if rules.deny_to.contains(destination) {
            return Err(Refusal::DestinationDenied.into());
        }
        if !rules.permits(prefix, destination) {
            return Err(Refusal::NonGlobal.into());
        }
        Ok(Allowed { prefix, destination, host })
    }

    /// The IPv4 address that a host has for itself, if it has one.
    fn own_address(&self, host: Ipv6Addr) -> Option<Ipv4Addr> {
        let rules = self.rules;
        rules.eam.0.to_v4(host).or_else(|| {
            rules
                .has_leases
                .then(|| self.tables.leases.by_host(host, self.now))
                .flatten()
                .map(|lease| lease.address)
        })
    }

    /// The same, without refreshing its lease.
    fn peek_address(&self, host: Ipv6Addr) -> Option<Ipv4Addr> {
        let rules = self.rules;
        rules.eam.0.to_v4(host).or_else(|| {
            rules.has_leases.then(|| self.tables.leases.peek_host(host)).flatten().map(|lease| lease.address)
        })
    }

    /// Whether a host shares its address, so that its fragments need ports.
    fn is_shared_host(&self, host: Ipv6Addr) -> bool {
        self.rules.sharing_of(host) == Some(Sharing::Ports) && self.peek_address(host).is_none()
    }

    /// Looks up what the packet is to leave with.
    fn map_v6(
        &mut self,
        checked: &Ipv6Packet<'_>,
        tuple: &Tuple<Ipv6Addr>,
        allowed: Allowed,
    ) -> Result<Rewrite<Ipv4Addr>, Stop> {
        let Allowed { prefix, destination, host } = allowed;
        if let Some(embedded) = checked.embedded() {
            return self.map_error_v6(tuple, &embedded, allowed);
        }
        if checked.is_echo_request() && self.is_own(destination) {
            return Err(Stop::Echo);
        }
        if let Some(source) = self.own_address(host) {
            // Answers could not be told from those to the other prefix.
            if prefix != self.rules.prefix_of(source) {
                return Err(Refusal::PrefixNotServed.into());
            }
            return Ok(Rewrite { source, destination, ports: PortRewrite::Keep, embedded: None });
        }
        match self.rules.sharing_of(host) {
            Some(Sharing::Ports) => {}
            // What began while it shared an address goes on as it began.
            Some(Sharing::Exclusive) if self.rules.drains_ports() && self.has_session(tuple, allowed) => {}
            Some(Sharing::Exclusive) if prefix != self.rules.prefix_for(host) => {
                return Err(Refusal::PrefixNotServed.into());
            }
            Some(Sharing::Exclusive) => {
                return Err(Stop::Hold(Ask { host, class: fast_nat::nat64::PortClass::High }));
            }
            None => return Err(Refusal::PoolExhausted.into()),
        }
        let flow = shared_flow(tuple.protocol, tuple.ports, true).ok_or(Refusal::ProtocolNotShared)?;
        let (protocol, port, remote_port) = flow;
        // Nothing begins with a packet that will be refused.
        if let Some(reason) = checked.refusal() {
            return Err(Stop::Drop(reason.into()));
        }
        let flow = Outbound { prefix, protocol, host, port, remote: destination, remote_port };
        let on_the_wire = (checked.segments(), checked.wire_length());
        let packet = passing(on_the_wire, checked.tcp_flags(), checked.bytes());
        match self.tables.nat.outbound(&flow, &packet, self.now) {
            Ok(mapped) => {
                if let Some(class) = mapped.wants_block {
                    self.scratch.ahead.push(Ask { host, class });
                }
                if mapped.created {
                    self.counters.sessions_begun.add(1);
                }
                let ports = rewritten(protocol, mapped.port, mapped.port, remote_port);
                Ok(Rewrite { source: mapped.address, destination, ports, embedded: None })
            }
            Err(Refused::NeedsBlock(class)) => Err(Stop::Hold(Ask { host, class })),
            Err(refused) => Err(refusal(refused, None).into()),
        }
    }

    /// Whether a packet belongs to a session of a host that shares its address.
    fn has_session(&self, tuple: &Tuple<Ipv6Addr>, allowed: Allowed) -> bool {
        let Allowed { prefix, destination, host } = allowed;
        let flow = shared_flow(tuple.protocol, tuple.ports, true);
        flow.is_some_and(|(protocol, port, remote_port)| {
            let flow = Outbound { prefix, protocol, host, port, remote: destination, remote_port };
            self.tables.nat.find_outbound(&flow).is_some()
        })
    }

    /// An ICMP error about a packet that a host was sent. It refreshes nothing (RFC 5508 REQ-6).
    fn map_error_v6(
        &self,
        tuple: &Tuple<Ipv6Addr>,
        embedded: &Tuple<Ipv6Addr>,
        allowed: Allowed,
    ) -> Result<Rewrite<Ipv4Addr>, Stop> {
        let Allowed { destination, host, .. } = allowed;
        let unrelated = Stop::from(Refusal::UnrelatedError);
        let (prefix, peer) = self.rules.extract(embedded.source).ok_or(unrelated)?;
        let (address, ports) = if let Some(address) = self.peek_address(host) {
            (address, PortRewrite::Keep)
        } else {
            // It went the other way: the host was its destination.
            let flow = shared_flow(embedded.protocol, embedded.ports, false).ok_or(unrelated)?;
            let (protocol, remote_port, port) = flow;
            let flow = Outbound { prefix, protocol, host, port, remote: peer, remote_port };
            let mapped = self.tables.nat.find_outbound(&flow).ok_or(unrelated)?;
            (mapped.address, rewritten(protocol, mapped.port, remote_port, mapped.port))
        };
        Ok(Rewrite {
            source: self.error_source(tuple.source, host, address),
            destination,
            ports: PortRewrite::Keep,
            embedded: Some(EmbeddedRewrite { source: peer, destination: address, ports }),
        })
    }

    /// The IPv4 source of an error that `sender` has sent about a packet to `host`: its own address if it has one, else
    /// one of the pool for such routers, else that of the host (RFC 7915 §5.1, RFC 6791).
    fn error_source(&self, sender: Ipv6Addr, host: Ipv6Addr, address: Ipv4Addr) -> Ipv4Addr {
        if sender == host {
            return address;
        }
        match self.peek_address(sender) {
            Some(own) => own,
            None => self.rules.router_pool.map_or(address, |pool| pool.stand_in(sender)),
        }
    }

    /// Whether an IPv4 address is the router's own: that of its ICMP errors, and every one that is shared by ports.
    pub(super) fn is_own(&self, address: Ipv4Addr) -> bool {
        address == self.rules.icmp_source_v4 || self.rules.is_shared(address)
    }

    pub(super) fn answer_v6(
        &mut self,
        about: Ipv6Packet<'_>,
        reason: DropReason,
        out: &mut (impl Output + ?Sized),
    ) {
        let Some(kind) = reason.answer_v6() else { return };
        if !about.may_be_answered() {
            return;
        }
        let make = |rules: &Rules| about.error_framed(kind, rules.icmp_source_v6, &rules.params);
        self.send_error(|limiters| &mut limiters.v6, make, out);
    }
}
