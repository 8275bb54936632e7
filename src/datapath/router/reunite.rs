//! Fragments on their way to the others of their datagram.

use std::net::{Ipv4Addr, Ipv6Addr};

use interproto::{FragmentPart, Ports, Protocol, Tuple, VirtioNetHdr, ZeroChecksum};

use super::{Parcel, Refusal, Router, Verdict};
use crate::datapath::fragments::{Key, Lost, Taken, Whole};

/// What became of a fragment.
#[derive(Debug)]
pub(super) enum Reunited {
    /// It can be translated now, and these are its ports.
    Now(Ports),
    /// It was the last of its datagram, which can only be translated whole.
    Whole(Whole),
    /// It goes no further now.
    Not(Verdict),
}

impl Router<'_> {
    /// Takes an IPv6 fragment. `needs_ports`: its host shares its address, so that only its ports say what it belongs to.
    pub(super) fn reunite_v6(
        &mut self,
        storage: &[u8],
        tuple: &Tuple<Ipv6Addr>,
        part: &FragmentPart,
        needs_ports: bool,
    ) -> Reunited {
        let whole = tuple.protocol == Protocol::Icmp;
        if !whole && !needs_ports {
            return Reunited::Now(tuple.ports);
        }
        self.reunite(&Key::v6(tuple, part), part, (!whole).then_some(tuple.ports), storage)
    }

    /// Takes an IPv4 fragment.
    pub(super) fn reunite_v4(
        &mut self,
        storage: &[u8],
        tuple: &Tuple<Ipv4Addr>,
        part: &FragmentPart,
        needs_ports: bool,
    ) -> Reunited {
        // The first fragment of UDP without a checksum: that of the whole datagram can be computed (RFC 7915 §4.5). Only where
        // the fragments have to meet here anyhow: who has an address for itself is translated without any memory.
        let checksum = storage.get(part.payload.start + 6..part.payload.start + 8);
        let without_checksum = needs_ports
            && tuple.protocol == Protocol::Udp
            && self.rules.params.udp_zero_checksum == ZeroChecksum::Compute
            && part.offset == 0
            && checksum == Some(&[0, 0]);
        let whole = tuple.protocol == Protocol::Icmp || without_checksum;
        if !whole && !needs_ports {
            return Reunited::Now(tuple.ports);
        }
        self.reunite(&Key::v4(tuple, part), part, (!whole).then_some(tuple.ports), storage)
    }

    /// `ports`: those of this fragment, or `None`: the whole datagram is needed.
    fn reunite(&mut self, key: &Key, part: &FragmentPart, ports: Option<Ports>, storage: &[u8]) -> Reunited {
        let (taken, lost) = self.tables.fragments.take(key, part, ports, storage, self.now);
        self.count_lost(lost);
        match taken {
            Taken::Now(ports) => Reunited::Now(ports),
            Taken::Release { ports, parked } => {
                let parcel = |packet| Parcel { packet, offload: VirtioNetHdr::default(), ports: Some(ports) };
                self.scratch.released.extend(parked.into_iter().map(parcel));
                Reunited::Now(ports)
            }
            Taken::Whole(whole) => {
                self.counters.reassembled.add(1);
                Reunited::Whole(whole)
            }
            Taken::Parked => {
                self.counters.fragments_parked.add(1);
                Reunited::Not(Verdict::Parked)
            }
            Taken::Refused { reason, packets } => {
                let reason = Refusal::from(reason).into();
                self.counters.dropped_many(reason, packets as u64);
                Reunited::Not(Verdict::Drop(reason))
            }
        }
    }

    /// Counts the fragments whose time is over.
    pub fn expire_fragments(&self) {
        if let Some(lost) = self.tables.fragments.expire(self.now) {
            self.count_lost(lost);
        }
    }

    fn count_lost(&self, lost: Lost) {
        for (reason, packets) in [
            (Refusal::FragmentTimeout, lost.timed_out),
            (Refusal::FragmentBufferFull, lost.buffer_full),
            (Refusal::FragmentSourceShare, lost.source_share),
        ] {
            self.counters.dropped_many(reason.into(), packets);
        }
    }
}
