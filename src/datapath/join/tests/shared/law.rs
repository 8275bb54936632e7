//! The law: what was pushed comes out, flow by flow and byte by byte, once the kernel has cut what was joined.
//!
//! Two things may differ. Identifications of IPv4, which with DF say nothing, and of which a super-packet without DF has
//! consecutive ones that were given for it, unless its packets brought such. And a checksum that the kernel calls verified is taken at its word.

use std::collections::{BTreeMap, VecDeque};

use interproto::VirtioNetHdr;

use super::cut::cut;
use super::join::{Joiner, Joins, Sink};
use super::packets::{as_sent, fold, pseudo_header, sum};

/// What the joiner is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Push(Vec<u8>),
    Flush,
}

/// What was reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// Frames pushed.
    pub pushed: usize,
    /// Frames written.
    pub written: usize,
    /// Super-packets of TCP over IPv4 and IPv6, and of UDP over both.
    pub joined: [usize; 4],
    /// Packets in the longest of them.
    pub longest: usize,
    /// Super-packets that passed in the order of their flow.
    pub passed: usize,
    /// Frames of which nobody can say whose they are.
    pub unreadable: usize,
}

impl Reached {
    /// Takes another one's figures along.
    pub fn add(&mut self, other: &Self) {
        self.pushed += other.pushed;
        self.written += other.written;
        for (joined, more) in self.joined.iter_mut().zip(other.joined) {
            *joined += more;
        }
        self.longest = self.longest.max(other.longest);
        self.passed += other.passed;
        self.unreadable += other.unreadable;
    }
}

/// Where a packet stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Belongs {
    /// Version, protocol, addresses and ports.
    To(Vec<u8>),
    ToNone,
    ToAny,
}

/// A frame that was pushed and is not written yet.
#[derive(Debug)]
struct Waiting {
    number: usize,
    frame: Vec<u8>,
}

#[derive(Debug, Default)]
struct Written(Vec<(Vec<u8>, usize, usize)>);

impl Sink for Written {
    fn write(&mut self, frame: &[u8], segments: usize, wire_length: usize) {
        self.0.push((frame.to_vec(), segments, wire_length));
    }
}

/// Does all steps and a last flush, and judges what comes out of each.
pub fn obeys(steps: &[Step], joins: Joins) -> Result<Reached, String> {
    let mut joiner = Joiner::new(joins);
    let mut waiting: BTreeMap<Vec<u8>, VecDeque<Waiting>> = BTreeMap::new();
    let mut reached = Reached::default();
    let mut next_identification = 0xff00_u16;
    for (number, step) in steps.iter().chain([&Step::Flush]).enumerate() {
        let mut given = VecDeque::new();
        let mut identifications = |count: usize| {
            let first = next_identification;
            next_identification = next_identification.wrapping_add(count as u16 + 5);
            given.push_back((first, count));
            first
        };
        let mut written = Written::default();
        match step {
            Step::Push(frame) => joiner.push(frame, &mut identifications, &mut written),
            Step::Flush => joiner.flush(&mut identifications, &mut written),
        }
        let mut written = written.0;
        reached.written += written.len();
        if let Step::Push(frame) = step {
            reached.pushed += 1;
            match belongs(frame, joins) {
                Belongs::To(flow) => {
                    let frame = frame.clone();
                    waiting.entry(flow).or_default().push_back(Waiting { number, frame });
                }
                belongs => {
                    let last = written.pop().ok_or_else(|| format!("step {number} is not written"))?;
                    if last.0 != *frame {
                        return Err(format!("step {number} is not what is written last"));
                    }
                    counted(&last)?;
                    match belongs {
                        Belongs::ToAny => reached.unreadable += 1,
                        _ if written.is_empty() => {}
                        _ => {
                            return Err(format!(
                                "step {number} made others go that have nothing to do with it"
                            ));
                        }
                    }
                }
            }
        }
        let mut oldest = 0;
        for written in &written {
            counted(written)?;
            let first = judge(&written.0, &mut waiting, &mut given, &mut reached)
                .map_err(|wrong| format!("step {number}: {wrong}"))?;
            if *step == Step::Flush && first < oldest {
                return Err(format!("a flush writes step {oldest} before step {first}"));
            }
            oldest = first;
        }
        if !given.is_empty() {
            return Err(format!("step {number}: identifications {given:?} are lost"));
        }
        waiting.retain(|_, frames| !frames.is_empty());
        let unreadable = matches!(step, Step::Push(frame) if belongs(frame, joins) == Belongs::ToAny);
        if (unreadable || *step == Step::Flush) && !waiting.is_empty() {
            return Err(format!("step {number} leaves {} flows behind", waiting.len()));
        }
        if joiner.is_empty() != waiting.is_empty() {
            return Err(format!("step {number}: {} flows wait, but {joiner:?}", waiting.len()));
        }
        if waiting.len() > 8 || waiting.values().any(|frames| frames.len() >= 64) {
            return Err(format!("step {number}: too much waits"));
        }
    }
    Ok(reached)
}

