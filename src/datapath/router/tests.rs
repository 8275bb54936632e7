use std::sync::Arc;
use std::time::Duration;

use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, SlicedPacket, TransportSlice};
use fast_nat::nat64::NatConfig;
use fast_nat::{EamTable, LeaseKind, LeaseTable};
use interproto::{HEADROOM, Params};
use rfc6052::NonGlobal;

use super::*;
use crate::config::Sharing;
use crate::datapath::fragments::Limits;
use crate::datapath::{Eams, PoolRule};

mod offloads;
mod shared;

const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// All frames that were written, counted as a worker would.
struct Written<'c> {
    frames: Vec<Vec<u8>>,
    counters: &'c Counters,
    takes: bool,
}

impl Output for Written<'_> {
    fn forward(&mut self, frame: &[u8], _: &mut Identifications) {
        let header = VirtioNetHdr::from_bytes(*frame.first_chunk().unwrap());
        let length = frame.len() - VirtioNetHdr::LENGTH;
        self.counters.written(frame, (header.segments(length), header.wire_length(length)), self.takes);
        self.frames.push(frame.to_vec());
    }

    fn send(&mut self, frame: &[u8]) -> bool {
        self.frames.push(frame.to_vec());
        self.takes
    }
}

/// A router whose one host holds a lease, and whose rules a test may change.
struct Lab {
    tables: Tables,
    rules: Rules,
    counters: Counters,
    limiters: Limiters,
    identifications: Identifications,
    scratch: Scratch,
    /// Whether the device takes what is written.
    takes: bool,
}

impl Lab {
    fn new() -> Self {
        let leases = LeaseTable::new(16, Duration::from_secs(1));
        leases.insert(HOST, ADDRESS, LeaseKind::Dynamic, at(0)).unwrap();
        let rules = Rules {
            prefixes: vec!["64:ff9b:1::/96".parse().unwrap()],
            retired: Vec::new(),
            pools: vec![PoolRule {
                net: "203.0.113.0/24".parse().unwrap(),
                sharing: Sharing::Exclusive,
                draining: false,
                prefix: 0,
                hosts: None,
            }],
            has_leases: true,
            eam: Eams(Arc::new(EamTable::default())),
            answer_filtered: true,
            non_global: NonGlobal::Refuse,
            allow_from: None,
            deny_to: std::iter::empty::<ipnet::Ipv4Net>().collect(),
            icmp_source_v4: ROUTER_V4,
            icmp_source_v6: ROUTER_V6,
            router_pool: None,
            params: Params::default(),
            mss_clamp: None,
        };
        let tables = Tables {
            leases,
            nat: Nat64::new(NatConfig { max_sessions: 1000, max_bindings: 1000, ..NatConfig::default() })
                .unwrap(),
            fragments: Fragments::new(Limits::DEFAULT),
            secret: RandomState::new(),
        };
        Self {
            tables,
            rules,
            counters: Counters::default(),
            limiters: Limiters::new(1000, at(0)),
            identifications: Identifications::new(1),
            scratch: Scratch::default(),
            takes: true,
        }
    }

    fn peer(&self) -> Ipv6Addr {
        self.rules.prefix(0).embed(PEER)
    }

    fn process(&mut self, packet: &[u8], now: Timestamp) -> (Verdict, Vec<Vec<u8>>) {
        self.process_offloaded(packet, &VirtioNetHdr::default(), now)
    }

    fn process_offloaded(
        &mut self,
        packet: &[u8],
        offload: &VirtioNetHdr,
        now: Timestamp,
    ) -> (Verdict, Vec<Vec<u8>>) {
        self.with_router(packet, now, |router, storage, range, out| {
            router.process(storage, range, offload, out)
        })
    }

    fn process_again(&mut self, parcel: &Parcel, now: Timestamp) -> (Verdict, Vec<Vec<u8>>) {
        let Parcel { offload, ports, .. } = parcel;
        self.with_router(&parcel.packet, now, |router, storage, range, out| {
            router.process_again(storage, range, offload, *ports, out)
        })
    }

    fn sends_outputs(&mut self, now: Timestamp) -> Vec<Vec<u8>> {
        self.with_router(&[], now, |router, _, _, out| router.send_outputs(8, out)).1
    }

