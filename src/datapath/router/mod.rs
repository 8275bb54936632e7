//! The judgement and the translation of one packet.

mod outputs;
mod reunite;
mod v4;
mod v6;

use std::hash::RandomState;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::time::Duration;

use fast_nat::nat64::{Nat64, Passing, PortClass, Protocol as Shared, Refused, Signal};
use fast_nat::{LeaseTable, Timestamp};
use interproto::{Ipv4Packet, Ipv6Packet, PortRewrite, Ports, Protocol, VirtioNetHdr};

use super::fragments::Fragments;
use super::{Counters, DropReason, Identifications, Refusal, Rules, TokenBucket};

/// Where packets go. Each is a frame: [`VirtioNetHdr::LENGTH`] bytes that say what is left to do, and the packet behind them.
pub trait Output {
    /// Takes a translated packet, to be written by the end of the batch, perhaps joined with others, and to be counted then.
    fn forward(&mut self, frame: &[u8], identifications: &mut Identifications);

    /// Writes a packet of the router's own. `false`: it was not taken.
    fn send(&mut self, frame: &[u8]) -> bool;
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Translated and written, as one packet or several.
    Forward,
    /// Its sender has no address or no port yet: the packet is unchanged and can be parked.
    Hold(Held),
    /// A fragment that waits for others of its datagram.
    Parked,
    /// It was for the router itself, and was replied to.
    Answered,
    /// Not forwarded; already counted, and answered where an answer is due.
    Drop(DropReason),
    /// The kernel's own chatter on the device: not for us, and nothing is wrong with it.
    Ignore,
}

/// What `pool` is to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ask {
    /// For whom.
    pub host: Ipv6Addr,
    /// Where it shares its address: ports of which kind.
    pub class: PortClass,
}

/// A packet that is to be parked until `pool` has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// What it waits for.
    pub ask: Ask,
    /// The ports of its datagram, if it is a fragment: it has met the others already.
    pub ports: Option<Ports>,
}

/// A packet that was parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// The packet.
    pub packet: Box<[u8]>,
    /// What the kernel said about it.
    pub offload: VirtioNetHdr,
    /// The ports of its datagram, if it is a fragment: it has met the others already.
    pub ports: Option<Ports>,
}

/// The state that all workers share.
#[derive(Debug)]
pub struct Tables {
    /// Who holds which address.
    pub leases: LeaseTable,
    /// Who has which port, and its sessions.
    pub nat: Nat64,
    /// Fragments that wait.
    pub fragments: Fragments,
    /// What makes the identifications of different hosts' fragments differ.
    pub secret: RandomState,
}

impl Tables {
    /// Which table has a lock that is not given back within `patience`, if there is one: a thread hangs with it.
    pub fn stuck(&self, patience: Duration) -> Option<&'static str> {
        if self.nat.is_stuck(patience) {
            Some("a lock of the session tables")
        } else if self.leases.is_stuck(patience) {
            Some("a lock of the leases")
        } else if self.fragments.is_stuck(patience) {
            Some("the lock of the fragments")
        } else {
            None
        }
    }
}

/// What a turn leaves to its worker.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Blocks that will soon be needed.
    pub ahead: Vec<Ask>,
    /// Fragments whose first one has come: they are to be routed next.
    pub released: Vec<Parcel>,
    /// The datagram that was put together of the fragments of a packet to be held: it is held in the packet's stead.
    pub whole: Option<Box<[u8]>>,
    /// How many packets the one at hand is on the wire.
    pub(crate) segments: u64,
}

/// The rate limits of the router's own ICMP errors.
#[derive(Debug)]
pub struct Limiters {
    errors_per_second: u32,
    v4: TokenBucket,
    v6: TokenBucket,
}

impl Limiters {
    /// Both full: so many errors a second, and a fifth of them at once.
    pub fn new(errors_per_second: u32, now: Timestamp) -> Self {
        let bucket = || TokenBucket::new(errors_per_second, errors_per_second.div_ceil(5), now);
        Self { errors_per_second, v4: bucket(), v6: bucket() }
    }
}

impl Limiters {
    /// Another rate from now on, if it is another one.
    pub fn set_rate(&mut self, errors_per_second: u32, now: Timestamp) {
        if errors_per_second != self.errors_per_second {
            *self = Self::new(errors_per_second, now);
        }
    }
}

/// The packet path of one worker for one batch: one generation of the rules, one `now`.
#[derive(Debug)]
pub struct Router<'w> {
    /// The state that all workers share.
    pub tables: &'w Tables,
    /// The rules.
    pub rules: &'w Rules,
    /// What the worker has counted.
    pub counters: &'w Counters,
    /// The worker's rate limits.
    pub limiters: &'w mut Limiters,
    /// The worker's IPv4 identifications.
    pub identifications: &'w mut Identifications,
    /// What is left to the worker.
    pub scratch: &'w mut Scratch,
    /// The time of this batch.
    pub now: Timestamp,
}

