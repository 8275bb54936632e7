//! What a stateful router asks of a packet beside its translation: its TCP flags, and the reply to an echo request of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice,
};
use interproto::{HEADROOM, Ipv4Packet, Ipv6Packet};

const V6: ([u8; 16], [u8; 16]) = (
    [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, 198, 51, 100, 1],
);
const V4: ([u8; 4], [u8; 4]) = ([192, 0, 2, 7], [198, 51, 100, 1]);

fn storage(packet: &[u8]) -> Vec<u8> {
    [&[0; HEADROOM][..], packet].concat()
}

fn echo_v6() -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6(V6.0, V6.1, 9).icmpv6_echo_request(7, 8).write(&mut packet, b"payload!!").unwrap();
    packet
}

fn echo_v4() -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(V4.0, V4.1, 9).icmpv4_echo_request(7, 8).write(&mut packet, b"payload!!").unwrap();
    packet
}

fn reply_v6(packet: &[u8]) -> Option<Vec<u8>> {
    let mut storage = storage(packet);
    let length = storage.len();
    Some(Ipv6Packet::check(&mut storage, HEADROOM..length).unwrap().echo_reply()?.to_vec())
}

fn reply_v4(packet: &[u8]) -> Option<Vec<u8>> {
    let mut storage = storage(packet);
    let length = storage.len();
    Some(Ipv4Packet::check(&mut storage, HEADROOM..length).unwrap().echo_reply()?.to_vec())
}

#[test]
fn an_echo_request_over_ipv6_is_replied_to_with_its_payload_and_a_right_checksum() {
    let reply = reply_v6(&echo_v6()).unwrap();
    let sliced = SlicedPacket::from_ip(&reply).unwrap();
    let Some(NetSlice::Ipv6(ip)) = &sliced.net else { panic!("not IPv6") };
    assert_eq!((ip.header().source(), ip.header().destination(), ip.header().hop_limit()), (V6.1, V6.0, 64));
    let Some(TransportSlice::Icmpv6(icmp)) = &sliced.transport else { panic!("not ICMPv6") };
    assert!(icmp.is_checksum_valid(V6.1, V6.0));
    assert!(matches!(icmp.icmp_type(), Icmpv6Type::EchoReply(echo) if (echo.id, echo.seq) == (7, 8)));
    assert_eq!(icmp.payload(), b"payload!!");
    assert_eq!(
        icmp.header(),
        Icmpv6Header::with_checksum(icmp.icmp_type(), V6.1, V6.0, b"payload!!").unwrap()
    );
}

#[test]
fn an_echo_request_over_ipv4_is_replied_to_without_its_options_and_with_right_checksums() {
    let plain = echo_v4();
    // Four bytes of options: no operation.
    let mut with_options = [&plain[..20], &[1; 4], &plain[20..]].concat();
    with_options[0] = 0x46;
    with_options[3] += 4;
    with_options[10..12].fill(0);
    let sum: u32 =
        with_options[..24].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    with_options[10..12].copy_from_slice(&sum.to_be_bytes());
    for packet in [plain, with_options] {
        let reply = reply_v4(&packet).unwrap();
        let sliced = SlicedPacket::from_ip(&reply).unwrap();
        let Some(NetSlice::Ipv4(ip)) = &sliced.net else { panic!("not IPv4") };
        let header = ip.header().to_header();
        assert_eq!((header.source, header.destination, header.time_to_live), (V4.1, V4.0, 64));
        assert_eq!((header.header_checksum, header.options.len()), (header.calc_header_checksum(), 0));
        let Some(TransportSlice::Icmpv4(icmp)) = &sliced.transport else { panic!("not ICMPv4") };
        assert!(matches!(icmp.icmp_type(), Icmpv4Type::EchoReply(echo) if (echo.id, echo.seq) == (7, 8)));
        assert_eq!(icmp.payload(), b"payload!!");
        assert_eq!(icmp.header(), Icmpv4Header::with_checksum(icmp.icmp_type(), b"payload!!"));
    }
}

#[test]
fn what_is_no_sound_echo_request_gets_no_reply() {
    let mut bad = echo_v6();
    *bad.last_mut().unwrap() ^= 1;
    assert_eq!(reply_v6(&bad), None, "a wrong checksum");
    let mut bad = echo_v4();
    *bad.last_mut().unwrap() ^= 1;
    assert_eq!(reply_v4(&bad), None, "a wrong checksum");
    let mut reply = Vec::new();
    PacketBuilder::ipv4(V4.0, V4.1, 9).icmpv4_echo_reply(7, 8).write(&mut reply, b"").unwrap();
    assert_eq!(reply_v4(&reply), None, "a reply");
    let mut group = Vec::new();
    PacketBuilder::ipv4(V4.0, [224, 0, 0, 1], 9).icmpv4_echo_request(7, 8).write(&mut group, b"").unwrap();
    assert_eq!(reply_v4(&group), None, "a group");
}

#[test]
fn the_flags_of_a_tcp_segment_are_read_in_both_families_and_nothing_else_has_any() {
    let mut v4 = Vec::new();
    PacketBuilder::ipv4(V4.0, V4.1, 9).tcp(1, 2, 3, 4).syn().ack(5).write(&mut v4, b"x").unwrap();
    let mut v6 = Vec::new();
    PacketBuilder::ipv6(V6.0, V6.1, 9).tcp(1, 2, 3, 4).fin().rst().write(&mut v6, b"x").unwrap();
    let flags = |packet: &[u8]| {
        let mut storage = storage(packet);
        let length = storage.len();
        let range = HEADROOM..length;
        if packet[0] >> 4 == 4 {
            Ipv4Packet::check(&mut storage, range).unwrap().tcp_flags()
        } else {
            Ipv6Packet::check(&mut storage, range).unwrap().tcp_flags()
        }
    };
    assert_eq!((flags(&v4), flags(&v6), flags(&echo_v4()), flags(&echo_v6())), (0x12, 0x05, 0, 0));
}
