//! The judgement and the translation of one packet.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use fast_nat::{LeaseTable, Timestamp, is_eligible_host};
use interproto::{EmbeddedRewrite, Ipv4Packet, Ipv6Packet, PortRewrite, Rewrite, Tuple};

use super::{Counters, DropReason, Refusal, Rules, TokenBucket, Traffic};

/// Where translated packets go.
pub trait Output {
    /// Writes one packet. `false`: it was not taken.
    fn write(&mut self, packet: &[u8]) -> bool;
}

impl<F: FnMut(&[u8]) -> bool + ?Sized> Output for F {
    fn write(&mut self, packet: &[u8]) -> bool {
        self(packet)
    }
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Translated and written, as one packet or several.
    Forward,
    /// Its sender has no lease yet: the packet is unchanged and can be parked.
    Hold(Ipv6Addr),
    /// Not forwarded; already counted, and answered where an answer is due.
    Drop(DropReason),
    /// The kernel's own chatter on the device: not for us, and nothing is wrong with it.
    Ignore,
}

/// The rate limits of the router's own ICMP errors.
#[derive(Debug)]
pub struct Limiters {
    v4: TokenBucket,
    v6: TokenBucket,
}

/// The identifications of IPv4 packets that leave without DF and brought none of their own.
///
/// One worker gives out all 65,536 before it repeats one (RFC 6864 §4), in an order that an outsider cannot count along
/// with: a congruential generator of full period.
#[derive(Debug)]
pub struct Identifications(u16);

impl Identifications {
    /// Begins at `seed`, which should differ from worker to worker.
    pub fn new(seed: u16) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u16 {
        // Full period: the increment is odd, and the multiplier is one more than a multiple of four.
        self.0 = self.0.wrapping_mul(25_173).wrapping_add(13_849);
        self.0
    }
}

impl Limiters {
    /// Both full: so many errors a second, and a fifth of them at once.
    pub fn new(errors_per_second: u32, now: Timestamp) -> Self {
        let bucket = || TokenBucket::new(errors_per_second, errors_per_second.div_ceil(5), now);
        Self { v4: bucket(), v6: bucket() }
    }
}

/// The packet path of one worker for one batch: one generation of the rules, one `now`.
#[derive(Debug)]
pub struct Router<'w> {
    /// Who holds which address.
    pub leases: &'w LeaseTable,
    /// The rules.
    pub rules: &'w Rules,
    /// What the worker has counted.
    pub counters: &'w Counters,
    /// The worker's rate limits.
    pub limiters: &'w mut Limiters,
    /// The worker's IPv4 identifications.
    pub identifications: &'w mut Identifications,
    /// The time of this batch.
    pub now: Timestamp,
}

/// What is to be done with a packet whose form is right.
enum Judgement<A> {
    Translate(Rewrite<A>),
    Hold(Ipv6Addr),
    Refuse(Refusal),
}

impl<A> From<Refusal> for Judgement<A> {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

impl Router<'_> {
    /// Routes the packet at `packet` of `storage`, with [`interproto::HEADROOM`] bytes free before it.
    pub fn process(
        &mut self,
        storage: &mut [u8],
        packet: Range<usize>,
        out: &mut (impl Output + ?Sized),
    ) -> Verdict {
        let length = packet.len();
        match storage.get(packet.start).map(|first| first >> 4) {
            Some(6) => {
                self.counters.received_v6.count(length);
                self.six_to_four(storage, packet, out)
            }
            Some(4) => {
                self.counters.received_v4.count(length);
                self.four_to_six(storage, packet, out)
            }
            _ => self.drop(Refusal::NotIp.into()),
        }
    }

    /// Refuses a packet that was held: counts it, and answers its sender where an answer is due.
    pub fn refuse(
        &mut self,
        storage: &mut [u8],
        packet: Range<usize>,
        refusal: Refusal,
        out: &mut (impl Output + ?Sized),
    ) {
        if let Ok(checked) = Ipv6Packet::check(storage, packet) {
            self.answer_v6(checked, refusal.into(), out);
        }
        self.drop(refusal.into());
    }

    fn drop(&self, reason: DropReason) -> Verdict {
        self.counters.dropped(reason);
        Verdict::Drop(reason)
    }

