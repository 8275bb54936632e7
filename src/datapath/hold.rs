//! Where the first packets of new hosts wait for a lease.
//!
//! No worker ever blocks on an actor: it parks the packet here, asks `pool` once, and goes on. Pure: `now` and events
//! in, what to do out.
//!
//! Bounds: `hosts` hosts, `packets_per_host` packets each (256 x 4 by default), and [`MAX_BYTES`] for all packets of a worker. As
//! many refused hosts are remembered, at 40 bytes each.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use fast_nat::Timestamp;

use interproto::VirtioNetHdr;

use super::{Ask, Held, Parcel, Refusal};

/// The packets that wait in one worker take no more than this, in bytes: super-packets are up to 64 KiB long.
pub const MAX_BYTES: usize = 8 << 20;

/// How many first packets wait, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Packets of one host.
    pub packets_per_host: usize,
    /// Hosts at a time.
    pub hosts: usize,
    /// How long a packet waits before it is refused.
    pub timeout: Duration,
    /// After how long an unanswered request is repeated: `pool` may have been restarting.
    pub ask_again: Duration,
    /// How long a refusal is remembered, so that a refused host's packets do not become messages.
    pub remember_refusal: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packets_per_host: 4,
            hosts: 256,
            timeout: Duration::from_secs(5),
            ask_again: Duration::from_millis(100),
            remember_refusal: Duration::from_secs(1),
        }
    }
}

/// What became of a packet that was to be parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parked {
    /// It waits, and it is the first of its host: ask for a lease.
    AskFor(Ask),
    /// It waits behind others of its host.
    Waits,
    /// It does not wait.
    Refused(Refusal),
}

/// What time has brought about.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Hosts to ask for again.
    pub ask: Vec<Ask>,
    /// Packets whose wait is over.
    pub timed_out: Vec<Parcel>,
}

#[derive(Debug)]
struct Waiting {
    since: Timestamp,
    asked: Timestamp,
    packets: Vec<Parcel>,
}

/// The packets that wait in one worker.
#[derive(Debug)]
pub struct Hold {
    limits: Limits,
    waiting: HashMap<Ask, Waiting>,
    /// What all that waits takes.
    bytes: usize,
    refused: HashMap<Ask, (Timestamp, Refusal)>,
    /// Refusals in the order in which they are forgotten.
    forget: VecDeque<(Timestamp, Ask)>,
}

impl Hold {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        Self { limits, waiting: HashMap::new(), bytes: 0, refused: HashMap::new(), forget: VecDeque::new() }
    }

    /// Other limits from now on. What waits already waits on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Parks the packet of a host without a lease or a port, of which the kernel said `offload`.
    pub fn park(&mut self, held: Held, packet: &[u8], offload: VirtioNetHdr, now: Timestamp) -> Parked {
        let Held { ask: host, ports } = held;
        let parcel = || Parcel { packet: packet.into(), offload, ports };
        self.forget_refusals(now);
        if let Some((_, refusal)) = self.refused.get(&host) {
            return Parked::Refused(*refusal);
        }
        if self.bytes + packet.len() > MAX_BYTES {
            return Parked::Refused(Refusal::HoldFull);
        }
        if let Some(waiting) = self.waiting.get_mut(&host) {
            if waiting.packets.len() >= self.limits.packets_per_host {
                return Parked::Refused(Refusal::HoldFull);
            }
            waiting.packets.push(parcel());
            self.bytes += packet.len();
            return Parked::Waits;
        }
        if self.waiting.len() >= self.limits.hosts || self.limits.packets_per_host == 0 {
            return Parked::Refused(Refusal::HoldFull);
        }
        self.bytes += packet.len();
        self.waiting.insert(host, Waiting { since: now, asked: now, packets: vec![parcel()] });
        Parked::AskFor(host)
    }

    /// The host has a lease: its packets, in their order.
    pub fn granted(&mut self, host: Ask) -> Vec<Parcel> {
        let packets = self.waiting.remove(&host).map(|waiting| waiting.packets).unwrap_or_default();
        self.bytes -= length_of(&packets);
        packets
    }

    /// All packets that wait, since nobody will route them any more.
    pub fn give_up(&mut self) -> Vec<Parcel> {
        self.bytes = 0;
        self.waiting.drain().flat_map(|(_, waiting)| waiting.packets).collect()
    }

    /// The host gets no lease: its packets, to be refused, and the refusal is remembered for a while.
    pub fn refused(&mut self, host: Ask, refusal: Refusal, now: Timestamp) -> Vec<Parcel> {
        self.forget_refusals(now);
        if self.forget.len() >= self.limits.hosts
            && let Some((_, oldest)) = self.forget.pop_front()
        {
            self.refused.remove(&oldest);
        }
        let until = now + self.limits.remember_refusal;
        if self.refused.insert(host, (until, refusal)).is_none() {
            self.forget.push_back((until, host));
        }
        self.granted(host)
    }

    /// What is due at `now`.
    pub fn due(&mut self, now: Timestamp) -> Due {
        let mut due = Due::default();
        let limits = self.limits;
        self.waiting.retain(|host, waiting| {
            if waiting.since + limits.timeout <= now {
                due.timed_out.append(&mut waiting.packets);
                return false;
            }
            if waiting.asked + limits.ask_again <= now {
                waiting.asked = now;
                due.ask.push(*host);
            }
            true
        });
        self.bytes -= length_of(&due.timed_out);
        due
    }

    /// After how long [`Self::due`] wants to be called again; `None` while nothing waits.
    pub fn wake_after(&self) -> Option<Duration> {
        (!self.waiting.is_empty()).then_some(self.limits.ask_again)
    }

    fn forget_refusals(&mut self, now: Timestamp) {
        while let Some((until, host)) = self.forget.front().copied()
            && until <= now
        {
            self.forget.pop_front();
            self.refused.remove(&host);
        }
    }
}

