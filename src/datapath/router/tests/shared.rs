//! Hosts that share an address by ports.

use fast_nat::nat64::{Block, SessionState};

use super::*;

/// The one address that is shared.
const SHARED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
/// A remote that the hosts talk to.
const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
const OTHER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 8);

/// A router whose hosts share one address, and two of which have a block of its ports.
pub(super) fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.rules.has_leases = false;
    lab.rules.pools = vec![PoolRule {
        net: SHARED.into(),
        sharing: Sharing::Ports,
        draining: false,
        prefix: 0,
        hosts: None,
    }];
    lab.rules.icmp_source_v4 = SHARED;
    for (host, first_port) in [(HOST, 1024), (OTHER, 2048)] {
        let block = Block { address: SHARED, first_port, size: 64, reserved: vec![] };
        lab.tables.nat.give_block(host, &block, at(1)).unwrap();
    }
    lab
}

pub(super) fn remote() -> Ipv6Addr {
    prefix().embed(REMOTE)
}

fn prefix() -> rfc6052::Prefix {
    "64:ff9b:1::/96".parse().unwrap()
}

fn tcp_v6(
    source: Ipv6Addr,
    port: u16,
    flags: impl Fn(etherparse::TcpHeader) -> etherparse::TcpHeader,
) -> Vec<u8> {
    let tcp = flags(etherparse::TcpHeader::new(port, 443, 1, 1000));
    let mut packet = Vec::new();
    PacketBuilder::ipv6(source.octets(), remote().octets(), 64)
        .tcp_header(tcp)
        .write(&mut packet, b"")
        .unwrap();
    packet
}

fn tcp_v4(port: u16, flags: impl Fn(etherparse::TcpHeader) -> etherparse::TcpHeader) -> Vec<u8> {
    let tcp = flags(etherparse::TcpHeader::new(443, port, 1, 1000));
    let mut packet = Vec::new();
    PacketBuilder::ipv4(REMOTE.octets(), SHARED.octets(), 64)
        .tcp_header(tcp)
        .write(&mut packet, b"")
        .unwrap();
    packet
}

fn syn(mut tcp: etherparse::TcpHeader) -> etherparse::TcpHeader {
    tcp.syn = true;
    tcp
}

fn ack(mut tcp: etherparse::TcpHeader) -> etherparse::TcpHeader {
    tcp.ack = true;
    tcp
}

/// Source and destination port of a packet.
fn ports(packet: &[u8]) -> (u16, u16) {
    match SlicedPacket::from_ip(packet).unwrap().transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        other => panic!("no ports: {other:?}"),
    }
}

impl Lab {
    /// What one packet is translated to.
    fn translates(&mut self, packet: &[u8]) -> Vec<u8> {
        let (verdict, out) = self.process(packet, at(2));
        assert_eq!((verdict, out.len()), (Verdict::Forward, 1));
        out.into_iter().next().unwrap()
    }
}

#[test]
fn a_connection_gets_a_port_of_its_hosts_block_and_its_answers_come_back() {
    let mut lab = lab();
    let out = lab.translates(&tcp_v6(HOST, 40_000, syn));
    let (port, remote_port) = ports(&out);
    assert!((1024..1088).contains(&port) && remote_port == 443, "{port}");
    assert_eq!(addresses_v4(&out), (SHARED, REMOTE));
    assert!(checksum_is_right(&out));
    let back = lab.translates(&tcp_v4(port, |tcp| ack(syn(tcp))));
    assert_eq!((addresses_v6(&back), ports(&back)), ((remote(), HOST), (443, 40_000)));
    assert!(checksum_is_right(&back));
    let session = lab.tables.nat.sessions().next().unwrap();
    assert_eq!((session.state, session.packets), (SessionState::Established, [1, 1]));
    assert_eq!(lab.counters.sessions_begun.get(), 1);
}

#[test]
fn two_hosts_with_the_same_port_leave_with_two() {
    let mut lab = lab();
    let first = ports(&lab.translates(&tcp_v6(HOST, 40_000, syn))).0;
    let second = ports(&lab.translates(&tcp_v6(OTHER, 40_000, syn))).0;
    assert_ne!(first, second);
}

