//! The packets that are translated, and what their translation is told.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use etherparse::checksum::Sum16BitWords;
use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder};
use interproto::VirtioNetHdr;
use serde::Serialize;

/// The lengths of the packets, in bytes of the whole IP packet before its translation.
pub(crate) const SIZES: [usize; 7] = [64, 128, 256, 512, 1024, 1400, 1500];

pub(crate) const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(crate) const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0xc633, 0x6402);
pub(crate) const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
pub(crate) const SERVER_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

const CLIENT_PORT: u16 = 40_000;
const SERVER_PORT: u16 = 443;
const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;
/// AF11, so that a translator that forgets the traffic class is seen.
const TRAFFIC_CLASS: u8 = 0x28;
const HOPS: u8 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Direction {
    #[serde(rename = "6->4")]
    SixToFour,
    #[serde(rename = "4->6")]
    FourToSix,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Case {
    pub(crate) direction: Direction,
    pub(crate) transport: Transport,
    /// Bytes of the IP packet before its translation.
    pub(crate) size: usize,
}

impl Case {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [Direction::SixToFour, Direction::FourToSix].into_iter().flat_map(|direction| {
            [Transport::Udp, Transport::Tcp].into_iter().flat_map(move |transport| {
                SIZES.into_iter().map(move |size| Self { direction, transport, size })
            })
        })
    }

    /// Bytes of the IP and the transport header: the part of the packet that a translation may change.
    pub(crate) fn headers(self) -> usize {
        let ip = match self.direction {
            Direction::SixToFour => Ipv6Header::LEN,
            Direction::FourToSix => Ipv4Header::MIN_LEN,
        };
        ip + match self.transport {
            Transport::Udp => UDP_HEADER,
            Transport::Tcp => TCP_HEADER,
        }
    }

    /// The same packet with a partial checksum, as a kernel hands it over for a device that computes checksums.
    pub(crate) fn partial(self, packet: &[u8]) -> Result<(Vec<u8>, VirtioNetHdr)> {
        let (at, addresses, protocol) = match self.direction {
            Direction::SixToFour => (Ipv6Header::LEN, 8..40, packet[6]),
            Direction::FourToSix => (Ipv4Header::MIN_LEN, 12..20, packet[9]),
        };
        let offset = match self.transport {
            Transport::Udp => 6,
            Transport::Tcp => 16,
        };
        let length = u16::try_from(packet.len() - at)?;
        let complement = Sum16BitWords::new()
            .add_slice(&packet[addresses])
            .add_2bytes([0, protocol])
            .add_2bytes(length.to_be_bytes())
            .ones_complement();
        let mut packet = packet.to_vec();
        packet[at + offset..at + offset + 2].copy_from_slice(&(!complement).to_ne_bytes());
        let said = VirtioNetHdr {
            flags: VirtioNetHdr::NEEDS_CSUM,
            csum_start: u16::try_from(at)?,
            csum_offset: u16::try_from(offset)?,
            ..VirtioNetHdr::default()
        };
        Ok((packet, said))
    }

    /// What a device makes of the translation of that packet.
    pub(crate) fn completed(self, mut packet: Vec<u8>) -> Vec<u8> {
        let at = match self.direction {
            Direction::SixToFour => Ipv4Header::MIN_LEN,
            Direction::FourToSix => Ipv6Header::LEN,
        };
        let (place, none) = match self.transport {
            Transport::Udp => (at + 6, u16::MAX),
            Transport::Tcp => (at + 16, 0),
        };
        let sum = Sum16BitWords::new().add_slice(&packet[at..]).ones_complement();
        let sum = if sum == 0 { none } else { sum };
        packet[place..place + 2].copy_from_slice(&sum.to_ne_bytes());
        packet
    }

    /// The packet, with correct checksums. The IPv4 one has DF set: without it, long ones would leave as fragments.
    pub(crate) fn packet(self) -> Result<Vec<u8>> {
        let length = self.size.checked_sub(self.headers()).context("a packet shorter than its headers")?;
        let payload: Vec<u8> = (0..=250).cycle().take(length).collect();
        let (ip, source, destination) = match self.direction {
            Direction::SixToFour => {
                let header = Ipv6Header {
                    traffic_class: TRAFFIC_CLASS,
                    flow_label: Ipv6FlowLabel::try_new(0x1_2345)?,
                    hop_limit: HOPS,
                    source: CLIENT_V6.octets(),
                    destination: SERVER_V6.octets(),
                    ..Ipv6Header::default()
                };
                (IpHeaders::Ipv6(header, etherparse::Ipv6Extensions::default()), CLIENT_PORT, SERVER_PORT)
            }
            Direction::FourToSix => {
                let mut header =
                    Ipv4Header::new(0, HOPS, IpNumber::UDP, SERVER_V4.octets(), CLIENT_V4.octets())?;
                header.dscp = etherparse::IpDscp::try_new(TRAFFIC_CLASS >> 2)?;
                header.dont_fragment = true;
                (IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default()), SERVER_PORT, CLIENT_PORT)
            }
        };
        let mut packet = Vec::with_capacity(self.size);
        let builder = PacketBuilder::ip(ip);
        match self.transport {
            Transport::Udp => builder.udp(source, destination).write(&mut packet, &payload)?,
            Transport::Tcp => {
                builder.tcp(source, destination, 1, 65_000).ack(1).write(&mut packet, &payload)?;
            }
        }
        Ok(packet)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::SixToFour => "IPv6 -> IPv4",
            Direction::FourToSix => "IPv4 -> IPv6",
        };
        let transport = match self.transport {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
        };
        write!(f, "{direction} {transport} {:>5}", self.size)
    }
}