    fn six_to_four(
        &mut self,
        storage: &mut [u8],
        packet: Range<usize>,
        out: &mut (impl Output + ?Sized),
    ) -> Verdict {
        // The kernel sends router solicitations and MLD reports on every device of its own accord.
        if packet.len() > 24 && storage.get(packet.start + 24) == Some(&0xff) {
            self.counters.kernel_chatter.add(1);
            return Verdict::Ignore;
        }
        let mut checked = match Ipv6Packet::check(storage, packet) {
            Ok(checked) => checked,
            Err(reason) => return self.drop(reason.into()),
        };
        let reason = match self.judge_v6(&checked.tuple(), checked.embedded().as_ref()) {
            Judgement::Hold(host) => match checked.refusal() {
                None => return Verdict::Hold(host),
                // It takes no lease.
                Some(reason) => reason.into(),
            },
            Judgement::Refuse(refusal) => refusal.into(),
            Judgement::Translate(rewrite) => {
                match checked.translate(&rewrite, self.identifications.next(), &self.rules.params) {
                    interproto::Verdict::Forward(packets) => {
                        return forward(packets, &self.counters.forwarded_6to4, self.counters, out);
                    }
                    interproto::Verdict::Reply(reason)
                    | interproto::Verdict::Hold(reason)
                    | interproto::Verdict::Drop(reason) => reason.into(),
                }
            }
        };
        let verdict = self.drop(reason);
        self.answer_v6(checked, reason, out);
        verdict
    }

    fn four_to_six(
        &mut self,
        storage: &mut [u8],
        packet: Range<usize>,
        out: &mut (impl Output + ?Sized),
    ) -> Verdict {
        let mut checked = match Ipv4Packet::check(storage, packet) {
            Ok(checked) => checked,
            Err(reason) => return self.drop(reason.into()),
        };
        let reason = match self.judge_v4(&checked.tuple(), checked.embedded().as_ref()) {
            // Never on this side: an outsider cannot make a host take a lease.
            Judgement::Hold(_) => Refusal::NoBinding.into(),
            Judgement::Refuse(refusal) => refusal.into(),
            Judgement::Translate(rewrite) => match checked.translate(&rewrite, &self.rules.params) {
                interproto::Verdict::Forward(packets) => {
                    return forward(packets, &self.counters.forwarded_4to6, self.counters, out);
                }
                interproto::Verdict::Reply(reason)
                | interproto::Verdict::Hold(reason)
                | interproto::Verdict::Drop(reason) => reason.into(),
            },
        };
        let verdict = self.drop(reason);
        self.answer_v4(checked, reason, out);
        verdict
    }

    /// IPv6 to IPv4: the host's lease becomes the source, the address inside the prefix the destination.
    fn judge_v6(&self, tuple: &Tuple<Ipv6Addr>, embedded: Option<&Tuple<Ipv6Addr>>) -> Judgement<Ipv4Addr> {
        let rules = self.rules;
        let Some(destination) = rules.prefix.extract(tuple.destination) else {
            return Refusal::NotInPrefix.into();
        };
        if rules.prefix.contains(tuple.source) {
            return Refusal::SourceInPrefix.into();
        }
        // The host that the packet belongs to: its sender, or, of an ICMP error, the one whose packet it is about. The
        // error itself may come from a router on the way, which holds no lease and never takes one (RFC 6791).
        let host = embedded.map_or(tuple.source, |embedded| embedded.destination);
        if !is_eligible_host(host) {
            return Refusal::SourceNotEligible.into();
        }
        if rules.allow_from.as_ref().is_some_and(|allowed| !allowed.contains(host)) {
            return Refusal::SourceNotAllowed.into();
        }
        if rules.deny_to.contains(destination) {
            return Refusal::DestinationDenied.into();
        }
        if !rules.prefix.permits(destination, rules.non_global) {
            return Refusal::NonGlobal.into();
        }
        let Some(embedded) = embedded else {
            return match self.leases.by_host(host, self.now) {
                None => Judgement::Hold(host),
                Some(lease) => Judgement::Translate(Rewrite {
                    source: lease.address,
                    destination,
                    ports: PortRewrite::Keep,
                    embedded: None,
                }),
            };
        };
        // An error refreshes nothing (RFC 5508 REQ-6).
        match (self.leases.peek_host(host), rules.prefix.extract(embedded.source)) {
            (Some(lease), Some(peer)) => Judgement::Translate(Rewrite {
                source: self.error_source(tuple.source, host, lease.address),
                destination,
                ports: PortRewrite::Keep,
                embedded: Some(EmbeddedRewrite {
                    source: peer,
                    destination: lease.address,
                    ports: PortRewrite::Keep,
                }),
            }),
            _ => Refusal::UnrelatedError.into(),
        }
    }

