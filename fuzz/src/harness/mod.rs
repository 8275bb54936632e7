//! From the fuzzer's bytes to a packet, through the translation, and to what must hold of whatever comes out.
//!
//! Most inputs become a packet of sound structure with right lengths and checksums, so that they get past the door;
//! some are damaged afterwards, and some are taken as a packet byte by byte. The laws compare with `model`, a
//! translation that shares no code with the crate.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use arbitrary::{Result, Unstructured};
use interproto::{
    DropReason, EmbeddedRewrite, FragmentPart, HEADROOM, Icmpv4Error, Icmpv6Error, Ipv4Packet, Ipv6Packet,
    Packets, Params, PortRewrite, Ports, Protocol, Rewrite, TrafficClass, Tuple, Verdict, VirtioNetHdr,
    ZeroChecksum,
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
const IGMP: u8 = 2;
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
    laws::check(&made(data, way), way)
}

/// What an input becomes, for a person who looks at a finding.
pub fn show(data: &[u8], way: Way) -> String {
    let case = made(data, way);
    let packet = format!("{:02x?}", case.packet).replace(", ", "");
    format!("packet: {packet}\n{:#?}", Case { packet: Vec::new(), ..case })
}

fn made(data: &[u8], way: Way) -> Case {
    let mut u = Unstructured::new(data);
    // Half of all inputs become sound packets, whatever the fuzzer prefers: the translation is to be fuzzed as much
    // as its door. A hash decides, which no mutation can steer.
    let sound = hash(data) >> 63 == 0;
    // The bytes may end anywhere: what is missing is zero.
    case(&mut u, way, sound).unwrap_or_default()
}

/// FNV-1a.
fn hash(data: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    data.iter().fold(0xcbf2_9ce4_8422_2325, step)
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
    /// Nothing is wrong with it: it must be forwarded.
    sound: bool,
    /// Where the packet is said to lie, if that is wrong.
    misplaced: Option<Range<usize>>,
    /// Which error is asked for beside the one that the table names.
    error: u8,
}

/// True about once in `of`; false when the bytes have ended.
fn once(u: &mut Unstructured<'_>, of: u8) -> Result<bool> {
    Ok(u.arbitrary::<u8>()? >= 255 - 255 / of)
}

fn case(u: &mut Unstructured<'_>, way: Way, sound: bool) -> Result<Case> {
    let mut case = Case { identification: u.arbitrary()?, sound, ..Case::default() };
    if once(u, 8)? {
        case.ports = Some(ports(u)?);
        case.inner_ports = Some(ports(u)?);
        case.unrelated = once(u, 32)? && !sound;
    }
    if once(u, 8)? {
        case.params = params(u)?;
    }
    let offload = once(u, 8)?;
    let reassembled = once(u, 16)?;
    let raw = once(u, 32)?;
    let damaged = once(u, 8)?;
    if raw && !sound {
        case.packet = u.bytes(u.len())?.to_vec();
        return Ok(case);
    }
    case.error = u.arbitrary()?;
    let mut maker = packets::Maker { u, sound, is_put_together: reassembled && !offload };
    let made = maker.packet(way == Way::SixToFour, 0)?;
    case.packet = made.packet;
    if offload {
        case.door =
            Door::Offloaded(maker.offload(&mut case.packet, made.headers, made.protocol, made.fragmented)?);
    } else if reassembled {
        case.door = Door::Reassembled;
    }
    if sound {
        // All links are long enough, and a checksum that is missing is computed.
        let length = case.packet.len() + 48;
        case.params.ipv6_mtu = case.params.ipv6_mtu.max(if made.dont_fragment { length as u32 } else { 0 });
        case.params.ipv4_mtu = case.params.ipv4_mtu.max(length as u16);
        case.params.udp_zero_checksum = ZeroChecksum::Compute;
    } else if once(u, 16)? {
        // Links that carry this packet just so, or just not.
        let (length, off) = (case.packet.len(), u.int_in_range(0..=2_usize)?);
        case.params.ipv4_mtu = (length + off).saturating_sub(21) as u16;
        case.params.ipv6_mtu = (length + off + 19) as u32;
    } else if damaged {
        packets::damage(u, &mut case.packet)?;
    }
    if once(u, 64)? && !sound {
        let (start, end) = (HEADROOM, HEADROOM + case.packet.len());
        case.misplaced = Some(match u.int_in_range(0..=3)? {
            0 => u.int_in_range(0..=HEADROOM - 1)?..end,
            1 => start..usize::MAX,
            2 => end + 1..end,
            _ => start..end + laws::BEHIND + 1,
        });
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

/// Link lengths, many of which decide about packets of the lengths that `Maker::payload` aims at.
fn mtu(u: &mut Unstructured<'_>) -> Result<u16> {
    Ok(match u.int_in_range(0..=3)? {
        0 => u.int_in_range(0..=2000)?,
        1 => u.int_in_range(1270..=1310)?,
        2 => u.int_in_range(1480..=1510)?,
        _ => u.arbitrary()?,
    })
}

fn params(u: &mut Unstructured<'_>) -> Result<Params> {
    Ok(Params {
        lowest_ipv6_mtu: mtu(u)?,
        ipv6_mtu: if u.arbitrary()? { u32::from(mtu(u)?) } else { Params::DEFAULT.ipv6_mtu },
        ipv4_mtu: if u.arbitrary()? { mtu(u)? } else { Params::DEFAULT.ipv4_mtu },
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

    /// The sum with its carries added: zero only if all is zero.
    pub(super) fn folded(mut sum: u64) -> u16 {
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// The pseudo-header of a packet with this many bytes behind its IP headers.
    pub(super) fn pseudo(packet: &[u8], protocol: u8, length: usize) -> u64 {
        let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
        of(addresses) + u64::from(protocol) + length as u64
    }

    /// The same of these addresses.
    pub(super) fn pseudo_of(source: &[u8], destination: &[u8], protocol: u8, length: usize) -> u64 {
        of(source) + of(destination) + u64::from(protocol) + length as u64
    }
}

mod checksums;
mod laws;
mod model;
mod packets;
mod sides;
