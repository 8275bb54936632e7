//! A bounded pool of packet buffers, filled by one wake-up and emptied before the next.

use std::ops::Range;

/// The shape of a [`Batch`]; all sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLayout {
    /// How many packets one batch holds.
    pub packets: usize,
    /// Once the packets take so much, no more are read: what is in a processor's cache is dealt with first.
    pub bytes: usize,
    /// Room kept free before each packet, for headers that grow; the header of the frame lies at its end.
    pub headroom: usize,
    /// The longest packet that is accepted: the device's MTU, or 65,575 for super-packets (an IPv6 header and what its length
    /// field can say).
    pub packet: usize,
}

/// Packets begin at a multiple of this, plus the headroom: a cache line.
const ALIGNMENT: usize = 64;

impl BatchLayout {
    /// What a packet of this length takes.
    const fn slot(&self, length: usize) -> usize {
        (self.headroom + length).next_multiple_of(ALIGNMENT)
    }

    /// Memory that a batch of this shape takes, in bytes, bookkeeping not counted: the packets before the last one, and the longest
    /// one behind them. One byte more than that is offered to the kernel, so that a longer one is noticed.
    pub const fn memory(&self) -> usize {
        self.bytes.next_multiple_of(ALIGNMENT) + self.slot(self.packet + 1)
    }
}

impl Default for BatchLayout {
    /// 64 packets, or 32 KiB and a super-packet, 64 bytes before each: 98 KB.
    fn default() -> Self {
        Self { packets: 64, bytes: 32 << 10, headroom: 64, packet: 65_535 + 40 }
    }
}

/// Packets one behind the other in memory that is allocated once: reading and clearing a batch allocates nothing. Small ones lie close
/// together, and a batch of the longest ones takes no more than one of them.
#[derive(Debug)]
pub struct Batch {
    layout: BatchLayout,
    header: usize,
    storage: Box<[u8]>,
    packets: Vec<Range<usize>>,
    /// Where the next packet's headroom begins.
    next: usize,
    oversized: u64,
}

impl Batch {
    /// Allocates [`BatchLayout::memory`] bytes, for a queue with a header of this length in front of packets
    /// ([`PacketIo::header`](crate::PacketIo::header)).
    ///
    /// # Panics
    /// When the header does not fit into the headroom.
    pub fn new(layout: BatchLayout, header: usize) -> Self {
        assert!(header <= layout.headroom, "a header of {header} bytes needs as much headroom");
        Self {
            layout,
            header,
            storage: vec![0; layout.memory()].into_boxed_slice(),
            packets: Vec::with_capacity(layout.packets),
            next: 0,
            oversized: 0,
        }
    }

    /// The shape it was made with.
    pub fn layout(&self) -> BatchLayout {
        self.layout
    }

    /// How many packets are in it.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether no packet is in it.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Whether no further packet is to be read.
    pub fn is_full(&self) -> bool {
        self.packets.len() == self.layout.packets || self.next >= self.layout.bytes.max(1)
    }

    /// How many packets were longer than [`BatchLayout::packet`], or shorter than the header in front of them, and were dropped for it,
    /// since the batch was made.
    pub fn oversized(&self) -> u64 {
        self.oversized
    }

    /// Forgets the packets; the memory stays.
    pub fn clear(&mut self) {
        self.packets.clear();
        self.next = 0;
    }

    /// The packets in the order in which they were read, without the headers in front of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.packets.iter().map(|packet| &self.storage[packet.clone()])
    }

    /// The same with the headers.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.packets.iter().map(|packet| &self.storage[packet.start - self.header..packet.end])
    }

    /// One packet by its place, with the room before it.
    pub fn slot(&mut self, place: usize) -> Option<Slot<'_>> {
        let packet = self.packets.get(place)?.clone();
        let (start, length) = (self.layout.headroom, packet.len());
        let buffer = self.storage.get_mut(packet.start - start..packet.end)?;
        Some(Slot { buffer, start, length, header: self.header })
    }

    /// Where the next frame goes: its header, and one byte more than the longest good packet; `None` when the batch is full.
    pub fn room(&mut self) -> Option<&mut [u8]> {
        if self.is_full() {
            return None;
        }
        let start = self.next + self.layout.headroom;
        self.storage.get_mut(start - self.header..=start + self.layout.packet)
    }

    /// Accepts the frame of this length, header and packet, that was put into [`Self::room`]. One that is too long or too short is
    /// dropped and counted.
    pub fn push(&mut self, length: usize) {
        match length.checked_sub(self.header) {
            Some(length) if length <= self.layout.packet => {
                if !self.is_full() {
                    let start = self.next + self.layout.headroom;
                    self.packets.push(start..start + length);
                    self.next += self.layout.slot(length);
                }
            }
            _ => self.oversized += 1,
        }
    }
}

