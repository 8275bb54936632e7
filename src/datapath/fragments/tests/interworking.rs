//! The way of real fragments: from the check through the buffer to the translation. What is done with each answer here, a router
//! has to do.

use super::*;
use etherparse::{
    IpFragOffset, IpNumber, Ipv4Header, Ipv4HeaderSlice, Ipv6FragmentHeader, Ipv6Header, PacketBuilder,
    SlicedPacket, TransportSlice,
};
use interproto::{
    DropReason, EmbeddedRewrite, Ipv4Packet, Ipv6Packet, Params, PortRewrite, Rewrite, Verdict,
};

const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const PEER6: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0xc633, 0x6402);
const HOST4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const PEER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// The one session there is: the host's port or identifier, that of the pool, and the peer's port.
const INSIDE: u16 = 40_000;
const OUTSIDE: u16 = 1024;
const PEER: u16 = 53;

/// The identification of all fragments.
const NUMBER: u32 = 0x00ab_cdef;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 256) as u8).collect()
}

fn storage(packet: &[u8]) -> Vec<u8> {
    [&[0; HEADROOM], packet].concat()
}

fn sent(mut verdict: Verdict<'_>) -> Vec<Vec<u8>> {
    let Verdict::Forward(packets) = &mut verdict else { panic!("{verdict:?}") };
    let mut all = Vec::new();
    while let Some(packet) = packets.next() {
        all.push(packet.to_vec());
    }
    all
}

fn wants_the_datagram(refusal: Option<DropReason>) -> bool {
    matches!(refusal, Some(DropReason::FragmentedIcmp | DropReason::UdpZeroChecksumFragment))
}

/// What goes out to IPv4 for this fragment.
fn six_to_four(buffer: &mut FragmentBuffer, fragment: &[u8]) -> Vec<Vec<u8>> {
    let mut bytes = storage(fragment);
    let checked = Ipv6Packet::check(&mut bytes, HEADROOM..HEADROOM + fragment.len()).unwrap();
    let (tuple, part, refusal) = (checked.tuple(), checked.fragment().unwrap(), checked.refusal());
    let key = Key::v6(&tuple, &part);
    let taken = if wants_the_datagram(refusal) {
        buffer.collect(&key, &part, &bytes, at(0))
    } else {
        buffer.pass(&key, &part, tuple.ports, &bytes, at(0))
    };
    let one = |packet: &[u8], ports| {
        assert_eq!(ports, Ports::Pair { source: INSIDE, destination: PEER });
        let mut bytes = storage(packet);
        let mut checked = Ipv6Packet::check(&mut bytes, HEADROOM..HEADROOM + packet.len()).unwrap();
        sent(checked.translate(&outward(false), |_| 1, &Params::default()))
    };
    match taken {
        Taken::Now(ports) => one(fragment, ports),
        Taken::Release { ports, parked } => {
            let first = one(fragment, ports);
            first.into_iter().chain(parked.iter().flat_map(|packet| one(packet, ports))).collect()
        }
        Taken::Parked => Vec::new(),
        Taken::Whole(Whole { mut storage, packet }) => {
            let mut checked = Ipv6Packet::check_reassembled(&mut storage, packet).unwrap();
            let is_echo = matches!(checked.tuple().ports, Ports::Identifier(INSIDE));
            sent(checked.translate(&outward(is_echo), |_| 1, &Params::default()))
        }
        Taken::Refused { .. } => panic!("{taken:?}"),
    }
}

