//! Frames, field by field.

use interproto::VirtioNetHdr;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

/// Who has seen to the checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// The sender.
    Whole,
    /// The sender, and the kernel has verified it.
    Verified,
    /// The kernel, later.
    Partial,
    /// Nobody: UDP without a checksum.
    None,
}

/// A packet of TCP or UDP, and what is in front of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    pub four: bool,
    pub tcp: bool,
    /// The last byte of the source address.
    pub host: u8,
    /// The source port.
    pub port: u16,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    pub flow_label: u32,
    pub identification: u16,
    /// The upper byte of flags and fragment offset.
    pub fragment: u8,
    /// The bytes of IPv4 options: a multiple of four.
    pub ip_options: usize,
    pub sequence: u32,
    pub acknowledgment: u32,
    /// The four bits behind the data offset.
    pub reserved: u8,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    /// The options of TCP: a multiple of four bytes.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
    pub checksum: Checksum,
    /// Bytes behind the packet.
    pub trailing: usize,
}

pub const DF: u8 = 0x40;

impl Made {
    /// An ordinary one.
    pub fn new(four: bool, tcp: bool, payload: &[u8]) -> Self {
        Self {
            four,
            tcp,
            host: 1,
            port: 40_000,
            tos: 0,
            ttl: 62,
            flow_label: 0,
            identification: 0x1234,
            fragment: DF,
            ip_options: 0,
            sequence: 1_000_000,
            acknowledgment: 77,
            reserved: 0,
            flags: ACK,
            window: 500,
            urgent: 0,
            options: if tcp { vec![1, 1, 8, 10, 0, 1, 2, 3, 4, 5, 6, 7] } else { Vec::new() },
            payload: payload.to_vec(),
            checksum: Checksum::Whole,
            trailing: 0,
        }
    }

    pub fn upper_at(&self) -> usize {
        if self.four { 20 + self.ip_options } else { 40 }
    }

    fn upper(&self) -> Vec<u8> {
        let mut upper = [self.port.to_be_bytes(), 443_u16.to_be_bytes()].concat();
        if self.tcp {
            upper.extend(self.sequence.to_be_bytes());
            upper.extend(self.acknowledgment.to_be_bytes());
            upper.push(((20 + self.options.len()) * 4) as u8 | self.reserved & 0xf);
            upper.push(self.flags);
            upper.extend(self.window.to_be_bytes());
            upper.extend([0, 0]);
            upper.extend(self.urgent.to_be_bytes());
            upper.extend(&self.options);
        } else {
            upper.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            upper.extend([0, 0]);
        }
        upper.extend(&self.payload);
        upper
    }

    fn ip(&self, length: usize) -> Vec<u8> {
        let protocol = if self.tcp { 6 } else { 17 };
        if self.four {
            let header = 20 + self.ip_options;
            let mut ip = vec![0x40 | (header / 4) as u8, self.tos];
            ip.extend(((header + length) as u16).to_be_bytes());
            ip.extend(self.identification.to_be_bytes());
            ip.extend([self.fragment, 0, self.ttl, protocol, 0, 0]);
            ip.extend([198, 51, 100, self.host, 203, 0, 113, 9]);
            // No-operations.
            ip.resize(header, 1);
            let sum = !fold(sum(&ip));
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            ip
        } else {
            let first = 6 << 28 | u32::from(self.tos) << 20 | self.flow_label & 0xf_ffff;
            let mut ip = first.to_be_bytes().to_vec();
            ip.extend((length as u16).to_be_bytes());
            ip.extend([protocol, self.ttl]);
            ip.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, self.host]);
            ip.extend([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
            ip
        }
    }

    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut upper = self.upper();
        let ip = self.ip(upper.len());
        let at = if self.tcp { 16 } else { 6 };
        let pseudo = pseudo_header(&ip, upper.len(), if self.tcp { 6 } else { 17 });
        let mut said = VirtioNetHdr::default();
        match self.checksum {
            Checksum::None => {}
            Checksum::Partial => {
                said.flags = VirtioNetHdr::NEEDS_CSUM;
                said.csum_start = self.upper_at() as u16;
                said.csum_offset = at as u16;
                upper[at..at + 2].copy_from_slice(&fold(pseudo).to_be_bytes());
            }
            Checksum::Whole | Checksum::Verified => {
                let checksum = as_sent(!fold(pseudo + sum(&upper)), self.tcp);
                upper[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
            }
        }
        if self.checksum == Checksum::Verified {
            said.flags = VirtioNetHdr::DATA_VALID;
        }
        [said.to_bytes().to_vec(), ip, upper, vec![0xee; self.trailing]].concat()
    }

    /// The next of its flow, with the same length.
    pub fn next(&self) -> Self {
        let mut next = self.clone();
        next.sequence = self.sequence.wrapping_add(self.payload.len() as u32);
        // As a router with one flow numbers its packets, and as one with several does.
        next.identification = self.identification.wrapping_add(if self.tcp { 3 } else { 1 });
        for byte in &mut next.payload {
            *byte = byte.wrapping_add(1);
        }
        next
    }

    /// So many in a row.
    pub fn train(&self, count: usize) -> Vec<Self> {
        std::iter::successors(Some(self.clone()), |last| Some(last.next())).take(count).collect()
    }
}

/// Some bytes of which no two neighbours are equal.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// A UDP checksum that is zero is sent as its complement (RFC 768).
pub fn as_sent(checksum: u16, tcp: bool) -> u16 {
    if !tcp && checksum == 0 { 0xffff } else { checksum }
}

/// The plain sum of 16-bit words.
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks();
    let last = rest.first().map_or(0, |last| u64::from(*last) << 8);
    words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum::<u64>() + last
}

pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// The sum of a pseudo-header, from the addresses of an IP header.
pub fn pseudo_header(ip: &[u8], length: usize, protocol: u8) -> u64 {
    let addresses = if ip[0] >> 4 == 4 { &ip[12..20] } else { &ip[8..40] };
    sum(addresses) + length as u64 + u64::from(protocol)
}
