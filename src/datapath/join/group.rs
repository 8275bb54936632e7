//! A super-packet in the making.

use interproto::{Sum, VirtioNetHdr};

use super::packet::{FLAGS_AT, Flow, Form, Packet};
use super::{MAX_FRAME, MAX_SEGMENTS, check};

/// Packets of one flow that follow each other.
#[derive(Debug)]
pub(super) struct Group {
    /// The first frame as it came, and the payloads of the others behind it.
    buffer: Box<[u8]>,
    /// So many bytes of it are in use.
    length: usize,
    /// The first packet.
    first: Packet,
    /// Whether its checksums are known to be right.
    good: bool,
    segments: usize,
    /// The sequence number of what may follow.
    sequence: u32,
    /// Whether the identifications of IPv4 count on from the first one's, as the kernel numbers segments.
    counts_on: bool,
}

impl Group {
    pub(super) fn new() -> Self {
        let form = Form { four: false, tcp: false };
        let none = Packet {
            flow: Flow::default(),
            form,
            common: [0; 2],
            headers: 0,
            payload: 0,
            sequence: 0,
            last: 0,
        };
        Self {
            buffer: vec![0; MAX_FRAME].into_boxed_slice(),
            length: 0,
            first: none,
            good: false,
            segments: 0,
            sequence: 0,
            counts_on: true,
        }
    }

    #[inline]
    pub(super) fn is_of(&self, flow: &Flow) -> bool {
        self.first.flow == *flow
    }

    /// Begins anew with this packet, which is in `frame`.
    pub(super) fn begin(&mut self, frame: &[u8], packet: Packet) {
        self.buffer[..frame.len()].copy_from_slice(frame);
        self.length = frame.len();
        self.first = packet;
        self.good = false;
        self.segments = 1;
        self.counts_on = true;
        self.sequence = packet.next_sequence();
    }

    /// Whether a packet of the same flow goes on where this one ended, and fits in. Whether it is good is another question.
    #[inline]
    pub(super) fn fits(&self, frame: &[u8], packet: &Packet) -> bool {
        let first = &self.first;
        packet.common == first.common
            && packet.sequence == self.sequence
            && packet.payload <= first.payload
            && options(frame, packet) == options(&self.buffer, first)
    }

    /// Whether the first packet's checksums are right. With a second one in it a group is good for ever.
    #[inline]
    pub(super) fn is_good(&mut self) -> bool {
        self.good = self.good || self.first.is_good(&self.buffer[..self.length]);
        self.good
    }

    /// Appends a packet that fits and is good. Whether it was the last one: nothing may follow it, or nothing of full length can.
    pub(super) fn add(&mut self, frame: &[u8], packet: &Packet) -> bool {
        let payload = &frame[VirtioNetHdr::LENGTH + packet.headers..];
        self.buffer[self.length..self.length + payload.len()].copy_from_slice(payload);
        self.length += payload.len();
        self.counts_on &=
            identification(frame) == identification(&self.buffer).wrapping_add(self.segments as u16);
        self.segments += 1;
        self.sequence = packet.next_sequence();
        if packet.last != 0 {
            let flags = VirtioNetHdr::LENGTH + packet.form.ip_header() + FLAGS_AT;
            self.buffer[flags] |= packet.last;
        }
        packet.last != 0
            || packet.payload < self.first.payload
            || self.segments == MAX_SEGMENTS
            || self.length + self.first.payload > MAX_FRAME
    }

    /// How many packets are in it.
    pub(super) fn segments(&self) -> usize {
        self.segments
    }

    /// The length of all these packets, in bytes.
    pub(super) fn wire_length(&self) -> usize {
        self.length - VirtioNetHdr::LENGTH + (self.segments - 1) * self.first.headers
    }

    /// Makes the frame a whole one. One packet is as it came.
    pub(super) fn finish(&mut self, identifications: &mut impl FnMut(usize) -> u16) {
        if self.segments > 1 {
            self.describe(identifications);
        }
    }

    /// The frame.
    pub(super) fn frame(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    /// Makes the headers of the first packet those of the super-packet, as the kernel's own have them: lengths and partial
    /// checksum are those of the whole, from which the kernel takes and to which it adds for each segment.
    fn describe(&mut self, identifications: &mut impl FnMut(usize) -> u16) {
        let form = self.first.form;
        let (said, packet) = self.buffer[..self.length].split_at_mut(VirtioNetHdr::LENGTH);
        let header = VirtioNetHdr {
            flags: VirtioNetHdr::NEEDS_CSUM,
            gso_type: form.gso_type(),
            hdr_len: self.first.headers as u16,
            gso_size: self.first.payload as u16,
            csum_start: form.ip_header() as u16,
            csum_offset: form.checksum_at() as u16,
        };
        said.copy_from_slice(&header.to_bytes());
        let length = packet.len();
        let (ip, upper) = packet.split_at_mut(form.ip_header());
        if form.four {
            put(ip, 2, length as u16);
            let dont_fragment = ip[6] & 0x40 != 0;
            if !dont_fragment && !self.counts_on {
                put(ip, 4, identifications(self.segments));
            }
            put(ip, 10, 0);
            put(ip, 10, Sum::of(ip).checksum());
        } else {
            put(ip, 4, upper.len() as u16);
        }
        let sum = check::pseudo_header(ip, form, upper.len()).fold();
        put(upper, form.checksum_at(), sum);
        if !form.tcp {
            put(upper, 4, upper.len() as u16);
        }
    }
}

/// The identification of IPv4. What lies there of IPv6 means nothing.
#[inline]
fn identification(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[VirtioNetHdr::LENGTH + 4], frame[VirtioNetHdr::LENGTH + 5]])
}

/// The options of TCP.
#[inline]
fn options<'f>(frame: &'f [u8], packet: &Packet) -> &'f [u8] {
    let at = VirtioNetHdr::LENGTH + packet.form.ip_header() + if packet.form.tcp { 20 } else { 8 };
    &frame[at..VirtioNetHdr::LENGTH + packet.headers]
}

fn put(bytes: &mut [u8], at: usize, field: u16) {
    bytes[at..at + 2].copy_from_slice(&field.to_be_bytes());
}