/// What goes out to IPv6 for this fragment.
fn four_to_six(buffer: &mut FragmentBuffer, fragment: &[u8]) -> Vec<Vec<u8>> {
    let mut bytes = storage(fragment);
    let checked = Ipv4Packet::check(&mut bytes, HEADROOM..HEADROOM + fragment.len()).unwrap();
    let (tuple, part, refusal) = (checked.tuple(), checked.fragment().unwrap(), checked.refusal());
    let key = Key::v4(&tuple, &part);
    let taken = if wants_the_datagram(refusal) {
        buffer.collect(&key, &part, &bytes, at(0))
    } else {
        buffer.pass(&key, &part, tuple.ports, &bytes, at(0))
    };
    let one = |packet: &[u8], ports| {
        assert_eq!(ports, Ports::Pair { source: PEER, destination: OUTSIDE });
        let mut bytes = storage(packet);
        let mut checked = Ipv4Packet::check(&mut bytes, HEADROOM..HEADROOM + packet.len()).unwrap();
        sent(checked.translate(&inward(false), &Params::default()))
    };
    match taken {
        Taken::Now(ports) => one(fragment, ports),
        Taken::Release { ports, parked } => {
            let first = one(fragment, ports);
            first.into_iter().chain(parked.iter().flat_map(|packet| one(packet, ports))).collect()
        }
        Taken::Parked => Vec::new(),
        Taken::Whole(Whole { mut storage, packet }) => {
            let mut checked = Ipv4Packet::check_reassembled(&mut storage, packet).unwrap();
            let is_echo = matches!(checked.tuple().ports, Ports::Identifier(OUTSIDE));
            sent(checked.translate(&inward(is_echo), &Params::default()))
        }
        Taken::Refused { .. } => panic!("{taken:?}"),
    }
}

fn outward(is_echo: bool) -> Rewrite<Ipv4Addr> {
    let pair = PortRewrite::Pair { source: OUTSIDE, destination: PEER };
    let ports = if is_echo { PortRewrite::Identifier(OUTSIDE) } else { pair };
    Rewrite { source: HOST4, destination: PEER4, ports, embedded: None }
}

fn inward(is_echo: bool) -> Rewrite<Ipv6Addr> {
    let pair = PortRewrite::Pair { source: PEER, destination: INSIDE };
    let ports = if is_echo { PortRewrite::Identifier(INSIDE) } else { pair };
    let embedded = EmbeddedRewrite {
        source: HOST6,
        destination: PEER6,
        ports: PortRewrite::Pair { source: INSIDE, destination: PEER },
    };
    Rewrite { source: PEER6, destination: HOST6, ports, embedded: Some(embedded) }
}

fn echo6(payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv6(HOST6.octets(), PEER6.octets(), 64).icmpv6_echo_request(INSIDE, 7);
    builder.write(&mut packet, payload).unwrap();
    packet
}

fn echo_reply4(payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(PEER4.octets(), HOST4.octets(), 64).icmpv4_echo_reply(OUTSIDE, 7);
    builder.write(&mut packet, payload).unwrap();
    packet
}

fn udp6(payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv6(HOST6.octets(), PEER6.octets(), 64).udp(INSIDE, PEER);
    builder.write(&mut packet, payload).unwrap();
    packet
}

fn udp4(payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(PEER4.octets(), HOST4.octets(), 64).udp(PEER, OUTSIDE);
    builder.write(&mut packet, payload).unwrap();
    packet
}

/// The fragments that a sender makes of an IPv6 packet for a link of this MTU.
fn cut6(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let (header, payload) = Ipv6Header::from_slice(packet).unwrap();
    let each = (mtu - 48) / 8 * 8;
    let count = payload.len().div_ceil(each);
    let piece = |(number, part): (usize, &[u8])| {
        let fragment = Ipv6FragmentHeader {
            next_header: header.next_header,
            fragment_offset: IpFragOffset::try_new((number * each / 8) as u16).unwrap(),
            more_fragments: number + 1 < count,
            identification: NUMBER,
        };
        let length = (part.len() + 8) as u16;
        let header = Ipv6Header { payload_length: length, next_header: IpNumber(44), ..header.clone() };
        [&header.to_bytes()[..], &fragment.to_bytes(), part].concat()
    };
    payload.chunks(each).enumerate().map(piece).collect()
}