/// Why a packet goes no further by the way that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Hold(Ask),
    Drop(DropReason),
    /// An echo request for the router itself.
    Echo,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Drop(refusal.into())
    }
}

impl Router<'_> {
    /// Routes the packet at `packet` of `storage`, of which the kernel said `offload`, with [`interproto::HEADROOM`] bytes free before it.
    pub fn process(
        &mut self,
        storage: &mut [u8],
        packet: Range<usize>,
        offload: &VirtioNetHdr,
        out: &mut (impl Output + ?Sized),
    ) -> Verdict {
        self.scratch.segments = received(self.counters, storage, &packet, offload);
        self.dispatch(storage, packet, offload, None, out)
    }

    /// The same for a packet that was parked: it has been counted as received, and a fragment has met the others of its
    /// datagram, whose `ports` are these.
    pub fn process_again(
        &mut self,
        storage: &mut [u8],
        packet: Range<usize>,
        offload: &VirtioNetHdr,
        ports: Option<Ports>,
        out: &mut (impl Output + ?Sized),
    ) -> Verdict {
        self.scratch.segments = on_the_wire(storage, &packet, offload).0;
        self.dispatch(storage, packet, offload, ports, out)
    }

    fn dispatch(
        &mut self,
        storage: &mut [u8],
        packet: Range<usize>,
        offload: &VirtioNetHdr,
        ports: Option<Ports>,
        out: &mut (impl Output + ?Sized),
    ) -> Verdict {
        match (storage.get(packet.start).map(|first| first >> 4), ports) {
            (Some(6), Some(ports)) => self.fragment_v6(storage, packet, ports, out),
            (Some(4), Some(ports)) => self.fragment_v4(storage, packet, ports, out),
            (Some(6), None) => self.six_to_four(storage, packet, offload, out),
            (Some(4), None) => self.four_to_six(storage, packet, offload, out),
            _ => self.drop(Refusal::NotIp.into()),
        }
    }

    /// Refuses a packet that was held: counts it, and answers its sender where an answer is due.
    pub fn refuse(
        &mut self,
        storage: &mut [u8],
        packet: Range<usize>,
        offload: &VirtioNetHdr,
        refusal: Refusal,
        out: &mut (impl Output + ?Sized),
    ) {
        self.scratch.segments = on_the_wire(storage, &packet, offload).0;
        if let Ok(checked) = Ipv6Packet::check_offloaded(storage, packet, offload) {
            self.answer_v6(checked, refusal.into(), out);
        }
        self.drop(refusal.into());
    }

    /// Sends the reply to an echo request of the router's own, if there is one.
    fn send_reply(&self, reply: Option<&[u8]>, out: &mut (impl Output + ?Sized)) -> Verdict {
        let Some(reply) = reply else {
            return self.drop(interproto::DropReason::BadIcmpChecksum.into());
        };
        if !out.send(reply) {
            return self.drop(Refusal::WriteFailed.into());
        }
        self.counters.echo_replies.add(1);
        Verdict::Answered
    }

    /// Makes and sends an ICMP error of the router's own, if its rate allows one. That is asked first: a flood must not cost more
    /// than its count.
    fn send_error<'p>(
        &mut self,
        bucket: fn(&mut Limiters) -> &mut TokenBucket,
        make: impl FnOnce(&Rules) -> Option<&'p [u8]>,
        out: &mut (impl Output + ?Sized),
    ) {
        if !bucket(self.limiters).take(self.now) {
            self.counters.icmp_errors_limited.add(1);
        } else if let Some(error) = make(self.rules)
            && self.send_own(error, out)
        {
            self.counters.icmp_errors.add(1);
        }
    }

    /// Sends a packet of the router's own that nobody else has counted, and counts it if it is lost. Whether it was taken.
    fn send_own(&self, frame: &[u8], out: &mut (impl Output + ?Sized)) -> bool {
        let taken = out.send(frame);
        if !taken {
            self.counters.own_lost.add(1);
        }
        taken
    }

    fn drop(&self, reason: DropReason) -> Verdict {
        self.counters.dropped_many(reason, self.scratch.segments);
        Verdict::Drop(reason)
    }
}

/// Counts a packet as received, and says how many it is on the wire.
#[inline]
fn received(counters: &Counters, storage: &mut [u8], packet: &Range<usize>, offload: &VirtioNetHdr) -> u64 {
    let (segments, bytes) = on_the_wire(storage, packet, offload);
    match storage.get(packet.start).map(|first| first >> 4) {
        Some(6) => counters.received_v6.count(segments, bytes),
        Some(4) => counters.received_v4.count(segments, bytes),
        _ => {}
    }
    segments
}

