//! Joining: consecutive packets of one flow become one super-packet, so that one write to the device takes many of them. What a
//! network card does for what it receives, for what the router sends.
//!
//! The kernel cuts a super-packet into segments where one must be cut, each with a length, a sequence number and a checksum of its
//! own. So a packet is joined only where the kernel's segment will be the packet, byte for byte. Pure: frames come in, frames
//! go out through [`Sink`], and there is no clock.
//!
//! A **frame** is a [`VirtioNetHdr`] and the packet behind it.
//!
//! - **What is joined**: TCP and UDP behind plain headers (IPv4 without options, IPv6 without extension headers, no fragment, nothing
//!   behind the packet), with all fields equal but those that are counted on. TCP that goes on where the packet before it ended;
//!   ACK alone, with PSH or FIN on the last one. Payloads as long as the first one's; a shorter one is the last.
//! - **Checksums** are made afresh for each segment, which would make a corrupted packet a good one. So both must be right before two
//!   packets are joined: verified by the kernel, or left to it with a right pseudo-header, or else verified here. A packet that meets
//!   no second one is not looked at.
//! - **Order** within a flow is kept. What cannot be joined goes straight on, and what waits of its flow goes before it, or all that
//!   waits if nobody can tell its flow. ICMP and other protocols wait for nobody. Nothing waits beyond its batch.
//! - **Identifications**: with DF set they say nothing (RFC 6864 §4.1), and the segments count on from the first one's. Without
//!   DF the packets keep theirs if each is one more than that before it, as those of one flow are that come in a row. Else a super-packet
//!   gets as many new ones as it has segments.

mod check;
mod group;
mod packet;
#[cfg(test)]
mod tests;

use interproto::VirtioNetHdr;

use group::Group;
use packet::{Class, Flow, Packet};

/// Super-packets that can be in the making. A look-up compares with each of them, and a batch of 64 packets has seldom more flows
/// that are worth it.
const GROUPS: usize = 8;

/// Segments of a super-packet: `UDP_MAX_SEGMENTS` of kernels before 6.9. It is a batch, and 64 KiB of segments of 1024 bytes.
const MAX_SEGMENTS: usize = 64;

/// The longest super-packet with its IP header, in bytes: the longest that an IPv4 header can say (RFC 791 §3.1).
const MAX_PACKET: usize = u16::MAX as usize;

/// The longest frame, in bytes.
const MAX_FRAME: usize = VirtioNetHdr::LENGTH + MAX_PACKET;

/// What the device takes as super-packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Joins {
    /// TCP over IPv4 and IPv6 (`TUN_F_TSO4` and `TUN_F_TSO6`).
    pub tcp: bool,
    /// UDP over both (`TUN_F_USO4` and `TUN_F_USO6`).
    pub udp: bool,
}

/// Where frames go. What cannot be written is the sink's to count.
pub trait Sink {
    /// Writes one frame that becomes `segments` packets, with `wire_length` bytes of IP packets in all.
    fn write(&mut self, frame: &[u8], segments: usize, wire_length: usize);
}

impl<F: FnMut(&[u8], usize, usize) + ?Sized> Sink for F {
    fn write(&mut self, frame: &[u8], segments: usize, wire_length: usize) {
        self(frame, segments, wire_length);
    }
}

/// Joins the packets of one worker.
///
/// All memory is taken by [`Joiner::new`]: 8 frames of 65,545 bytes, and less than 2 KiB beside them.
#[derive(Debug)]
pub struct Joiner {
    joins: Joins,
    groups: [Group; GROUPS],
    /// The numbers of all groups: first those in use, the oldest first, and then the others.
    order: [usize; GROUPS],
    used: usize,
}

impl Joiner {
    /// Joins what `joins` says; everything else, perhaps all, passes straight through.
    pub fn new(joins: Joins) -> Self {
        let groups = std::array::from_fn(|_| Group::new());
        Self { joins, groups, order: std::array::from_fn(|number| number), used: 0 }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Takes the next frame of a batch. It goes to `sink` at once, or later with others.
    ///
    /// `identifications` gives the first of so many consecutive IPv4 identifications that are not in use.
    pub fn push(
        &mut self,
        frame: &[u8],
        identifications: &mut impl FnMut(usize) -> u16,
        sink: &mut (impl Sink + ?Sized),
    ) {
        match Class::of(frame, self.joins) {
            Class::Joinable(packet) => self.join(frame, packet, identifications, sink),
            Class::Alone(flow) => {
                if let Some(place) = self.find(&flow) {
                    self.close(place, identifications, sink);
                }
                pass(frame, sink);
            }
            Class::Apart => pass(frame, sink),
            Class::Unreadable => {
                self.flush(identifications, sink);
                pass(frame, sink);
            }
        }
    }

    /// Ends a batch: writes all that waits, the oldest first.
    pub fn flush(&mut self, identifications: &mut impl FnMut(usize) -> u16, sink: &mut (impl Sink + ?Sized)) {
        while !self.is_empty() {
            self.close(0, identifications, sink);
        }
    }

    fn join(
        &mut self,
        frame: &[u8],
        packet: Packet,
        identifications: &mut impl FnMut(usize) -> u16,
        sink: &mut (impl Sink + ?Sized),
    ) {
        if let Some(place) = self.find(&packet.flow) {
            let group = &mut self.groups[self.order[place]];
            if group.fits(frame, &packet) && group.is_good() && packet.is_good(frame) {
                if group.add(frame, &packet) {
                    self.close(place, identifications, sink);
                }
                return;
            }
            self.close(place, identifications, sink);
        }
        if packet.is_last() {
            // Nothing can follow it in its super-packet: that saves the copy.
            pass(frame, sink);
            return;
        }
        if self.used == GROUPS {
            self.close(0, identifications, sink);
        }
        self.groups[self.order[self.used]].begin(frame, packet);
        self.used += 1;
    }

    /// The place of the group of this flow.
    #[inline]
    fn find(&self, flow: &Flow) -> Option<usize> {
        self.order[..self.used].iter().position(|number| self.groups[*number].is_of(flow))
    }

    /// Writes a group, whose place is free then.
    fn close(
        &mut self,
        place: usize,
        identifications: &mut impl FnMut(usize) -> u16,
        sink: &mut (impl Sink + ?Sized),
    ) {
        let number = self.order[place];
        self.order[place..self.used].rotate_left(1);
        self.used -= 1;
        let group = &mut self.groups[number];
        group.finish(identifications);
        sink.write(group.frame(), group.segments(), group.wire_length());
    }
}

/// Writes a frame as it came.
pub fn pass(frame: &[u8], sink: &mut (impl Sink + ?Sized)) {
    // A frame has a header; a piece of one is nothing that a device takes, and is the sink's to count.
    let (said, length) = match frame.split_first_chunk() {
        Some((said, packet)) => (VirtioNetHdr::from_bytes(*said), packet.len()),
        None => (VirtioNetHdr::default(), 0),
    };
    sink.write(frame, said.segments(length), said.wire_length(length));
}