#[test]
fn a_host_without_ports_waits_for_a_block_and_one_that_will_be_refused_does_not() {
    let mut lab = lab();
    let stranger = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 99);
    assert_eq!(lab.process(&tcp_v6(stranger, 1, syn), at(2)).0, Verdict::Hold(held(stranger)));
    lab.refuses(&tcp_v6(stranger, 1, ack), Refusal::NoSession, None);
    let mut last_hop = tcp_v6(HOST, 40_000, syn);
    last_hop[7] = 1;
    lab.refuses(&last_hop, interproto::DropReason::HopLimitExceeded, Some((3, 0)));
    assert_eq!(lab.tables.nat.usage().bindings, 0, "nothing begins with a packet that is refused");
}

#[test]
fn what_nobody_here_has_asked_for_is_told_so_but_a_connection_attempt_is_not_before_its_time() {
    let mut lab = lab();
    let datagram = built(PacketBuilder::ipv4(REMOTE.octets(), SHARED.octets(), 64).udp(53, 1030));
    lab.refuses(&datagram, Refusal::NoBinding, Some((3, 1)));
    lab.refuses(&tcp_v4(1030, syn), Refusal::SynStored, None);
    lab.refuses(&tcp_v4(1030, ack), Refusal::NoSession, None);
    // Six seconds later its sender is told that the port is unreachable.
    while lab.tables.nat.expire(at(10_000), 256) {}
    let out = lab.sends_outputs(at(10_000));
    assert_eq!((out.len(), icmp_type(&out[0])), (1, (3, 3)));
    assert_eq!(addresses_v4(&out[0]), (SHARED, REMOTE));
}

/// A router with a connection of [`HOST`] to [`remote`].
pub(super) fn established() -> Lab {
    let mut lab = lab();
    let port = ports(&lab.translates(&tcp_v6(HOST, 40_000, syn))).0;
    lab.translates(&tcp_v4(port, |tcp| ack(syn(tcp))));
    lab
}

/// More than two hours and four minutes, after which nothing is known of a connection.
const LATER: Timestamp = Timestamp::from_millis(2 * 3600 * 1000 + 5 * 60 * 1000);

/// A router with a connection that has been silent until [`LATER`].
fn silent() -> Lab {
    let lab = established();
    while lab.tables.nat.expire(LATER, 256) {}
    lab
}

#[test]
fn a_silent_connection_is_asked_about_with_a_segment_that_its_host_will_not_accept() {
    let mut lab = silent();
    let out = lab.sends_outputs(LATER);
    assert_eq!(out.len(), 1);
    assert_eq!((addresses_v6(&out[0]), ports(&out[0])), ((remote(), HOST), (443, 40_000)));
    let sliced = SlicedPacket::from_ip(&out[0]).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { panic!("no TCP") };
    assert!(tcp.ack() && !tcp.syn() && !tcp.fin() && !tcp.rst() && tcp.payload().is_empty());
    assert!(checksum_is_right(&out[0]));
    assert_eq!((lab.counters.probes.get(), lab.counters.own_lost.get()), (1, 0));
}

#[test]
fn a_question_that_the_device_does_not_take_is_counted_as_lost() {
    let mut lab = Lab { takes: false, ..silent() };
    assert_eq!(lab.sends_outputs(LATER).len(), 1);
    assert_eq!((lab.counters.probes.get(), lab.counters.own_lost.get()), (0, 1));
}

#[test]
fn an_error_about_a_shared_flow_reaches_its_host_with_the_hosts_port_inside() {
    let mut lab = lab();
    let out = lab.translates(&tcp_v6(HOST, 40_000, syn));
    let router = Ipv4Addr::new(10, 0, 0, 1);
    let error = lab.translates(&error_v4(router, SHARED, &out));
    assert_eq!(addresses_v6(&error), (prefix().embed(router), HOST));
    let inside = &error[48..];
    assert_eq!((addresses_v6(inside), ports(inside)), ((HOST, remote()), (40_000, 443)));
    // Of another port nobody knows anything.
    let mut other = out.clone();
    other[20..22].copy_from_slice(&1087_u16.to_be_bytes());
    lab.refuses(&error_v4(router, SHARED, &other), Refusal::UnrelatedError, None);
    // And the other way round.
    let port = ports(&out).0;
    let back = lab.translates(&tcp_v4(port, |tcp| ack(syn(tcp))));
    let error = lab.translates(&error_v6(HOST, remote(), &back));
    let inside = &error[28..];
    assert_eq!(addresses_v4(&error), (SHARED, REMOTE));
    assert_eq!((addresses_v4(inside), ports(inside)), ((REMOTE, SHARED), (443, port)));
}