    /// The IPv4 source of an error that `sender` has sent about a packet to `host`: its own address if it has one, else
    /// one of the pool for such routers, else that of the host (RFC 7915 §5.1, RFC 6791).
    fn error_source(&self, sender: Ipv6Addr, host: Ipv6Addr, address: Ipv4Addr) -> Ipv4Addr {
        if sender == host {
            return address;
        }
        match self.leases.peek_host(sender) {
            Some(own) => own.address,
            None => self.rules.router_pool.map_or(address, |pool| pool.stand_in(sender)),
        }
    }

    /// IPv4 to IPv6: the holder of the lease becomes the destination, the source appears inside the prefix.
    fn judge_v4(&self, tuple: &Tuple<Ipv4Addr>, embedded: Option<&Tuple<Ipv4Addr>>) -> Judgement<Ipv6Addr> {
        let rules = self.rules;
        // Inbound traffic refreshes nothing: an outsider must not be able to pin a lease (RFC 4787 REQ-6).
        let Some(lease) = self.leases.by_address(tuple.destination) else {
            return Refusal::NoBinding.into();
        };
        let source = rules.prefix.embed(tuple.source);
        let Some(embedded) = embedded else {
            if !is_host_v4(tuple.source) {
                return Refusal::SourceNotEligible.into();
            }
            if !rules.prefix.permits(tuple.source, rules.non_global) {
                return Refusal::NonGlobal.into();
            }
            return Judgement::Translate(Rewrite {
                source,
                destination: lease.host,
                ports: PortRewrite::Keep,
                embedded: None,
            });
        };
        // Errors pass whatever their source is (RFC 7915 §4.1), but only about what this host has sent.
        if embedded.source != lease.address {
            return Refusal::UnrelatedError.into();
        }
        Judgement::Translate(Rewrite {
            source,
            destination: lease.host,
            ports: PortRewrite::Keep,
            embedded: Some(EmbeddedRewrite {
                source: lease.host,
                destination: rules.prefix.embed(embedded.destination),
                ports: PortRewrite::Keep,
            }),
        })
    }

    fn answer_v6(&mut self, about: Ipv6Packet<'_>, reason: DropReason, out: &mut (impl Output + ?Sized)) {
        let Some(kind) = reason.answer_v6() else { return };
        if !about.may_be_answered() {
            return;
        }
        // Before the error is made: a flood must not cost more than its count.
        if !self.limiters.v6.take(self.now) {
            self.counters.icmp_errors_limited.add(1);
            return;
        }
        let answer = about.error(kind, self.rules.icmp_source_v6, &self.rules.params);
        if answer.is_some_and(|answer| out.write(answer)) {
            self.counters.icmp_errors.add(1);
        }
    }

    fn answer_v4(&mut self, about: Ipv4Packet<'_>, reason: DropReason, out: &mut (impl Output + ?Sized)) {
        let Some(kind) = reason.answer_v4() else { return };
        if !about.may_be_answered() {
            return;
        }
        // Before the error is made: a flood must not cost more than its count.
        if !self.limiters.v4.take(self.now) {
            self.counters.icmp_errors_limited.add(1);
            return;
        }
        let answer = about.error(kind, self.rules.icmp_source_v4, &self.rules.params);
        if answer.is_some_and(|answer| out.write(answer)) {
            self.counters.icmp_errors.add(1);
        }
    }
}

/// Writes what a translation yields, and counts it one way or the other.
fn forward(
    mut packets: interproto::Packets<'_>,
    forwarded: &Traffic,
    counters: &Counters,
    out: &mut (impl Output + ?Sized),
) -> Verdict {
    while let Some(packet) = packets.next() {
        if out.write(packet) {
            forwarded.count(packet.len());
        } else {
            counters.dropped(Refusal::WriteFailed.into());
        }
    }
    Verdict::Forward
}

/// Whether an IPv4 address can be that of one host elsewhere: not "this network", loopback, multicast or reserved.
fn is_host_v4(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 127 | 224..)
}

#[cfg(test)]
mod tests;
