//! Packets made by hand, and what is read out of those that were seen. Neither knows IPv4 options or extension headers
//! beside the fragment header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, PacketBuilder,
    PacketBuilderStep, TcpHeader,
};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

const HOPS: u8 = 64;

/// A TCP SYN without options.
pub(crate) fn syn(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    segment(source, destination, PacketBuilderStep::syn)
}

/// A TCP segment without payload that acknowledges something.
pub(crate) fn ack(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    segment(source, destination, |segment| segment.ack(1))
}

fn segment(
    source: SocketAddr,
    destination: SocketAddr,
    flags: impl FnOnce(PacketBuilderStep<TcpHeader>) -> PacketBuilderStep<TcpHeader>,
) -> Vec<u8> {
    let mut packet = Vec::new();
    let tcp = between(source, destination).tcp(source.port(), destination.port(), 1000, 64_000);
    flags(tcp).write(&mut packet, &[]).unwrap();
    packet
}

/// A TCP segment with payload, as those of a bulk transfer are.
pub(crate) fn data(source: SocketAddr, destination: SocketAddr, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let tcp = between(source, destination).tcp(source.port(), destination.port(), sequence, 64_000);
    tcp.ack(1).write(&mut packet, payload).unwrap();
    packet
}

/// A datagram in one packet, however long.
pub(crate) fn datagram(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let udp = between(source, destination).udp(source.port(), destination.port());
    udp.write(&mut packet, payload).unwrap();
    packet
}

fn between(source: SocketAddr, destination: SocketAddr) -> PacketBuilderStep<IpHeaders> {
    match (source.ip(), destination.ip()) {
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), HOPS),
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), HOPS),
        _ => panic!("{source} and {destination} are of two families"),
    }
}

/// A packet in fragments with so many bytes of payload each (a multiple of 8), as its sender writes them.
pub(crate) fn in_fragments(packet: &[u8], identification: u16, each: usize) -> Vec<Vec<u8>> {
    if packet[0] >> 4 == 6 {
        fragments_v6(packet, identification, each)
    } else {
        fragments_v4(packet, identification, each)
    }
}

fn fragments_v6(packet: &[u8], identification: u16, each: usize) -> Vec<Vec<u8>> {
    let (mut header, payload) = Ipv6Header::from_slice(packet).unwrap();
    let next_header = std::mem::replace(&mut header.next_header, IpNumber::IPV6_FRAGMENTATION_HEADER);
    let fragment = |(number, piece): (usize, &[u8])| {
        let place = Ipv6FragmentHeader {
            next_header,
            fragment_offset: IpFragOffset::try_new((number * each / 8) as u16).unwrap(),
            more_fragments: number * each + piece.len() < payload.len(),
            identification: identification.into(),
        };
        let header = Ipv6Header { payload_length: (piece.len() + 8) as u16, ..header.clone() };
        [&header.to_bytes()[..], &place.to_bytes(), piece].concat()
    };
    payload.chunks(each).enumerate().map(fragment).collect()
}

fn fragments_v4(packet: &[u8], identification: u16, each: usize) -> Vec<Vec<u8>> {
    let (mut header, payload) = Ipv4Header::from_slice(packet).unwrap();
    let fragment = |(number, piece): (usize, &[u8])| {
        header.identification = identification;
        header.dont_fragment = false;
        header.fragment_offset = IpFragOffset::try_new((number * each / 8) as u16).unwrap();
        header.more_fragments = number * each + piece.len() < payload.len();
        header.set_payload_len(piece.len()).unwrap();
        header.header_checksum = header.calc_header_checksum();
        [&header.to_bytes()[..], piece].concat()
    };
    payload.chunks(each).enumerate().map(fragment).collect()
}

/// What a packet says about its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) protocol: u8,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

/// The flow of a TCP or UDP packet, or of an ICMP echo message, whose identifier stands for both ports. What is cut off
/// behind the ports, as inside an ICMP error, does not matter.
pub(crate) fn flow(packet: &[u8]) -> Option<Flow> {
    let (protocol, source, destination, rest) = addresses(packet)?;
    let word = |at: usize| Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?));
    let (from, to) = match protocol {
        TCP | UDP => (word(0)?, word(2)?),
        ICMP if matches!(rest.first()?, 0 | 8) => (word(4)?, word(4)?),
        ICMPV6 if matches!(rest.first()?, 128 | 129) => (word(4)?, word(4)?),
        _ => return None,
    };
    Some(Flow {
        protocol,
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
    })
}

/// An ICMP error: its type, its code, who sent it, and the flow that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IcmpError {
    pub(crate) kind: (u8, u8),
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) about: Flow,
}

/// The packet as an ICMP error, if it is one.
pub(crate) fn icmp_error(packet: &[u8]) -> Option<IcmpError> {
    let (protocol, from, to, message) = addresses(packet)?;
    let kind = (*message.first()?, *message.get(1)?);
    let is_error = match protocol {
        ICMP => matches!(kind.0, 3 | 4 | 11 | 12),
        ICMPV6 => matches!(kind.0, 1..=4),
        _ => false,
    };
    let about = if is_error { flow(message.get(8..)?)? } else { return None };
    Some(IcmpError { kind, from, to, about })
}

/// Protocol, source, destination, and what follows the IP header.
fn addresses(packet: &[u8]) -> Option<(u8, IpAddr, IpAddr, &[u8])> {
    match packet.first()? >> 4 {
        4 => {
            let address = |at: usize| <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok();
            let ends = (Ipv4Addr::from(address(12)?), Ipv4Addr::from(address(16)?));
            let header = usize::from(packet[0] & 0xf) * 4;
            Some((packet[9], ends.0.into(), ends.1.into(), packet.get(header..)?))
        }
        6 => {
            let address = |at: usize| <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok();
            let ends = (Ipv6Addr::from(address(8)?), Ipv6Addr::from(address(24)?));
            Some((packet[6], ends.0.into(), ends.1.into(), packet.get(40..)?))
        }
        _ => None,
    }
}