    fn with_router<T>(
        &mut self,
        packet: &[u8],
        now: Timestamp,
        work: impl FnOnce(&mut Router<'_>, &mut [u8], Range<usize>, &mut Written<'_>) -> T,
    ) -> (T, Vec<Vec<u8>>) {
        let mut storage = vec![0; HEADROOM + packet.len()];
        storage[HEADROOM..].copy_from_slice(packet);
        let mut out = Written { frames: Vec::new(), counters: &self.counters, takes: self.takes };
        let mut router = Router {
            tables: &self.tables,
            rules: &self.rules,
            counters: &self.counters,
            limiters: &mut self.limiters,
            identifications: &mut self.identifications,
            scratch: &mut self.scratch,
            now,
        };
        let range = HEADROOM..storage.len();
        let result = work(&mut router, &mut storage, range, &mut out);
        let packet = |frame: &Vec<u8>| frame[VirtioNetHdr::LENGTH..].to_vec();
        (result, out.frames.iter().map(packet).collect())
    }

    /// Asserts that the packet is dropped for this reason, counted under it, and answered as told.
    fn refuses(&mut self, packet: &[u8], reason: impl Into<DropReason>, answer: Option<(u8, u8)>) {
        let reason = reason.into();
        let before = self.counters.drops(reason);
        let (verdict, out) = self.process(packet, at(1));
        assert_eq!(verdict, Verdict::Drop(reason));
        assert_eq!(self.counters.drops(reason), before + 1);
        assert_eq!(out.first().map(|packet| icmp_type(packet)), answer, "{reason}");
    }
}

/// What a packet of a host without an address of its own waits for.
fn held(host: Ipv6Addr) -> Held {
    Held { ask: Ask { host, class: PortClass::High }, ports: None }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn built(builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>) -> Vec<u8> {
    let mut packet = Vec::new();
    builder.write(&mut packet, b"payload").unwrap();
    packet
}

/// Whether the checksum of a TCP segment is what it should be.
fn checksum_is_right(packet: &[u8]) -> bool {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { panic!("no TCP") };
    let (header, payload) = (tcp.to_header(), tcp.payload());
    let computed = match sliced.net.unwrap() {
        etherparse::NetSlice::Ipv4(ip) => {
            header.calc_checksum_ipv4(&ip.header().to_header(), payload).unwrap()
        }
        etherparse::NetSlice::Ipv6(ip) => {
            header.calc_checksum_ipv6(&ip.header().to_header(), payload).unwrap()
        }
        etherparse::NetSlice::Arp(_) => panic!("no IP"),
    };
    header.checksum == computed
}

fn udp_v6(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    built(PacketBuilder::ipv6(source.octets(), destination.octets(), 64).udp(1000, 2000))
}

fn udp_v4(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    built(PacketBuilder::ipv4(source.octets(), destination.octets(), 64).udp(2000, 1000))
}

fn error_v4(source: Ipv4Addr, destination: Ipv4Addr, about: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let unreachable = etherparse::icmpv4::DestUnreachableHeader::Host;
    PacketBuilder::ipv4(source.octets(), destination.octets(), 64)
        .icmpv4(Icmpv4Type::DestinationUnreachable(unreachable))
        .write(&mut packet, about)
        .unwrap();
    packet
}

fn error_v6(source: Ipv6Addr, destination: Ipv6Addr, about: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6(source.octets(), destination.octets(), 64)
        .icmpv6(Icmpv6Type::DestinationUnreachable(etherparse::icmpv6::DestUnreachableCode::Port))
        .write(&mut packet, about)
        .unwrap();
    packet
}

fn icmp_type(packet: &[u8]) -> (u8, u8) {
    match SlicedPacket::from_ip(packet).unwrap().transport.unwrap() {
        TransportSlice::Icmpv6(icmp) => (icmp.type_u8(), icmp.code_u8()),
        TransportSlice::Icmpv4(icmp) => (icmp.type_u8(), icmp.code_u8()),
        other => panic!("{other:?}"),
    }
}

fn addresses_v4(packet: &[u8]) -> (Ipv4Addr, Ipv4Addr) {
    let header = etherparse::Ipv4HeaderSlice::from_slice(packet).unwrap();
    (header.source_addr(), header.destination_addr())
}

fn addresses_v6(packet: &[u8]) -> (Ipv6Addr, Ipv6Addr) {
    let header = etherparse::Ipv6HeaderSlice::from_slice(packet).unwrap();
    (header.source_addr(), header.destination_addr())
}

#[test]
fn a_host_with_a_lease_talks_to_the_ipv4_side_and_is_answered() {
    let mut lab = Lab::new();
    let (verdict, out) = lab.process(&udp_v6(HOST, lab.peer()), at(1));
    assert_eq!(verdict, Verdict::Forward);
    assert_eq!(addresses_v4(&out[0]), (ADDRESS, PEER));
    let (verdict, out) = lab.process(&udp_v4(PEER, ADDRESS), at(1));
    assert_eq!(verdict, Verdict::Forward);
    assert_eq!(addresses_v6(&out[0]), (lab.peer(), HOST));
    assert_eq!(
        (lab.counters.forwarded_6to4.packets.get(), lab.counters.forwarded_4to6.packets.get()),
        (1, 1)
    );
}

#[test]
fn a_host_without_a_lease_is_held_and_an_address_without_one_is_unreachable() {
    let mut lab = Lab::new();
    let stranger = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 8);
    let (verdict, out) = lab.process(&udp_v6(stranger, lab.peer()), at(1));
    assert_eq!((verdict, out.len()), (Verdict::Hold(held(stranger)), 0));
    lab.refuses(&udp_v4(PEER, Ipv4Addr::new(203, 0, 113, 8)), Refusal::NoBinding, Some((3, 1)));
}

