//! Judges packets by etherparse's code, which is none of ours.

use etherparse::{
    Icmpv4Header, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, LaxSlicedPacket, NetSlice, SlicedPacket,
    TcpHeader, TransportSlice, UdpHeader,
};

use super::Flow;
use super::packets::{self, UDP};

/// The packet parses, its IP lengths are its own length, and the IPv4 header's checksum is right.
#[track_caller]
pub(crate) fn lengths(packet: &[u8]) {
    if packet[0] >> 4 == 4 {
        let (header, payload) = Ipv4Header::from_slice(packet).expect("an IPv4 header");
        assert_eq!(usize::from(header.total_len), packet.len(), "total length");
        assert_eq!(header.header_checksum, header.calc_header_checksum(), "header checksum");
        assert_eq!(payload.len() + header.header_len(), packet.len());
        assert_eq!(packet[6] & 0x80, 0, "the reserved flag");
    } else {
        let (header, payload) = Ipv6Header::from_slice(packet).expect("an IPv6 header");
        assert_eq!(usize::from(header.payload_length), payload.len(), "payload length");
        assert_eq!(header.flow_label.value(), 0, "flow label");
    }
    // What lies behind the IP headers is the sender's, and need not be what etherparse takes for whole.
    let lax = LaxSlicedPacket::from_ip(packet).expect("an IP packet");
    assert!(lax.net.is_some(), "etherparse finds no IP packet");
    if packet[0] >> 4 == 6 && packet[6] == packets::FRAGMENT {
        let (header, payload) = Ipv6FragmentHeader::from_slice(&packet[40..]).expect("a fragment header");
        let reach = usize::from(header.fragment_offset.byte_offset()) + payload.len();
        assert!(reach <= 65_535, "a fragment of a datagram that is too long");
        assert!(
            !header.more_fragments || payload.len() % 8 == 0,
            "a fragment that is no multiple of eight bytes"
        );
        assert!(header.is_fragmenting_payload(), "an atomic fragment (RFC 8021)");
    }
}

/// All of [`lengths`], and the checksum of the transport header is right, where the packet is no fragment.
#[track_caller]
pub(crate) fn checksums(packet: &[u8]) {
    lengths(packet);
    let sliced =
        SlicedPacket::from_ip(packet).unwrap_or_else(|error| panic!("etherparse refuses it: {error}"));
    let flow = flow(packet);
    if sliced.is_ip_payload_fragmented() {
        return;
    }
    let payload = sliced.ip_payload();
    let addresses = sliced.net.as_ref().expect("an IP packet");
    match sliced.transport.as_ref() {
        Some(TransportSlice::Tcp(tcp)) => {
            let header: TcpHeader = tcp.to_header();
            let expected = match addresses {
                NetSlice::Ipv4(ip) => header.calc_checksum_ipv4_raw(
                    ip.header().source(),
                    ip.header().destination(),
                    tcp.payload(),
                ),
                NetSlice::Ipv6(ip) => header.calc_checksum_ipv6_raw(
                    ip.header().source(),
                    ip.header().destination(),
                    tcp.payload(),
                ),
                NetSlice::Arp(_) => unreachable!(),
            };
            assert_eq!(tcp.checksum(), expected.unwrap(), "TCP checksum");
        }
        Some(TransportSlice::Udp(udp)) => {
            let header: UdpHeader = udp.to_header();
            let expected = match addresses {
                NetSlice::Ipv4(ip) => header.calc_checksum_ipv4_raw(
                    ip.header().source(),
                    ip.header().destination(),
                    udp.payload(),
                ),
                NetSlice::Ipv6(ip) => header.calc_checksum_ipv6_raw(
                    ip.header().source(),
                    ip.header().destination(),
                    udp.payload(),
                ),
                NetSlice::Arp(_) => unreachable!(),
            };
            assert_eq!(udp.checksum(), expected.unwrap(), "UDP checksum");
            assert_ne!(udp.checksum(), 0, "no UDP checksum");
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            let (header, rest) = Icmpv4Header::from_slice(icmp.slice()).expect("an ICMP header");
            assert_eq!(header.checksum, header.icmp_type.calc_checksum(rest), "ICMP checksum");
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            let NetSlice::Ipv6(ip) = addresses else { panic!("ICMPv6 in IPv4") };
            assert!(
                icmp.is_checksum_valid(ip.header().source(), ip.header().destination()),
                "ICMPv6 checksum"
            );
        }
        _ => {
            let payload = payload.expect("a payload");
            let protocol = payload.ip_number.0;
            if matches!(protocol, packets::DCCP | packets::UDP_LITE) {
                ported(flow, protocol, payload.payload);
            }
        }
    }
}

/// The checksum six bytes into a header that etherparse does not know (UDP-Lite, DCCP), over all of `bytes`.
#[track_caller]
fn ported(flow: Flow, protocol: u8, bytes: &[u8]) {
    let mut blank = bytes.to_vec();
    blank[6..8].fill(0);
    let expected = packets::checksum(flow, protocol, &blank).to_be_bytes();
    assert_eq!(bytes[6..8], expected, "checksum of protocol {protocol}");
}

/// The addresses of a packet.
pub(crate) fn flow(packet: &[u8]) -> Flow {
    let v4 = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap().into();
    let v6 = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).unwrap().into();
    if packet[0] >> 4 == 4 {
        Flow { source: v4(12), destination: v4(16) }
    } else {
        Flow { source: v6(8), destination: v6(24) }
    }
}

/// A UDP payload of which the datagram's checksum comes out as zero, and so is sent as `0xffff`.
pub(crate) fn payload_for_zero_checksum(flow: Flow, source: u16, destination: u16) -> Vec<u8> {
    let blank = [source, destination, 12, 0, 0, 0].map(u16::to_be_bytes).concat();
    // With the sum's complement in the payload, the sum becomes 0xffff, and its complement zero.
    let complement = packets::checksum(flow, UDP, &blank);
    [complement, 0].map(u16::to_be_bytes).concat()
}