fn length_of(packets: &[Parcel]) -> usize {
    packets.iter().map(|parcel| parcel.packet.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: VirtioNetHdr = VirtioNetHdr {
        flags: 0,
        gso_type: VirtioNetHdr::GSO_NONE,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
    };

    fn host(n: u16) -> Ask {
        let host = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n);
        Ask { host, class: fast_nat::nat64::PortClass::High }
    }

    fn held(n: u16) -> Held {
        Held { ask: host(n), ports: None }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_host_is_asked_for_once_and_its_packets_keep_their_order() {
        let mut hold = Hold::new(Limits::default());
        assert_eq!(hold.park(held(1), b"a", WHOLE, at(0)), Parked::AskFor(host(1)));
        assert_eq!(hold.park(held(1), b"b", WHOLE, at(1)), Parked::Waits);
        let packets = hold.granted(host(1));
        assert_eq!(packets.iter().map(|parcel| &parcel.packet[..]).collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(hold.wake_after(), None);
        assert!(hold.granted(host(1)).is_empty(), "a repeated answer finds nothing");
    }

    #[test]
    fn more_packets_or_hosts_than_the_bounds_are_refused_by_name() {
        let mut hold = Hold::new(Limits { packets_per_host: 1, hosts: 1, ..Limits::default() });
        assert_eq!(hold.park(held(1), b"a", WHOLE, at(0)), Parked::AskFor(host(1)));
        assert_eq!(hold.park(held(1), b"b", WHOLE, at(0)), Parked::Refused(Refusal::HoldFull));
        assert_eq!(hold.park(held(2), b"c", WHOLE, at(0)), Parked::Refused(Refusal::HoldFull));
    }

    #[test]
    fn super_packets_fill_no_more_memory_than_the_bound_and_give_it_back() {
        let mut hold = Hold::new(Limits::default());
        let long = vec![0; 65_535];
        let said = VirtioNetHdr { gso_type: VirtioNetHdr::GSO_UDP_L4, gso_size: 1000, ..WHOLE };
        let fill = |hold: &mut Hold, now| {
            let parks = |n: &u16| hold.park(held(*n), &long, said, now) == Parked::AskFor(host(*n));
            (1..=200).filter(parks).count()
        };
        let most = MAX_BYTES / long.len();
        assert_eq!(fill(&mut hold, at(0)), most);
        assert_eq!(hold.park(held(1), &long, said, at(0)), Parked::Refused(Refusal::HoldFull));
        assert_eq!(hold.granted(host(1))[0].offload, said, "it is still a super-packet");
        assert_eq!(hold.refused(host(2), Refusal::PoolExhausted, at(0)).len(), 1);
        assert_eq!(hold.due(at(5000)).timed_out.len(), most - 2);
        assert_eq!(fill(&mut hold, at(10_000)), most, "all of it was given back");
        assert_eq!((hold.give_up().len(), hold.wake_after()), (most, None));
        assert_eq!(fill(&mut hold, at(10_000)), most, "all of it was given back again");
    }

    #[test]
    fn an_unanswered_request_is_repeated_and_then_times_out() {
        let mut hold = Hold::new(Limits::default());
        hold.park(held(1), b"a", WHOLE, at(0));
        assert_eq!(hold.due(at(99)), Due::default());
        assert_eq!(hold.due(at(100)).ask, [host(1)]);
        assert_eq!(hold.due(at(150)), Due::default());
        let due = hold.due(at(5000));
        assert_eq!((due.ask.len(), due.timed_out.len()), (0, 1));
        assert_eq!(
            hold.park(held(1), b"a", WHOLE, at(5001)),
            Parked::AskFor(host(1)),
            "a timeout is not a refusal"
        );
    }

    #[test]
    fn a_refused_host_is_not_asked_for_again_before_the_refusal_is_forgotten() {
        let mut hold = Hold::new(Limits::default());
        hold.park(held(1), b"a", WHOLE, at(0));
        assert_eq!(hold.refused(host(1), Refusal::PoolExhausted, at(10)).len(), 1);
        assert_eq!(hold.park(held(1), b"b", WHOLE, at(500)), Parked::Refused(Refusal::PoolExhausted));
        assert_eq!(hold.park(held(1), b"c", WHOLE, at(1010)), Parked::AskFor(host(1)));
    }

    #[test]
    fn the_memory_of_refusals_is_bounded_and_the_oldest_goes_first() {
        let mut hold = Hold::new(Limits { hosts: 2, ..Limits::default() });
        for n in 1..=3 {
            hold.refused(host(n), Refusal::PoolExhausted, at(u64::from(n)));
        }
        assert_eq!(hold.park(held(1), b"a", WHOLE, at(4)), Parked::AskFor(host(1)));
        assert_eq!(hold.park(held(3), b"a", WHOLE, at(4)), Parked::Refused(Refusal::PoolExhausted));
    }
}