#[test]
fn only_outbound_packets_refresh_a_lease() {
    let mut lab = Lab::new();
    let last_seen = |lab: &Lab| lab.tables.leases.peek_host(HOST).unwrap().last_seen;
    lab.process(&udp_v4(PEER, ADDRESS), at(10_000));
    assert_eq!(last_seen(&lab), at(0), "RFC 4787 REQ-6: an outsider cannot pin a lease");
    let quoted = udp_v4(ADDRESS, PEER);
    lab.process(&error_v4(PEER, ADDRESS, &quoted), at(10_000));
    let quoted = udp_v6(lab.peer(), HOST);
    lab.process(&error_v6(HOST, lab.peer(), &quoted), at(10_000));
    assert_eq!(last_seen(&lab), at(0), "RFC 5508 REQ-6: an error refreshes nothing");
    lab.process(&udp_v6(HOST, lab.peer()), at(10_000));
    assert_eq!(last_seen(&lab), at(10_000));
}

#[test]
fn sources_that_can_hold_no_lease_are_dropped_in_silence() {
    let mut lab = Lab::new();
    for source in ["fe80::1", "::1", "::"] {
        lab.refuses(&udp_v6(source.parse().unwrap(), lab.peer()), Refusal::SourceNotEligible, None);
    }
    let inside: Ipv6Addr = "64:ff9b:1::192.0.2.1".parse().unwrap();
    lab.refuses(&udp_v6(inside, lab.peer()), Refusal::SourceInPrefix, None);
    lab.refuses(&udp_v6(HOST, "2001:db8::99".parse().unwrap()), Refusal::NotInPrefix, None);
    for source in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
        lab.refuses(&udp_v4(source.parse().unwrap(), ADDRESS), Refusal::SourceNotEligible, None);
    }
}

#[test]
fn who_may_not_use_the_router_and_what_may_not_be_reached_is_told_so() {
    let mut lab = Lab::new();
    lab.rules.allow_from = Some(["2001:db8:1::/64".parse::<ipnet::Ipv6Net>().unwrap()].into_iter().collect());
    lab.refuses(&udp_v6(HOST, lab.peer()), Refusal::SourceNotAllowed, Some((1, 1)));
    lab.rules.allow_from = None;
    lab.rules.deny_to = ["198.51.100.0/24".parse::<ipnet::Ipv4Net>().unwrap()].into_iter().collect();
    lab.refuses(&udp_v6(HOST, lab.peer()), Refusal::DestinationDenied, Some((1, 1)));
}

#[test]
fn the_well_known_prefix_refuses_non_global_addresses_both_ways_unless_told_otherwise() {
    let mut lab = Lab::new();
    lab.rules.prefixes = vec![rfc6052::Prefix::WELL_KNOWN];
    lab.refuses(&udp_v6(HOST, lab.peer()), Refusal::NonGlobal, Some((1, 1)));
    lab.refuses(&udp_v4(PEER, ADDRESS), Refusal::NonGlobal, None);
    lab.rules.non_global = NonGlobal::Allow;
    assert_eq!(lab.process(&udp_v6(HOST, lab.peer()), at(1)).0, Verdict::Forward);
    assert_eq!(lab.process(&udp_v4(PEER, ADDRESS), at(1)).0, Verdict::Forward);
}