#[test]
fn the_router_answers_echo_requests_to_its_addresses_from_both_sides() {
    let mut lab = lab();
    let mut packet = Vec::new();
    PacketBuilder::ipv4(REMOTE.octets(), SHARED.octets(), 64)
        .icmpv4_echo_request(7, 8)
        .write(&mut packet, b"payload")
        .unwrap();
    let (verdict, out) = lab.process(&packet, at(2));
    assert_eq!(
        (verdict, icmp_type(&out[0]), addresses_v4(&out[0])),
        (Verdict::Answered, (0, 0), (SHARED, REMOTE))
    );
    let mut packet = Vec::new();
    PacketBuilder::ipv6(HOST.octets(), prefix().embed(SHARED).octets(), 64)
        .icmpv6_echo_request(7, 8)
        .write(&mut packet, b"payload")
        .unwrap();
    let (verdict, out) = lab.process(&packet, at(2));
    let from_to = (prefix().embed(SHARED), HOST);
    assert_eq!((verdict, icmp_type(&out[0]), addresses_v6(&out[0])), (Verdict::Answered, (129, 0), from_to));
    assert_eq!((lab.counters.echo_replies.get(), lab.tables.nat.usage().bindings), (2, 0));
}

#[test]
fn a_protocol_without_ports_is_refused_where_addresses_are_shared() {
    let mut lab = lab();
    let mut packet = udp_v6(HOST, remote());
    packet[6] = 132;
    lab.refuses(&packet, Refusal::ProtocolNotShared, Some((1, 1)));
}

#[test]
fn each_prefix_is_a_nat64_of_its_own_and_an_address_of_ones_own_serves_one_of_them() {
    let mut lab = lab();
    let second: rfc6052::Prefix = "2001:db8:64::/96".parse().unwrap();
    lab.rules.prefixes.push(second);
    let to = |prefix: rfc6052::Prefix| {
        built(PacketBuilder::ipv6(HOST.octets(), prefix.embed(REMOTE).octets(), 64).udp(5000, 53))
    };
    let [first_port, second_port] = [prefix(), second].map(|prefix| ports(&lab.translates(&to(prefix))).0);
    assert_ne!(first_port, second_port);
    for (port, prefix) in [(first_port, prefix()), (second_port, second)] {
        let answer = built(PacketBuilder::ipv4(REMOTE.octets(), SHARED.octets(), 64).udp(53, port));
        assert_eq!(addresses_v6(&lab.translates(&answer)), (prefix.embed(REMOTE), HOST));
    }
    let mut lab = Lab::new();
    lab.rules.prefixes.push(second);
    assert_eq!(lab.process(&to(prefix()), at(2)).0, Verdict::Forward);
    lab.refuses(&to(second), Refusal::PrefixNotServed, Some((1, 1)));
    lab.rules.pools[0].prefix = 1;
    assert_eq!(lab.process(&to(second), at(2)).0, Verdict::Forward);
}