/// The fragments that a sender makes of an IPv4 packet for a link of this MTU.
fn cut4(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let (header, payload) = Ipv4Header::from_slice(packet).unwrap();
    let each = (mtu - 20) / 8 * 8;
    let count = payload.len().div_ceil(each);
    let piece = |(number, part): (usize, &[u8])| {
        let mut header = Ipv4Header {
            dont_fragment: false,
            identification: NUMBER as u16,
            fragment_offset: IpFragOffset::try_new((number * each / 8) as u16).unwrap(),
            more_fragments: number + 1 < count,
            total_len: (20 + part.len()) as u16,
            ..header.clone()
        };
        header.header_checksum = header.calc_header_checksum();
        [&header.to_bytes()[..], part].concat()
    };
    payload.chunks(each).enumerate().map(piece).collect()
}

/// The IPv6 packet that these fragments make up, wherever they come.
fn join6(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = vec![None; 65_536];
    let mut end = None;
    for fragment in fragments {
        let (header, rest) = Ipv6FragmentHeader::from_slice(&fragment[40..]).unwrap();
        assert_eq!((fragment[6], header.identification), (44, NUMBER & 0xffff));
        assert!(fragment.len() <= 1280, "{} bytes", fragment.len());
        let start = usize::from(header.fragment_offset.byte_offset());
        for (at, byte) in (start..).zip(rest) {
            assert_eq!(payload[at].replace(*byte), None, "nothing comes twice");
        }
        if !header.more_fragments {
            assert_eq!(end.replace(start + rest.len()), None, "one end");
        }
    }
    let payload: Vec<_> = payload[..end.unwrap()].iter().map(|byte| byte.unwrap()).collect();
    let (header, _) = Ipv6Header::from_slice(&fragments[0]).unwrap();
    let (fragment, _) = Ipv6FragmentHeader::from_slice(&fragments[0][40..]).unwrap();
    let length = payload.len() as u16;
    let header = Ipv6Header { payload_length: length, next_header: fragment.next_header, ..header };
    [&header.to_bytes()[..], &payload].concat()
}

/// The IPv4 packet that these fragments make up, wherever they come.
fn join4(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = vec![None; 65_536];
    let mut end = None;
    for fragment in fragments {
        let header = Ipv4HeaderSlice::from_slice(fragment).unwrap();
        assert_eq!((header.identification(), header.dont_fragment()), (NUMBER as u16, false));
        let start = usize::from(header.fragments_offset().byte_offset());
        for (at, byte) in (start..).zip(&fragment[20..]) {
            assert_eq!(payload[at].replace(*byte), None, "nothing comes twice");
        }
        if !header.more_fragments() {
            assert_eq!(end.replace(start + fragment.len() - 20), None, "one end");
        }
    }
    let payload: Vec<_> = payload[..end.unwrap()].iter().map(|byte| byte.unwrap()).collect();
    let mut header = Ipv4HeaderSlice::from_slice(&fragments[0]).unwrap().to_header();
    header.total_len = (20 + payload.len()) as u16;
    header.more_fragments = false;
    header.fragment_offset = IpFragOffset::try_new(0).unwrap();
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], &payload].concat()
}

/// Asserts that the transport checksum is right, by etherparse, and answers with the ports or the identifier and the payload.
fn judged(packet: &[u8]) -> (Ports, Vec<u8>) {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    assert!(!sliced.is_ip_payload_fragmented());
    match sliced.transport.unwrap() {
        TransportSlice::Icmpv6(icmp) => {
            assert!(icmp.is_checksum_valid(PEER6.octets(), HOST6.octets()), "ICMPv6 checksum");
            assert_eq!((icmp.type_u8(), icmp.code_u8()), (129, 0), "an echo reply");
            let identifier = u16::from_be_bytes([packet[44], packet[45]]);
            (Ports::Identifier(identifier), icmp.payload().to_vec())
        }
        TransportSlice::Icmpv4(icmp) => {
            let header = icmp.header();
            assert_eq!(header.checksum, header.icmp_type.calc_checksum(icmp.payload()), "ICMPv4 checksum");
            assert_eq!((icmp.type_u8(), icmp.code_u8()), (8, 0), "an echo request");
            let identifier = u16::from_be_bytes([packet[24], packet[25]]);
            (Ports::Identifier(identifier), icmp.payload().to_vec())
        }
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let expected = if packet[0] >> 4 == 4 {
                header.calc_checksum_ipv4_raw(HOST4.octets(), PEER4.octets(), udp.payload())
            } else {
                header.calc_checksum_ipv6_raw(PEER6.octets(), HOST6.octets(), udp.payload())
            };
            assert_eq!(header.checksum, expected.unwrap(), "UDP checksum");
            let ports = Ports::Pair { source: udp.source_port(), destination: udp.destination_port() };
            (ports, udp.payload().to_vec())
        }
        other => panic!("{other:?}"),
    }
}