#[test]
fn an_error_reaches_the_host_whose_packet_it_is_about_whatever_its_own_source() {
    let mut lab = Lab::new();
    lab.rules.prefixes = vec![rfc6052::Prefix::WELL_KNOWN];
    // A router with a private address on the way: traceroute must see it (RFC 7915 §4.1).
    let private = Ipv4Addr::new(10, 0, 0, 1);
    let (verdict, out) = lab.process(&error_v4(private, ADDRESS, &udp_v4(ADDRESS, PEER)), at(1));
    assert_eq!(verdict, Verdict::Forward);
    assert_eq!(addresses_v6(&out[0]), (lab.rules.prefix(0).embed(private), HOST));
    assert_eq!(addresses_v6(&out[0][48..]), (HOST, lab.peer()), "the packet inside, the right way round");
}

#[test]
fn an_error_about_a_packet_that_nobody_here_sent_is_dropped() {
    let mut lab = Lab::new();
    let forged = udp_v4(Ipv4Addr::new(203, 0, 113, 9), PEER);
    lab.refuses(&error_v4(PEER, ADDRESS, &forged), Refusal::UnrelatedError, None);
    let forged = udp_v6(lab.peer(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9));
    lab.refuses(&error_v6(HOST, lab.peer(), &forged), Refusal::UnrelatedError, None);
}

#[test]
fn an_error_from_a_router_without_a_lease_leaves_with_the_hosts_address_and_takes_no_lease() {
    let mut lab = Lab::new();
    let router = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1);
    let (verdict, out) = lab.process(&error_v6(router, lab.peer(), &udp_v6(lab.peer(), HOST)), at(1));
    assert_eq!(verdict, Verdict::Forward);
    assert_eq!(addresses_v4(&out[0]), (ADDRESS, PEER));
    assert_eq!(addresses_v4(&out[0][28..]), (PEER, ADDRESS));
    assert_eq!(lab.tables.leases.len(), 1);
}

#[test]
fn an_error_from_a_router_without_a_lease_leaves_with_an_address_of_the_pool_for_such_routers() {
    let mut lab = Lab::new();
    let pool = super::super::RouterPool::new("192.0.2.0/24".parse().unwrap());
    lab.rules.router_pool = Some(pool);
    let router = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1);
    let about = udp_v6(lab.peer(), HOST);
    let (_, out) = lab.process(&error_v6(router, lab.peer(), &about), at(1));
    assert_eq!(addresses_v4(&out[0]), (pool.stand_in(router), PEER));
    assert_eq!(addresses_v4(&out[0][28..]), (PEER, ADDRESS), "the packet inside is the host's");
    assert_eq!(lab.tables.leases.len(), 1, "no lease is taken");
    // The host itself, and a router that has an address, answer with their own.
    let (_, out) = lab.process(&error_v6(HOST, lab.peer(), &about), at(1));
    assert_eq!(addresses_v4(&out[0]), (ADDRESS, PEER));
    let own = Ipv4Addr::new(203, 0, 113, 77);
    lab.tables.leases.insert(router, own, LeaseKind::Dynamic, at(0)).unwrap();
    let (_, out) = lab.process(&error_v6(router, lab.peer(), &about), at(1));
    assert_eq!(addresses_v4(&out[0]), (own, PEER));
}

/// What the form of a packet decides costs no address: neither a lease nor a place among those that wait for one.
#[test]
fn a_packet_that_will_be_refused_takes_no_lease_and_its_sender_is_told() {
    let mut lab = Lab::new();
    let stranger = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 99);
    let whole = udp_v6(stranger, lab.peer());
    assert_eq!(lab.process(&whole, at(1)).0, Verdict::Hold(held(stranger)));
    let mut expired = whole.clone();
    expired[7] = 1;
    lab.refuses(&expired, interproto::DropReason::HopLimitExceeded, Some((3, 0)));
    // The first fragment of an echo request waits for the others, which takes no lease either.
    let mut fragment = [&whole[..40], &[58, 0, 0, 1, 0, 0, 0, 7, 128, 0, 1, 2, 0, 7, 0, 1]].concat();
    (fragment[4], fragment[5], fragment[6]) = (0, 16, 44);
    assert_eq!(lab.process(&fragment, at(1)).0, Verdict::Parked);
    let mut forbidden = whole;
    forbidden[6] = 1;
    lab.refuses(&forbidden, interproto::DropReason::ForbiddenProtocol, Some((1, 1)));
}