/// One packet with the room before it.
#[derive(Debug)]
pub struct Slot<'a> {
    /// Headroom and packet.
    pub buffer: &'a mut [u8],
    /// Where the packet starts: the headroom.
    pub start: usize,
    /// How long the packet is.
    pub length: usize,
    header: usize,
}

impl Slot<'_> {
    /// The packet alone.
    pub fn packet(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.length]
    }

    /// What the kernel said about it; empty on a queue of bare packets.
    pub fn header(&self) -> &[u8] {
        &self.buffer[self.start - self.header..self.start]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: BatchLayout = BatchLayout { packets: 3, bytes: 200, headroom: 4, packet: 100 };

    fn put(batch: &mut Batch, frame: &[u8]) {
        batch.room().unwrap()[..frame.len()].copy_from_slice(frame);
        batch.push(frame.len());
    }

    #[test]
    fn packets_come_out_in_order_with_room_before_them() {
        let mut batch = Batch::new(SMALL, 0);
        put(&mut batch, b"first");
        put(&mut batch, b"second");
        put(&mut batch, b"third");
        assert!(batch.is_full());
        assert!(batch.room().is_none(), "a full batch offers no room");
        assert_eq!(batch.iter().collect::<Vec<_>>(), [&b"first"[..], b"second", b"third"]);
        let slot = batch.slot(1).unwrap();
        assert_eq!((slot.packet(), slot.start, slot.header()), (&b"second"[..], 4, &[][..]));
        assert_eq!(slot.buffer.len(), 4 + 6);
        assert!(batch.slot(3).is_none());
    }

    #[test]
    fn the_header_lies_directly_before_its_packet_and_comes_with_the_frame() {
        let mut batch = Batch::new(SMALL, 2);
        put(&mut batch, b"h1one");
        put(&mut batch, b"h2two");
        assert_eq!(batch.iter().collect::<Vec<_>>(), [b"one", b"two"]);
        assert_eq!(batch.frames().collect::<Vec<_>>(), [b"h1one", b"h2two"]);
        assert_eq!(batch.slot(1).unwrap().header(), b"h2");
        put(&mut batch, b"h");
        assert_eq!((batch.len(), batch.oversized()), (2, 1), "half a header is no frame");
    }

    #[test]
    fn growing_one_packet_into_its_headroom_leaves_its_neighbours_alone() {
        let mut batch = Batch::new(SMALL, 2);
        for frame in [b"hhaaaa", b"hhbbbb", b"hhcccc"] {
            put(&mut batch, frame);
        }
        batch.slot(1).unwrap().buffer.fill(0xff);
        assert_eq!(batch.slot(0).unwrap().packet(), b"aaaa");
        let last = batch.slot(2).unwrap();
        assert_eq!((last.header(), last.packet()), (&b"hh"[..], &b"cccc"[..]));
    }

    #[test]
    fn no_more_are_read_once_the_bytes_are_used_up_and_the_last_may_be_of_any_length() {
        let mut batch = Batch::new(SMALL, 0);
        put(&mut batch, &[1; 100]);
        assert!(!batch.is_full(), "128 of 200 bytes");
        put(&mut batch, &[2; 100]);
        assert!(batch.is_full(), "256 of 200 bytes");
        assert_eq!(batch.iter().collect::<Vec<_>>(), [[1; 100], [2; 100]]);
        batch.clear();
        assert!(!batch.is_full());
    }

    #[test]
    fn a_packet_that_is_too_long_is_counted_and_its_room_used_again() {
        let mut batch = Batch::new(SMALL, 2);
        assert_eq!(batch.room().unwrap().len(), 2 + 101, "one byte more than the longest good packet");
        batch.push(2 + 101);
        assert_eq!((batch.len(), batch.oversized()), (0, 1));
        put(&mut batch, b"..good");
        assert_eq!(batch.iter().collect::<Vec<_>>(), [b"good"]);
    }

    #[test]
    fn clearing_keeps_the_memory() {
        let mut batch = Batch::new(SMALL, 0);
        put(&mut batch, b"once");
        let before = batch.storage.as_ptr();
        batch.clear();
        assert!(batch.is_empty());
        put(&mut batch, b"again");
        assert_eq!(batch.storage.as_ptr(), before);
    }

    #[test]
    fn the_memory_of_the_default_is_what_its_documentation_says() {
        assert_eq!(BatchLayout::default().memory() / 1000, 98);
    }
}