/// In order, the wrong way round, and the first one somewhere in the middle.
fn orders(fragments: Vec<Vec<u8>>) -> [Vec<Vec<u8>>; 3] {
    let reversed = fragments.iter().rev().cloned().collect();
    let mut rotated = fragments.clone();
    rotated.rotate_left(fragments.len() / 2);
    [fragments, reversed, rotated]
}

/// 65,507 bytes are the most that ping sends: 65,535 with ICMP and IPv4 headers.
#[test]
fn a_long_echo_request_goes_out_as_one_ipv4_packet_that_may_be_fragmented() {
    for (length, mtu) in [(4000, 1500), (8192, 1500), (8192, 1280), (65_507, 1280), (65_507, 9216)] {
        let whole = echo6(&pattern(length));
        for fragments in orders(cut6(&whole, mtu)) {
            let mut buffer = buffer();
            let out: Vec<_> =
                fragments.iter().flat_map(|fragment| six_to_four(&mut buffer, fragment)).collect();
            let [packet] = &out[..] else { panic!("{} packets", out.len()) };
            assert_eq!(packet.len(), 20 + 8 + length);
            let header = Ipv4HeaderSlice::from_slice(packet).unwrap();
            assert_eq!(usize::from(header.total_len()), packet.len());
            assert_eq!((header.source_addr(), header.destination_addr(), header.ttl()), (HOST4, PEER4, 63));
            assert_eq!((header.dont_fragment(), header.identification()), (false, NUMBER as u16));
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            assert_eq!(judged(packet), (Ports::Identifier(OUTSIDE), pattern(length)));
            assert_eq!(buffer.usage().datagrams, 0);
        }
    }
}

#[test]
fn a_long_echo_reply_comes_in_as_ipv6_fragments_that_every_link_carries() {
    for (length, mtu) in [(4000, 1500), (8192, 1500), (8192, 576), (65_507, 1500), (65_507, 9216)] {
        let whole = echo_reply4(&pattern(length));
        for fragments in orders(cut4(&whole, mtu)) {
            let mut buffer = buffer();
            let out: Vec<_> =
                fragments.iter().flat_map(|fragment| four_to_six(&mut buffer, fragment)).collect();
            assert_eq!(out.len(), (length + 8).div_ceil(1232));
            assert_eq!(judged(&join6(&out)), (Ports::Identifier(INSIDE), pattern(length)));
        }
    }
}

#[test]
fn trains_of_udp_out_of_order_get_the_ports_of_their_sessions() {
    for length in [3000, 8192, 65_507] {
        for fragments in orders(cut6(&udp6(&pattern(length)), 1500)) {
            let mut buffer = buffer();
            let out: Vec<_> =
                fragments.iter().flat_map(|fragment| six_to_four(&mut buffer, fragment)).collect();
            assert_eq!(out.len(), fragments.len(), "each by itself");
            let expected = (Ports::Pair { source: OUTSIDE, destination: PEER }, pattern(length));
            assert_eq!(judged(&join4(&out)), expected);
        }
        for fragments in orders(cut4(&udp4(&pattern(length)), 1280)) {
            let mut buffer = buffer();
            let out: Vec<_> =
                fragments.iter().flat_map(|fragment| four_to_six(&mut buffer, fragment)).collect();
            let expected = (Ports::Pair { source: PEER, destination: INSIDE }, pattern(length));
            assert_eq!(judged(&join6(&out)), expected);
            assert_eq!(buffer.usage().datagrams, 0);
        }
    }
}