#[test]
fn an_operator_who_wants_no_errors_gets_none() {
    let mut lab = Lab::new();
    lab.limiters = Limiters::new(0, at(0));
    let (verdict, out) = lab.process(&udp_v4(PEER, Ipv4Addr::new(203, 0, 113, 8)), at(60_000));
    assert_eq!((verdict, out.len()), (Verdict::Drop(Refusal::NoBinding.into()), 0));
    assert_eq!(lab.counters.icmp_errors_limited.get(), 1);
}

#[test]
fn a_hop_limit_that_runs_out_is_answered_from_the_routers_own_address() {
    let mut lab = Lab::new();
    let mut packet = udp_v6(HOST, lab.peer());
    packet[7] = 1;
    let (verdict, out) = lab.process(&packet, at(1));
    assert_eq!(verdict, Verdict::Drop(interproto::DropReason::HopLimitExceeded.into()));
    assert_eq!(icmp_type(&out[0]), (3, 0));
    assert_eq!(addresses_v6(&out[0]), (ROUTER_V6, HOST));
}

#[test]
fn errors_of_the_routers_own_are_limited_and_what_was_held_back_is_counted() {
    let mut lab = Lab::new();
    let packet = udp_v4(PEER, Ipv4Addr::new(203, 0, 113, 8));
    let answers: usize = (0..1000).map(|_| lab.process(&packet, at(1)).1.len()).sum();
    assert_eq!(answers as u64, lab.counters.icmp_errors.get());
    assert_eq!(answers, 200, "a fifth of a second's");
    assert_eq!(lab.counters.icmp_errors_limited.get(), 1000 - answers as u64);
}

#[test]
fn the_kernels_own_multicast_is_counted_apart_and_is_no_drop() {
    let mut lab = Lab::new();
    let (verdict, out) = lab.process(&udp_v6("fe80::1".parse().unwrap(), "ff02::2".parse().unwrap()), at(1));
    assert_eq!((verdict, out.len()), (Verdict::Ignore, 0));
    assert_eq!(lab.counters.kernel_chatter.get(), 1);
}

#[test]
fn what_is_neither_ipv4_nor_ipv6_is_dropped_by_name() {
    let mut lab = Lab::new();
    lab.refuses(&[0x50; 40], Refusal::NotIp, None);
    lab.refuses(&[], Refusal::NotIp, None);
}

#[test]
fn a_write_that_fails_is_counted_as_a_loss() {
    let mut lab = Lab { takes: false, ..Lab::new() };
    lab.process(&udp_v6(HOST, lab.peer()), at(1));
    assert_eq!(lab.counters.drops(Refusal::WriteFailed.into()), 1);
    assert_eq!(lab.counters.forwarded_6to4.packets.get(), 0);
}

#[test]
fn an_error_of_the_routers_own_that_is_lost_is_counted_as_lost_and_not_as_sent() {
    let mut lab = Lab { takes: false, ..Lab::new() };
    lab.limiters = Limiters::new(1, at(0));
    let own = |lab: &Lab| {
        let all = &lab.counters;
        (all.icmp_errors.get(), all.own_lost.get(), all.icmp_errors_limited.get())
    };
    // One each way, and then no more for a second.
    let unreachable = Ipv4Addr::new(203, 0, 113, 99);
    lab.refuses(&udp_v4(PEER, unreachable), Refusal::NoBinding, Some((3, 1)));
    assert_eq!(own(&lab), (0, 1, 0));
    lab.refuses(&udp_v4(PEER, unreachable), Refusal::NoBinding, None);
    assert_eq!(own(&lab), (0, 1, 1));
    let looped = lab.rules.prefix(0).embed(Ipv4Addr::new(10, 0, 0, 1));
    lab.rules.deny_to = std::iter::once("10.0.0.0/8".parse::<ipnet::Ipv4Net>().unwrap()).collect();
    lab.refuses(&udp_v6(HOST, looped), Refusal::DestinationDenied, Some((1, 1)));
    assert_eq!(own(&lab), (0, 2, 1));
    lab.takes = true;
    lab.limiters = Limiters::new(1, at(0));
    lab.refuses(&udp_v4(PEER, unreachable), Refusal::NoBinding, Some((3, 1)));
    assert_eq!(own(&lab), (1, 2, 1));
}
