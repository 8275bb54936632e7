//! Makes packets, with etherparse's headers and checksums.

use etherparse::checksum::Sum16BitWords;
use etherparse::{
    IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6FragmentHeader,
    Ipv6Header, TcpHeader,
};
use std::net::IpAddr;

use super::Flow;

pub(crate) const ICMPV4: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const DCCP: u8 = 33;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const ESP: u8 = 50;
pub(crate) const AH: u8 = 51;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const DESTINATION_OPTIONS: u8 = 60;
pub(crate) const UDP_LITE: u8 = 136;

/// The part of a datagram that a packet holds. The offset counts bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) identification: u32,
    pub(crate) offset: u16,
    pub(crate) more: bool,
}

/// An IP packet of either family: which one, the addresses say.
#[derive(Debug, Clone)]
pub(crate) struct Ip {
    pub(crate) flow: Flow,
    pub(crate) traffic_class: u8,
    pub(crate) hop_limit: u8,
    /// IPv6 only.
    pub(crate) flow_label: u32,
    /// IPv6 only: the headers in front of the fragment header, by their numbers. The next header is filled in.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    /// IPv4 only.
    pub(crate) dont_fragment: bool,
    /// IPv4 only: the identification of what is no fragment.
    pub(crate) identification: u16,
    /// IPv4 only.
    pub(crate) options: Vec<u8>,
    pub(crate) piece: Option<Piece>,
    pub(crate) protocol: u8,
    pub(crate) payload: Vec<u8>,
}

impl Ip {
    pub(crate) fn new(flow: Flow, protocol: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            flow,
            traffic_class: 0,
            hop_limit: 64,
            flow_label: 0,
            extensions: Vec::new(),
            dont_fragment: true,
            identification: 0,
            options: Vec::new(),
            piece: None,
            protocol,
            payload: payload.into(),
        }
    }

    pub(crate) fn hop_limit(self, hop_limit: u8) -> Self {
        Self { hop_limit, ..self }
    }

    pub(crate) fn traffic_class(self, traffic_class: u8) -> Self {
        Self { traffic_class, ..self }
    }

    pub(crate) fn extension(mut self, number: u8, bytes: &[u8]) -> Self {
        self.extensions.push((number, bytes.to_vec()));
        self
    }

    pub(crate) fn options(self, options: &[u8]) -> Self {
        Self { options: options.to_vec(), ..self }
    }

    pub(crate) fn may_fragment(self, identification: u16) -> Self {
        Self { dont_fragment: false, identification, ..self }
    }

    pub(crate) fn piece(self, identification: u32, offset: u16, more: bool) -> Self {
        Self { piece: Some(Piece { identification, offset, more }), dont_fragment: false, ..self }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        match (self.flow.source, self.flow.destination) {
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.bytes6(source.octets(), destination.octets())
            }
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.bytes4(source.octets(), destination.octets())
            }
            _ => panic!("two families in one packet"),
        }
    }

    fn bytes6(&self, source: [u8; 16], destination: [u8; 16]) -> Vec<u8> {
        let mut numbers: Vec<u8> = self.extensions.iter().map(|(number, _)| *number).collect();
        numbers.extend(self.piece.map(|_| FRAGMENT));
        numbers.push(self.protocol);
        let mut behind = Vec::new();
        for ((_, bytes), next) in self.extensions.iter().zip(&numbers[1..]) {
            let at = behind.len();
            behind.extend_from_slice(bytes);
            behind[at] = *next;
        }
        if let Some(piece) = self.piece {
            let header = Ipv6FragmentHeader {
                next_header: IpNumber(self.protocol),
                fragment_offset: IpFragOffset::try_new(piece.offset / 8).unwrap(),
                more_fragments: piece.more,
                identification: piece.identification,
            };
            behind.extend_from_slice(&header.to_bytes());
        }
        behind.extend_from_slice(&self.payload);
        let header = Ipv6Header {
            traffic_class: self.traffic_class,
            flow_label: Ipv6FlowLabel::try_new(self.flow_label).unwrap(),
            payload_length: behind.len().try_into().unwrap(),
            next_header: IpNumber(numbers[0]),
            hop_limit: self.hop_limit,
            source,
            destination,
        };
        let mut packet = header.to_bytes().to_vec();
        packet.extend_from_slice(&behind);
        packet
    }

    fn bytes4(&self, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let options = Ipv4Options::try_from(&self.options[..]).unwrap();
        let piece = self.piece.unwrap_or(Piece {
            identification: self.identification.into(),
            offset: 0,
            more: false,
        });
        let mut header = Ipv4Header {
            dscp: IpDscp::try_new(self.traffic_class >> 2).unwrap(),
            ecn: IpEcn::try_new(self.traffic_class & 3).unwrap(),
            total_len: (20 + self.options.len() + self.payload.len()).try_into().unwrap(),
            identification: piece.identification as u16,
            dont_fragment: self.dont_fragment,
            more_fragments: piece.more,
            fragment_offset: IpFragOffset::try_new(piece.offset / 8).unwrap(),
            time_to_live: self.hop_limit,
            protocol: IpNumber(self.protocol),
            header_checksum: 0,
            source,
            destination,
            options,
        };
        header.header_checksum = header.calc_header_checksum();
        let mut packet = header.to_bytes().to_vec();
        packet.extend_from_slice(&self.payload);
        packet
    }
}