/// Compares a frame with what waits first of its flow, and takes that away. The number of the first step in it.
fn judge(
    frame: &[u8],
    waiting: &mut BTreeMap<Vec<u8>, VecDeque<Waiting>>,
    given: &mut VecDeque<(u16, usize)>,
    reached: &mut Reached,
) -> Result<usize, String> {
    let Belongs::To(flow) = belongs(frame, Joins { tcp: true, udp: true }) else {
        return Err(format!("{frame:02x?} was not pushed"));
    };
    let frames = waiting.get_mut(&flow).ok_or("a flow of which nothing waits")?;
    let first = frames.front().ok_or("a flow of which nothing waits")?.number;
    if frames.front().is_some_and(|waiting| waiting.frame == frame) {
        frames.pop_front();
        reached.passed += usize::from(frame[1] != VirtioNetHdr::GSO_NONE);
        return Ok(first);
    }
    let segments = cut(frame)?;
    let four = frame[10] >> 4 == 4;
    let fragmentable = four && frame[16] & 0x40 == 0;
    if segments.len() < 2 || segments.len() > 64 || frame.len() > 10 + 65_535 {
        return Err(format!("{} segments in {} bytes", segments.len(), frame.len()));
    }
    let identification = u16::from_be_bytes([frame[14], frame[15]]);
    let brought = |(number, waiting): (usize, &Waiting)| {
        waiting.frame[14..16] == identification.wrapping_add(number as u16).to_be_bytes()
    };
    let keeps = frames.iter().take(segments.len()).enumerate().all(brought);
    if fragmentable && !keeps && given.pop_front() != Some((identification, segments.len())) {
        return Err("other identifications than were given".into());
    }
    for (number, segment) in segments.iter().enumerate() {
        let waiting = frames.pop_front().ok_or("more segments than were pushed")?;
        let mut expected = expected(&waiting.frame)?;
        if four {
            if number == 0 && !fragmentable && expected[4..6] != segment[4..6] {
                return Err("another first identification".into());
            }
            // The difference shows in the header checksum too.
            let old = u64::from(u16::from_be_bytes([expected[4], expected[5]]));
            let new = u64::from(u16::from_be_bytes([segment[4], segment[5]]));
            let checksum = u64::from(u16::from_be_bytes([expected[10], expected[11]]));
            let checksum = !fold((checksum ^ 0xffff) + (old ^ 0xffff) + new);
            expected[4..6].copy_from_slice(&segment[4..6]);
            expected[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        if expected != *segment {
            return Err(format!("segment {number} is\n{segment:02x?}, but was\n{expected:02x?}"));
        }
    }
    let tcp = frame[1] != VirtioNetHdr::GSO_UDP_L4;
    reached.joined[usize::from(!four) + if tcp { 0 } else { 2 }] += 1;
    reached.longest = reached.longest.max(segments.len());
    Ok(first)
}

/// The packet that a pushed frame is on a wire.
fn expected(frame: &[u8]) -> Result<Vec<u8>, String> {
    let mut packets = cut(frame)?;
    let mut packet = packets.pop().ok_or("nothing")?;
    if !packets.is_empty() {
        return Err("a super-packet was joined".into());
    }
    if frame[0] == VirtioNetHdr::DATA_VALID {
        let at = if packet[0] >> 4 == 4 { 20 } else { 40 };
        let protocol = if at == 20 { packet[9] } else { packet[6] };
        let field = at + if protocol == 6 { 16 } else { 6 };
        packet[field..field + 2].fill(0);
        let whole = pseudo_header(&packet, packet.len() - at, protocol) + sum(&packet[at..]);
        packet[field..field + 2].copy_from_slice(&as_sent(!fold(whole), protocol == 6).to_be_bytes());
    }
    Ok(packet)
}

/// The sink is told what a frame becomes.
fn counted((frame, segments, wire_length): &(Vec<u8>, usize, usize)) -> Result<(), String> {
    // What no kernel would take is not counted on.
    let Ok(packets) = cut(frame) else { return Ok(()) };
    let bytes: usize = packets.iter().map(Vec::len).sum();
    if (packets.len(), bytes) != (*segments, *wire_length) {
        return Err(format!("{} packets of {bytes} bytes, not {segments} of {wire_length}", packets.len()));
    }
    Ok(())
}

/// Whose packet it is.
pub fn belongs(frame: &[u8], joins: Joins) -> Belongs {
    let packet = frame.get(10..).unwrap_or_default();
    let (version, headers, protocol, addresses) = match packet {
        _ if !joins.tcp && !joins.udp => return Belongs::ToNone,
        [first, ..] if first >> 4 == 4 && packet.len() >= 20 => {
            let offset = u16::from_be_bytes([packet[6], packet[7]]);
            let headers = usize::from(first & 0xf) * 4;
            if offset & 0x1fff != 0 || offset & 0x2000 != 0 || headers < 20 {
                return Belongs::ToAny;
            }
            (4, headers, packet[9], &packet[12..20])
        }
        [first, ..] if first >> 4 == 6 && packet.len() >= 40 => (6, 40, packet[6], &packet[8..40]),
        _ => return Belongs::ToAny,
    };
    match protocol {
        6 if joins.tcp => {}
        17 if joins.udp => {}
        0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 | 253 | 254 if version == 6 => return Belongs::ToAny,
        _ => return Belongs::ToNone,
    }
    let Some(ports) = packet.get(headers..headers + 4) else { return Belongs::ToAny };
    Belongs::To([&[version, protocol], addresses, ports].concat())
}