/// Counts a packet that was read and then lost with its worker.
pub fn lost(counters: &Counters, storage: &mut [u8], packet: &Range<usize>, offload: &VirtioNetHdr) {
    let segments = received(counters, storage, packet, offload);
    counters.dropped_many(Refusal::Superseded.into(), segments);
}

/// The same for one that was parked, and so has been counted as received.
pub fn parcel_lost(counters: &Counters, storage: &mut [u8], packet: &Range<usize>, offload: &VirtioNetHdr) {
    let (segments, _) = on_the_wire(storage, packet, offload);
    counters.dropped_many(Refusal::Superseded.into(), segments);
}

/// How many packets the one at hand is on the wire, and how many bytes those are, as they stand in IP headers. One that is not what the
/// kernel says counts as one.
fn on_the_wire(storage: &mut [u8], packet: &Range<usize>, offload: &VirtioNetHdr) -> (u64, u64) {
    let one = (1, packet.len());
    let (segments, bytes) = match storage.get(packet.start).map(|first| first >> 4) {
        _ if offload.gso_type == VirtioNetHdr::GSO_NONE => one,
        Some(6) => Ipv6Packet::check_offloaded(storage, packet.clone(), offload)
            .map_or(one, |checked| (checked.segments(), checked.wire_length())),
        _ => Ipv4Packet::check_offloaded(storage, packet.clone(), offload)
            .map_or(one, |checked| (checked.segments(), checked.wire_length())),
    };
    (segments as u64, bytes as u64)
}

/// What the state is told of a packet: its segments, their bytes, its TCP flags and the packet itself.
fn passing((segments, bytes): (usize, usize), flags: u8, packet: &[u8]) -> Passing<'_> {
    let signal = match flags {
        _ if flags & 0x04 != 0 => Signal::Rst,
        _ if flags & 0x02 != 0 => Signal::Syn,
        _ if flags & 0x01 != 0 => Signal::Fin,
        _ => Signal::None,
    };
    Passing { signal, segments: segments as u32, bytes: bytes as u32, packet }
}

/// The protocol, the source port and the destination port of a flow that can share an address. An echo's identifier is the port
/// of its host.
fn shared_flow(protocol: Protocol, ports: Ports, identifier_is_source: bool) -> Option<(Shared, u16, u16)> {
    match (protocol, ports) {
        (Protocol::Tcp, Ports::Pair { source, destination }) => Some((Shared::Tcp, source, destination)),
        (Protocol::Udp, Ports::Pair { source, destination }) => Some((Shared::Udp, source, destination)),
        (Protocol::Icmp, Ports::Identifier(number)) if identifier_is_source => {
            Some((Shared::Icmp, number, 0))
        }
        (Protocol::Icmp, Ports::Identifier(number)) => Some((Shared::Icmp, 0, number)),
        _ => None,
    }
}

/// The rewrite of a flow's ports.
fn rewritten(protocol: Shared, identifier: u16, source: u16, destination: u16) -> PortRewrite {
    match protocol {
        Shared::Icmp => PortRewrite::Identifier(identifier),
        Shared::Tcp | Shared::Udp => PortRewrite::Pair { source, destination },
    }
}

/// The reason that stands for a refusal of the engine, for a packet with this signal from the IPv4 side, if it is from there.
fn refusal(refused: Refused, from_v4: Option<Signal>) -> Refusal {
    match refused {
        Refused::NeedsBlock(_) => Refusal::PoolExhausted,
        Refused::NoSession => Refusal::NoSession,
        Refused::SessionQuota => Refusal::SessionQuota,
        Refused::RateQuota => Refusal::RateQuota,
        Refused::TableFull => Refusal::TableFull,
        Refused::Stored => Refusal::SynStored,
        // A SYN from outside is never answered before its time (RFC 5382 REQ-4).
        Refused::NoBinding | Refused::Filtered if from_v4 == Some(Signal::Syn) => Refusal::SynUnwanted,
        Refused::NoBinding => Refusal::NoBinding,
        Refused::Filtered => Refusal::Filtered,
    }
}

/// Hands on what a translation yields.
fn forward(
    mut packets: interproto::Packets<'_>,
    identifications: &mut Identifications,
    out: &mut (impl Output + ?Sized),
) -> Verdict {
    while let Some(frame) = packets.next_framed() {
        out.forward(frame, identifications);
    }
    Verdict::Forward
}

/// Whether an IPv4 address can be that of one host elsewhere: not "this network", loopback, multicast or reserved.
fn is_host_v4(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 127 | 224..)
}

#[cfg(test)]
mod tests;
