//! How the packets of the capture are made.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, PacketBuilder,
    PacketBuilderStep, TcpOptionElement,
};

const HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const PEER_V6: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0xc633, 0x6402);
const HOST_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const PEER_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// At these, no dissector of an application waits.
const HOST_PORT: u16 = 40_001;
const PEER_PORT: u16 = 50_001;
const HOPS: u8 = 64;
const ECHO_IDENTIFIER: u16 = 0x1234;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// Whose packet it is. Those of the host arrive at the translator by IPv6, those of the peer by IPv4; inside an error, it is
/// the other's packet that comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Host,
    Peer,
}

/// Bytes that differ from their neighbours.
pub(super) fn payload(length: usize) -> Vec<u8> {
    (1..=251).cycle().take(length).collect()
}

/// Without an identification, the IPv4 packet has DF set.
fn ip(family: Family, sender: Sender, identification: Option<u16>) -> Result<PacketBuilderStep<IpHeaders>> {
    let headers = match family {
        Family::V4 => {
            let (source, destination) = match sender {
                Sender::Host => (HOST_V4, PEER_V4),
                Sender::Peer => (PEER_V4, HOST_V4),
            };
            let mut header = Ipv4Header::new(0, HOPS, IpNumber::UDP, source.octets(), destination.octets())?;
            header.dont_fragment = identification.is_none();
            header.identification = identification.unwrap_or_default();
            IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
        }
        Family::V6 => {
            let (source, destination) = match sender {
                Sender::Host => (HOST_V6, PEER_V6),
                Sender::Peer => (PEER_V6, HOST_V6),
            };
            let header = Ipv6Header {
                hop_limit: HOPS,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(header, etherparse::Ipv6Extensions::default())
        }
    };
    Ok(PacketBuilder::ip(headers))
}

fn ports(sender: Sender) -> (u16, u16) {
    match sender {
        Sender::Host => (HOST_PORT, PEER_PORT),
        Sender::Peer => (PEER_PORT, HOST_PORT),
    }
}

pub(super) fn udp(
    family: Family,
    sender: Sender,
    identification: Option<u16>,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let (source, destination) = ports(sender);
    let mut packet = Vec::new();
    ip(family, sender, identification)?.udp(source, destination).write(&mut packet, payload)?;
    Ok(packet)
}

pub(super) fn tcp(
    family: Family,
    sender: Sender,
    sequence: u32,
    options: &[TcpOptionElement],
    payload: &[u8],
) -> Result<Vec<u8>> {
    let (source, destination) = ports(sender);
    let step = ip(family, sender, None)?.tcp(source, destination, sequence, 0xfaf0).ack(1);
    let mut packet = Vec::new();
    step.options(options)?.write(&mut packet, payload)?;
    Ok(packet)
}

/// An echo request of the host, or a reply of the peer.
pub(super) fn echo(family: Family, sender: Sender, payload: &[u8]) -> Result<Vec<u8>> {
    let ip = ip(family, sender, None)?;
    let mut packet = Vec::new();
    match (family, sender) {
        (Family::V4, Sender::Host) => ip.icmpv4_echo_request(ECHO_IDENTIFIER, 1).write(&mut packet, payload),
        (Family::V4, Sender::Peer) => ip.icmpv4_echo_reply(ECHO_IDENTIFIER, 1).write(&mut packet, payload),
        (Family::V6, Sender::Host) => ip.icmpv6_echo_request(ECHO_IDENTIFIER, 1).write(&mut packet, payload),
        (Family::V6, Sender::Peer) => ip.icmpv6_echo_reply(ECHO_IDENTIFIER, 1).write(&mut packet, payload),
    }?;
    Ok(packet)
}

/// An ICMP message of any type; `rest` are the four bytes behind its checksum.
pub(super) fn icmp(
    family: Family,
    sender: Sender,
    (kind, code): (u8, u8),
    rest: [u8; 4],
    payload: &[u8],
) -> Result<Vec<u8>> {
    let ip = ip(family, sender, None)?;
    let mut packet = Vec::new();
    match family {
        Family::V4 => ip.icmpv4_raw(kind, code, rest).write(&mut packet, payload),
        Family::V6 => ip.icmpv6_raw(kind, code, rest).write(&mut packet, payload),
    }?;
    Ok(packet)
}

/// The packet in fragments with `each` bytes of payload.
pub(super) fn fragments(packet: &[u8], each: usize, identification: u16) -> Result<Vec<Vec<u8>>> {
    let mut made = Vec::new();
    let (headers, body) = IpHeaders::from_slice(packet).map(|(headers, body)| (headers, body.payload))?;
    for (at, part) in body.chunks(each).enumerate() {
        let offset = IpFragOffset::try_new(u16::try_from(at * each / 8)?)?;
        let more_fragments = (at + 1) * each < body.len();
        let mut fragment = Vec::new();
        match &headers {
            IpHeaders::Ipv4(whole, _) => {
                let mut header = Ipv4Header {
                    identification,
                    dont_fragment: false,
                    more_fragments,
                    fragment_offset: offset,
                    ..whole.clone()
                };
                header.set_payload_len(part.len())?;
                header.write(&mut fragment)?;
            }
            IpHeaders::Ipv6(whole, _) => {
                let next_header = whole.next_header;
                let own = Ipv6FragmentHeader::new(next_header, offset, more_fragments, identification.into());
                let mut header =
                    Ipv6Header { next_header: IpNumber::IPV6_FRAGMENTATION_HEADER, ..whole.clone() };
                header.set_payload_length(Ipv6FragmentHeader::LEN + part.len())?;
                header.write(&mut fragment)?;
                own.write(&mut fragment)?;
            }
        }
        fragment.extend_from_slice(part);
        made.push(fragment);
    }
    made.first().context("a packet without payload has no fragments")?;
    Ok(made)
}