#[test]
fn an_explicit_mapping_carries_every_protocol_both_ways_and_hosts_with_one_reach_each_other() {
    let mut lab = lab();
    let eam =
        |ipv4: &str, ipv6: &str| fast_nat::Eam::new(ipv4.parse().unwrap(), ipv6.parse().unwrap()).unwrap();
    // The second one lies in the first, and wins.
    let eams = vec![eam("192.0.2.0/28", "2001:db8:aa::/124"), eam("192.0.2.5/32", "2001:db8:bb::5/128")];
    lab.rules.eam = Eams(Arc::new(EamTable::new(eams).unwrap()));
    let [inside, other]: [Ipv6Addr; 2] =
        ["2001:db8:aa::3", "2001:db8:bb::5"].map(|host| host.parse().unwrap());
    let mapped = Ipv4Addr::new(192, 0, 2, 3);
    let sctp = |mut packet: Vec<u8>, protocol_at: usize| {
        packet[protocol_at] = 132;
        packet
    };
    let out = lab.translates(&sctp(udp_v6(inside, prefix().embed(PEER)), 6));
    assert_eq!((addresses_v4(&out), out[9]), ((mapped, PEER), 132));
    let back = lab.translates(&udp_v4(PEER, mapped));
    assert_eq!((addresses_v6(&back), ports(&back)), ((prefix().embed(PEER), inside), (2000, 1000)));
    let back = lab.translates(&udp_v4(PEER, Ipv4Addr::new(192, 0, 2, 5)));
    assert_eq!(addresses_v6(&back).1, other, "the longest prefix");
    // Hairpinning (RFC 7757 section 4): each of the two steps asks for the side of the host alone.
    let half = lab.translates(&udp_v6(inside, prefix().embed(Ipv4Addr::new(192, 0, 2, 5))));
    let arrived = lab.translates(&half);
    assert_eq!(addresses_v6(&arrived), (prefix().embed(mapped), other));
    assert_eq!(lab.tables.nat.usage().bindings, 0, "no ports were needed");
}

/// Two fragments of a UDP datagram from a host, the first one first.
fn fragments_v6(source: Ipv6Addr, identification: u32) -> [Vec<u8>; 2] {
    let whole = built(PacketBuilder::ipv6(source.octets(), remote().octets(), 64).udp(5000, 53));
    let fragment = |payload: &[u8], offset: u16, more: bool| {
        let mut packet = whole[..40].to_vec();
        packet[4..6].copy_from_slice(&(payload.len() as u16 + 8).to_be_bytes());
        packet[6] = 44;
        packet.extend([17, 0]);
        packet.extend((offset | u16::from(more)).to_be_bytes());
        packet.extend(identification.to_be_bytes());
        packet.extend(payload);
        packet
    };
    let payload = &whole[40..];
    [fragment(&payload[..8], 0, true), fragment(&payload[8..], 8, false)]
}

fn identification_v4(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[4], packet[5]])
}

#[test]
fn a_fragment_that_comes_too_early_waits_for_the_first_and_is_then_released_with_its_ports() {
    let mut lab = lab();
    let [first, second] = fragments_v6(HOST, 77);
    assert_eq!(lab.process(&second, at(2)).0, Verdict::Parked);
    let out = lab.translates(&first);
    let released = std::mem::take(&mut lab.scratch.released);
    assert_eq!(released.len(), 1);
    let (verdict, rest) = lab.process_again(&released[0], at(2));
    assert_eq!((verdict, rest.len()), (Verdict::Forward, 1));
    assert_eq!(addresses_v4(&rest[0]), (SHARED, REMOTE));
    assert_eq!(identification_v4(&out), identification_v4(&rest[0]));
    assert_eq!(lab.tables.fragments.usage().datagrams, 0, "it is through");
}

#[test]
fn fragments_of_two_hosts_with_the_same_identification_leave_with_two() {
    let mut lab = lab();
    let differ = (0..8).any(|n| {
        let [first, _] = fragments_v6(HOST, n);
        let [other, _] = fragments_v6(OTHER, n);
        identification_v4(&lab.translates(&first)) != identification_v4(&lab.translates(&other))
    });
    assert!(differ);
}

#[test]
fn a_fragment_of_a_new_host_waits_with_its_ports_and_meets_the_others_once_only() {
    let mut lab = lab();
    let stranger = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 99);
    let [first, _] = fragments_v6(stranger, 77);
    let (verdict, _) = lab.process(&first, at(2));
    let ports = Some(Ports::Pair { source: 5000, destination: 53 });
    let ask = Ask { host: stranger, class: PortClass::High };
    assert_eq!(verdict, Verdict::Hold(Held { ask, ports }));
    let block = Block { address: SHARED, first_port: 4096, size: 64, reserved: vec![] };
    lab.tables.nat.give_block(stranger, &block, at(3)).unwrap();
    // The fragment as it lies in the worker's buffer: renumbered once.
    let parcel = Parcel { packet: first.into(), offload: VirtioNetHdr::default(), ports };
    assert_eq!(lab.process_again(&parcel, at(3)).0, Verdict::Forward);
}
