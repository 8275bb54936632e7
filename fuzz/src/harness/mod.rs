//! From the fuzzer's bytes to a packet, through the translation, and to what must hold of whatever comes out.
//!
//! Most inputs become a packet of sound structure with right lengths and checksums, so that they get past the door; some are damaged
//! afterwards, and some are taken as a packet byte by byte. The laws are checked with code of this file alone.

use std::net::{Ipv4Addr, Ipv6Addr};

use arbitrary::{Result, Unstructured};
use interproto::{
    DropReason, EmbeddedRewrite, HEADROOM, Icmpv4Error, Icmpv6Error, Ipv4Packet, Ipv6Packet, Packets, Params,
    PortRewrite, Rewrite, TrafficClass, Verdict, VirtioNetHdr, ZeroChecksum,
};

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// IPv6 to IPv4.
    SixToFour,
    /// IPv4 to IPv6.
    FourToSix,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Translated.
    Forward,
    /// Refused, and its sender may be told.
    Reply(DropReason),
    /// To be translated together with other fragments.
    Hold(DropReason),
    /// Refused in silence.
    Drop(DropReason),
    /// Not let in at all.
    Door(DropReason),
}

impl Outcome {
    /// The reason, if there is one.
    pub fn reason(self) -> Option<DropReason> {
        match self {
            Self::Forward => None,
            Self::Reply(reason) | Self::Hold(reason) | Self::Drop(reason) | Self::Door(reason) => {
                Some(reason)
            }
        }
    }

    /// A word for statistics.
    pub fn word(self) -> &'static str {
        self.reason().map_or("forward", DropReason::as_str)
    }

    /// The verdict alone.
    pub fn verdict(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Reply(_) => "reply",
            Self::Hold(_) => "hold",
            Self::Drop(_) | Self::Door(_) => "drop",
        }
    }
}

const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const HOST4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const PEER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const PEER6: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0xc633, 0x6402);
const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x64);
const OWN4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 64);

const ICMPV4: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const OPTIONS: u8 = 60;
const UDP_LITE: u8 = 136;

/// Makes up a packet, translates it, and panics if a law is broken.
pub fn run(data: &[u8], way: Way) -> Outcome {
    let mut u = Unstructured::new(data);
    // The bytes may end anywhere: what is missing is zero.
    let case = case(&mut u, way).unwrap_or_default();
    laws::check(&case, way)
}

/// How a packet is shown to the door.
#[derive(Debug, Clone, Copy, Default)]
enum Door {
    #[default]
    Plain,
    Reassembled,
    Offloaded(VirtioNetHdr),
}

#[derive(Debug, Default)]
struct Case {
    packet: Vec<u8>,
    door: Door,
    ports: Option<PortRewrite>,
    inner_ports: Option<PortRewrite>,
    /// No addresses are given for the packet inside an error.
    unrelated: bool,
    params: Params,
    identification: u16,
}

/// True about once in `of`; false when the bytes have ended.
fn once(u: &mut Unstructured<'_>, of: u8) -> Result<bool> {
    Ok(u.arbitrary::<u8>()? >= 255 - 255 / of)
}

fn case(u: &mut Unstructured<'_>, way: Way) -> Result<Case> {
    let mut case = Case { identification: u.arbitrary()?, ..Case::default() };
    if once(u, 8)? {
        case.ports = Some(ports(u)?);
        case.inner_ports = Some(ports(u)?);
        case.unrelated = once(u, 32)?;
    }
    if once(u, 8)? {
        case.params = params(u)?;
    }
    let offload = once(u, 8)?;
    let reassembled = once(u, 16)?;
    if once(u, 32)? {
        case.packet = u.bytes(u.len())?.to_vec();
        return Ok(case);
    }
    let (packet, protocol) = packets::packet(u, way == Way::SixToFour, 0)?;
    case.packet = packet;
    if offload {
        case.door = Door::Offloaded(packets::offload(u, &mut case.packet, protocol)?);
    } else if reassembled {
        case.door = Door::Reassembled;
    }
    if once(u, 8)? {
        packets::damage(u, &mut case.packet)?;
    }
    Ok(case)
}

fn ports(u: &mut Unstructured<'_>) -> Result<PortRewrite> {
    Ok(match u.int_in_range(0..=2)? {
        0 => PortRewrite::Keep,
        1 => PortRewrite::Pair { source: u.arbitrary()?, destination: u.arbitrary()? },
        _ => PortRewrite::Identifier(u.arbitrary()?),
    })
}

fn params(u: &mut Unstructured<'_>) -> Result<Params> {
    Ok(Params {
        lowest_ipv6_mtu: u.arbitrary()?,
        ipv6_mtu: if u.arbitrary()? { u.int_in_range(0..=2000)? } else { Params::DEFAULT.ipv6_mtu },
        ipv4_mtu: if u.arbitrary()? { u.int_in_range(0..=2000)? } else { Params::DEFAULT.ipv4_mtu },
        traffic_class: match u.int_in_range(0..=2)? {
            0 => TrafficClass::Copy,
            1 => TrafficClass::Zero,
            _ => TrafficClass::Dscp(u.int_in_range(0..=63)?),
        },
        udp_zero_checksum: if u.arbitrary()? { ZeroChecksum::Compute } else { ZeroChecksum::Drop },
    })
}

/// One's complement sums, the slow and plain way. All of them modulo 0xffff, of which 0 and 0xffff are the same.
mod sums {
    /// The sum of big-endian words.
    pub(super) fn of(bytes: &[u8]) -> u64 {
        bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0))).sum()
    }

    /// The checksum that makes a sum come out as zero.
    pub(super) fn checksum(sum: u64) -> u16 {
        !((sum % 0xffff) as u16)
    }

    /// The pseudo-header of a packet with this many bytes behind its IP headers.
    pub(super) fn pseudo(packet: &[u8], protocol: u8, length: usize) -> u64 {
        let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
        of(addresses) + u64::from(protocol) + length as u64
    }
}

mod laws;
mod packets;