/// The sum over what a transport checksum covers, by etherparse. `bytes` hold zero where the checksum goes.
pub(crate) fn checksum(flow: Flow, protocol: u8, bytes: &[u8]) -> u16 {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    let mut sum = Sum16BitWords::new();
    sum = match (flow.source, flow.destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) if protocol == ICMPV4 => sum,
        (IpAddr::V4(source), IpAddr::V4(destination)) => sum
            .add_4bytes(source.octets())
            .add_4bytes(destination.octets())
            .add_2bytes([0, protocol])
            .add_4bytes(length),
        (IpAddr::V6(source), IpAddr::V6(destination)) => sum
            .add_16bytes(source.octets())
            .add_16bytes(destination.octets())
            .add_2bytes([0, protocol])
            .add_4bytes(length),
        _ => panic!("two families in one packet"),
    };
    let checksum = sum.add_slice(bytes).ones_complement().to_be();
    if checksum == 0 && matches!(protocol, UDP | UDP_LITE) { 0xffff } else { checksum }
}

fn finish(flow: Flow, protocol: u8, mut bytes: Vec<u8>, checksum_at: usize) -> Vec<u8> {
    let checksum = checksum(flow, protocol, &bytes).to_be_bytes();
    bytes[checksum_at..checksum_at + 2].copy_from_slice(&checksum);
    bytes
}

/// A TCP segment with options and a payload.
pub(crate) fn tcp(flow: Flow, source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = TcpHeader::new(source, destination, 0x0102_0304, 4096);
    header.syn = true;
    header.set_options_raw(&[2, 4, 5, 0xb4]).unwrap();
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend_from_slice(payload);
    finish(flow, TCP, bytes, 16)
}

/// A UDP datagram.
pub(crate) fn udp(flow: Flow, source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut bytes = [source, destination, length, 0].map(u16::to_be_bytes).concat();
    bytes.extend_from_slice(payload);
    finish(flow, UDP, bytes, 6)
}

/// A UDP-Lite datagram whose checksum covers all of it.
pub(crate) fn udp_lite(flow: Flow, source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [source, destination, 0, 0].map(u16::to_be_bytes).concat();
    bytes.extend_from_slice(payload);
    finish(flow, UDP_LITE, bytes, 6)
}

/// A DCCP packet whose checksum covers all of it.
pub(crate) fn dccp(flow: Flow, source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [source, destination, 0x0400, 0, 0x0100, 7, 0, 0].map(u16::to_be_bytes).concat();
    bytes.extend_from_slice(payload);
    finish(flow, DCCP, bytes, 6)
}

fn icmp_protocol(flow: Flow) -> u8 {
    if flow.source.is_ipv4() { ICMPV4 } else { ICMPV6 }
}

/// An ICMP message of the flow's family.
pub(crate) fn icmp(flow: Flow, kind: u8, code: u8, rest: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend_from_slice(&rest.to_be_bytes());
    bytes.extend_from_slice(payload);
    finish(flow, icmp_protocol(flow), bytes, 2)
}

/// An ICMP message in its packet.
pub(crate) fn icmp_packet(flow: Flow, kind: u8, code: u8, rest: u32, payload: &[u8]) -> Ip {
    Ip::new(flow, icmp_protocol(flow), icmp(flow, kind, code, rest, payload))
}

/// An echo request of the flow's family, in its packet.
pub(crate) fn echo_request(flow: Flow, identifier: u16, payload: &[u8]) -> Ip {
    let kind = if flow.source.is_ipv4() { 8 } else { 128 };
    icmp_packet(flow, kind, 0, u32::from(identifier) << 16 | 7, payload)
}

/// An echo reply of the flow's family, in its packet.
pub(crate) fn echo_reply(flow: Flow, identifier: u16, payload: &[u8]) -> Ip {
    let kind = if flow.source.is_ipv4() { 0 } else { 129 };
    icmp_packet(flow, kind, 0, u32::from(identifier) << 16 | 7, payload)
}

/// A TCP segment in its packet.
pub(crate) fn tcp_packet(flow: Flow, payload: &[u8]) -> Ip {
    Ip::new(flow, TCP, tcp(flow, 40_000, 443, payload))
}

/// A UDP datagram in its packet.
pub(crate) fn udp_packet(flow: Flow, payload: &[u8]) -> Ip {
    Ip::new(flow, UDP, udp(flow, 40_000, 53, payload))
}

/// Bytes that are all different from their neighbours.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 256) as u8).collect()
}