/// RFC 7915 §4.5.
#[test]
fn fragments_of_udp_without_a_checksum_get_one_together() {
    let mut whole = udp4(&pattern(3000));
    whole[26..28].fill(0);
    for fragments in orders(cut4(&whole, 1280)) {
        let mut buffer = buffer();
        let out: Vec<_> = fragments.iter().flat_map(|fragment| four_to_six(&mut buffer, fragment)).collect();
        let expected = (Ports::Pair { source: PEER, destination: INSIDE }, pattern(3000));
        assert_eq!(judged(&join6(&out)), expected);
    }
}

/// A path with an MTU below 576 cuts ICMP errors too.
#[test]
fn an_icmp_error_in_fragments_is_translated_with_what_it_is_about() {
    let mut about = Vec::new();
    let udp = PacketBuilder::ipv4(HOST4.octets(), PEER4.octets(), 60).udp(OUTSIDE, PEER);
    udp.write(&mut about, &pattern(500)).unwrap();
    let mut error = Vec::new();
    let unreachable = etherparse::icmpv4::DestUnreachableHeader::Port;
    PacketBuilder::ipv4(PEER4.octets(), HOST4.octets(), 64)
        .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(unreachable))
        .write(&mut error, &about)
        .unwrap();
    for fragments in orders(cut4(&error, 256)) {
        let mut buffer = buffer();
        let out: Vec<_> = fragments.iter().flat_map(|fragment| four_to_six(&mut buffer, fragment)).collect();
        let [packet] = &out[..] else { panic!("{} packets", out.len()) };
        let TransportSlice::Icmpv6(icmp) = SlicedPacket::from_ip(packet).unwrap().transport.unwrap() else {
            panic!("an ICMPv6 error")
        };
        assert!(icmp.is_checksum_valid(PEER6.octets(), HOST6.octets()));
        assert_eq!((icmp.type_u8(), icmp.code_u8()), (1, 4), "port unreachable");
        let SlicedPacket { transport: Some(TransportSlice::Udp(udp)), .. } =
            SlicedPacket::from_ip(icmp.payload()).unwrap()
        else {
            panic!("a UDP packet inside")
        };
        assert_eq!((udp.source_port(), udp.destination_port()), (INSIDE, PEER));
        assert_eq!(udp.payload(), pattern(500));
    }
}

/// A payload of IPv6 can be 20 bytes longer than any of IPv4. With its fragment header it can even be longer than that of any
/// packet, and `check_reassembled` refuses it.
#[test]
fn a_message_that_is_too_long_for_ipv4_is_put_together_and_refused_then() {
    for (length, reason) in
        [(65_508, Some(DropReason::TooBig)), (65_519, Some(DropReason::TooBig)), (65_520, None)]
    {
        let mut buffer = buffer();
        let mut whole = None;
        for fragment in cut6(&echo6(&pattern(length)), 9216) {
            let mut bytes = storage(&fragment);
            let checked = Ipv6Packet::check(&mut bytes, HEADROOM..HEADROOM + fragment.len()).unwrap();
            let (tuple, part) = (checked.tuple(), checked.fragment().unwrap());
            whole = Some(buffer.collect(&Key::v6(&tuple, &part), &part, &bytes, at(0)));
        }
        let Some(Taken::Whole(Whole { mut storage, packet })) = whole else { panic!("{whole:?}") };
        match (Ipv6Packet::check_reassembled(&mut storage, packet), reason) {
            (Ok(mut checked), Some(reason)) => {
                let verdict = checked.translate(&outward(true), |_| 1, &Params::default());
                assert!(matches!(verdict, Verdict::Reply(given) if given == reason), "{verdict:?}");
            }
            (checked, _) => assert_eq!(checked.unwrap_err(), DropReason::MalformedHeader),
        }
    }
}
