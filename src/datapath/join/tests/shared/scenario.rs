//! Bytes of a fuzzer, or of a random generator, become batches in which much can be joined and much cannot.

use interproto::VirtioNetHdr;

use super::join::Joins;
use super::law::Step;
use super::packets::{ACK, CWR, Checksum, FIN, Made, PSH, RST, SYN, URG, pattern};

/// The longest input that is read.
pub const LONGEST: usize = 2048;

/// Flows that send, of each kind three: more than can be in the making.
const FLOWS: usize = 12;

/// The input, of which nothing is left some time; then all is zero.
struct Bytes<'i>(&'i [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.next(), self.next()])
    }
}

/// What is to be joined, and the steps.
pub fn steps(input: &[u8]) -> (Joins, Vec<Step>) {
    let mut bytes = Bytes(&input[..input.len().min(LONGEST)]);
    let joins = match bytes.next() {
        0xff => Joins { tcp: false, udp: false },
        0xfe => Joins { tcp: true, udp: false },
        0xfd => Joins { tcp: false, udp: true },
        _ => Joins { tcp: true, udp: true },
    };
    let mut flows: Vec<Made> = (0..FLOWS)
        .map(|number| {
            let length = [60, 200, 9, 33][number % 4];
            let mut made = Made::new(number & 1 == 0, number & 2 == 0, &pattern(length));
            made.port += (number / 4) as u16;
            made.sequence = 0xffff_f000;
            made.checksum = [Checksum::Whole, Checksum::Partial, Checksum::Verified][number / 4];
            made
        })
        .collect();
    let mut steps = Vec::new();
    while !bytes.0.is_empty() {
        let choice = bytes.next();
        match usize::from(choice & 0xf) {
            flow if flow < FLOWS => {
                // The upper half says how many follow each other, and whether the last one is odd.
                for _ in 0..(choice >> 4 & 7) {
                    steps.push(Step::Push(sent(&mut flows[flow]).frame()));
                }
                let frame = if choice >> 7 == 0 {
                    sent(&mut flows[flow]).frame()
                } else {
                    odd(&mut flows[flow], &mut bytes)
                };
                steps.push(Step::Push(frame));
            }
            12 => steps.push(Step::Flush),
            13 => {
                let mut frame = vec![0; 10];
                frame.extend((0..usize::from(choice >> 4) * 5).map(|_| bytes.next()));
                if choice & 0x80 != 0 {
                    frame.drain(..10);
                }
                steps.push(Step::Push(frame));
            }
            14 => {
                let flow = usize::from(choice >> 4) % FLOWS;
                let length = usize::from(bytes.word() % 9000);
                flows[flow].payload = pattern(length);
            }
            _ => steps.push(Step::Push(other(&flows[usize::from(choice >> 4) % FLOWS], &mut bytes))),
        }
    }
    (joins, steps)
}

/// What a flow sends next.
fn sent(flow: &mut Made) -> Made {
    let next = flow.next();
    std::mem::replace(flow, next)
}

/// A packet of a flow with something about it.
fn odd(flow: &mut Made, bytes: &mut Bytes<'_>) -> Vec<u8> {
    let kind = bytes.next();
    let value = bytes.next();
    let lasting: &mut Made = flow;
    match kind % 32 {
        // What the flow does from now on.
        0 => lasting.tos ^= value,
        1 => lasting.ttl ^= value,
        2 => lasting.flow_label ^= u32::from(value) << (kind >> 5),
        3 => lasting.fragment ^= 0x40,
        4 => lasting.acknowledgment ^= u32::from(value),
        5 => lasting.window ^= u16::from(value),
        6 => lasting.reserved ^= value & 0xf,
        7 => lasting.urgent ^= u16::from(value),
        8 => lasting.sequence ^= u32::from(value) << (kind >> 5),
        9 if lasting.tcp => lasting.options = vec![value; usize::from(kind >> 5) * 4],
        10 => lasting.identification ^= u16::from(value),
        11 => lasting.host ^= value & 1,
        12 => lasting.port ^= u16::from(value & 1),
        13 => {
            let kinds = [Checksum::Whole, Checksum::Partial, Checksum::Verified, Checksum::None];
            lasting.checksum = kinds[usize::from(value & 3)];
        }
        14 => lasting.flags = ACK | value,
        15 => lasting.flags ^= value,
        _ => {}
    }
    let mut made = flow.clone();
    match kind % 32 {
        16 => made.flags |= PSH,
        17 => made.flags |= FIN,
        18 => made.flags |= [SYN, RST, URG, CWR][usize::from(value & 3)],
        19 => made.payload.truncate(usize::from(value)),
        20 => made.payload.push(value),
        21 => made.ip_options = usize::from(value & 7) * 4,
        22 => made.trailing = usize::from(value & 7),
        23 => made.fragment |= 0x20,
        24 => made.fragment |= value,
        25 => made.payload.clear(),
        _ => {}
    }
    flow.sequence = made.sequence.wrapping_add(made.payload.len() as u32);
    let mut frame = made.frame();
    match kind % 32 {
        // A corrupted byte, and one of all headers.
        26 => {
            let at = 10 + usize::from(value) % (frame.len() - 10);
            frame[at] ^= 1 << (kind >> 5);
        }
        27 => {
            let at = usize::from(value) % 74.min(frame.len());
            frame[at] ^= bytes.next();
        }
        28 => frame.truncate(usize::from(value)),
        29 => {
            let at = made.upper_at() + if made.tcp { 16 } else { 6 };
            frame[10 + at..12 + at].fill([0, 0xff][usize::from(value & 1)]);
        }
        30 => {
            if let Some(byte) = frame.last_mut() {
                *byte ^= value;
            }
        }
        _ => {}
    }
    frame
}

/// A super-packet of a flow, or another protocol between the same hosts.
fn other(flow: &Made, bytes: &mut Bytes<'_>) -> Vec<u8> {
    let kind = bytes.next();
    let mut made = Made { checksum: Checksum::Partial, ..flow.clone() };
    let mut frame = made.frame();
    if kind & 1 != 0 {
        frame[10 + if made.four { 9 } else { 6 }] = bytes.next();
        return frame;
    }
    made.payload = pattern(usize::from(bytes.word()) % 3000);
    frame = made.frame();
    let gso_type = match (made.tcp, made.four) {
        (true, true) => VirtioNetHdr::GSO_TCPV4,
        (true, false) => VirtioNetHdr::GSO_TCPV6,
        (false, _) => VirtioNetHdr::GSO_UDP_L4,
    };
    let said = VirtioNetHdr {
        flags: VirtioNetHdr::NEEDS_CSUM,
        gso_type,
        hdr_len: (made.upper_at() + if made.tcp { 20 + made.options.len() } else { 8 }) as u16,
        gso_size: bytes.word() % 1500,
        csum_start: made.upper_at() as u16,
        csum_offset: if made.tcp { 16 } else { 6 },
    };
    frame[..10].copy_from_slice(&said.to_bytes());
    frame
}
