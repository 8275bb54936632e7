//! A bounded pool of packet buffers, filled by one wake-up and emptied before the next.

/// The shape of a [`Batch`]; all sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLayout {
    /// How many packets one batch holds.
    pub packets: usize,
    /// Room kept free before each packet, for headers that grow.
    pub headroom: usize,
    /// The longest packet that is accepted: the device's MTU.
    pub packet: usize,
    /// Room kept free behind each packet.
    pub tailroom: usize,
}

impl BatchLayout {
    /// One byte more than the longest packet is offered to the kernel, so that a longer one is noticed.
    const fn slot(&self) -> usize {
        self.headroom + self.packet + 1 + self.tailroom
    }

    /// Memory that a batch of this shape takes, in bytes, bookkeeping not counted.
    pub const fn memory(&self) -> usize {
        self.slot() * self.packets
    }
}

impl Default for BatchLayout {
    /// 32 packets of 1500 bytes, 64 bytes before and behind each: 52 KB.
    fn default() -> Self {
        Self { packets: 32, headroom: 64, packet: 1500, tailroom: 64 }
    }
}

/// Packets in buffers allocated once: reading and clearing a batch allocates nothing.
#[derive(Debug)]
pub struct Batch {
    layout: BatchLayout,
    storage: Box<[u8]>,
    lengths: Vec<usize>,
    oversized: u64,
}

impl Batch {
    /// Allocates [`BatchLayout::memory`] bytes.
    pub fn new(layout: BatchLayout) -> Self {
        Self {
            layout,
            storage: vec![0; layout.memory()].into_boxed_slice(),
            lengths: Vec::with_capacity(layout.packets),
            oversized: 0,
        }
    }

    /// The shape it was made with.
    pub fn layout(&self) -> BatchLayout {
        self.layout
    }

    /// How many packets are in it.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether no packet is in it.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Whether no further packet fits.
    pub fn is_full(&self) -> bool {
        self.lengths.len() == self.layout.packets
    }

    /// How many packets were longer than [`BatchLayout::packet`] and were dropped for it, since the batch was made.
    pub fn oversized(&self) -> u64 {
        self.oversized
    }

    /// Forgets the packets; the buffers stay.
    pub fn clear(&mut self) {
        self.lengths.clear();
    }

    /// The packets in the order in which they were read.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let start = self.layout.headroom;
        self.storage
            .chunks_exact(self.layout.slot())
            .zip(&self.lengths)
            .map(move |(slot, length)| &slot[start..start + length])
    }

    /// The packets in the order in which they were read, each with the room around it.
    pub fn slots(&mut self) -> impl Iterator<Item = Slot<'_>> {
        let start = self.layout.headroom;
        self.storage
            .chunks_exact_mut(self.layout.slot())
            .zip(&self.lengths)
            .map(move |(buffer, length)| Slot { buffer, start, length: *length })
    }

    /// One packet by its place, with the room around it.
    pub fn slot(&mut self, place: usize) -> Option<Slot<'_>> {
        let length = *self.lengths.get(place)?;
        let size = self.layout.slot();
        let buffer = self.storage.get_mut(place * size..(place + 1) * size)?;
        Some(Slot { buffer, start: self.layout.headroom, length })
    }

    /// Where the next packet goes, one byte longer than the longest good one; `None` when the batch is full.
    pub fn room(&mut self) -> Option<&mut [u8]> {
        let size = self.layout.slot();
        let slot = self.storage.chunks_exact_mut(size).nth(self.lengths.len())?;
        slot.get_mut(self.layout.headroom..=self.layout.headroom + self.layout.packet)
    }

    /// Accepts the packet that was put into [`Self::room`]. One that is too long is dropped and counted.
    pub fn push(&mut self, length: usize) {
        if length > self.layout.packet {
            self.oversized += 1;
        } else if !self.is_full() {
            self.lengths.push(length);
        }
    }
}

/// One packet with its headroom and tailroom.
#[derive(Debug)]
pub struct Slot<'a> {
    /// Headroom, packet and tailroom.
    pub buffer: &'a mut [u8],
    /// Where the packet starts: the headroom.
    pub start: usize,
    /// How long the packet is.
    pub length: usize,
}

impl Slot<'_> {
    /// The packet alone.
    pub fn packet(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: BatchLayout = BatchLayout { packets: 2, headroom: 4, packet: 8, tailroom: 2 };

    fn put(batch: &mut Batch, packet: &[u8]) {
        batch.room().unwrap()[..packet.len()].copy_from_slice(packet);
        batch.push(packet.len());
    }

    #[test]
    fn packets_come_out_in_order_with_room_on_both_sides() {
        let mut batch = Batch::new(SMALL);
        put(&mut batch, b"first");
        put(&mut batch, b"second");
        assert!(batch.is_full());
        assert!(batch.room().is_none(), "a full batch offers no room");
        assert_eq!(batch.iter().collect::<Vec<_>>(), [&b"first"[..], b"second"]);
        let slot = batch.slot(1).unwrap();
        assert_eq!((slot.packet(), slot.start), (&b"second"[..], 4));
        assert_eq!(slot.buffer.len(), 4 + 8 + 1 + 2);
        assert!(batch.slot(2).is_none());
    }

    #[test]
    fn growing_one_packet_to_the_last_byte_leaves_its_neighbours_alone() {
        let mut batch = Batch::new(SMALL);
        put(&mut batch, b"aaaa");
        put(&mut batch, b"bbbb");
        for byte in batch.slot(0).unwrap().buffer.iter_mut() {
            *byte = 0xff;
        }
        assert_eq!(batch.slot(1).unwrap().packet(), b"bbbb");
    }

    #[test]
    fn a_packet_that_is_too_long_is_counted_and_its_slot_used_again() {
        let mut batch = Batch::new(SMALL);
        assert_eq!(batch.room().unwrap().len(), 9, "one byte more than the longest good packet");
        batch.push(9);
        assert_eq!((batch.len(), batch.oversized()), (0, 1));
        put(&mut batch, b"good");
        assert_eq!(batch.iter().collect::<Vec<_>>(), [b"good"]);
    }

    #[test]
    fn clearing_keeps_the_buffers() {
        let mut batch = Batch::new(SMALL);
        put(&mut batch, b"once");
        let before = batch.storage.as_ptr();
        batch.clear();
        assert!(batch.is_empty());
        put(&mut batch, b"again");
        assert_eq!(batch.storage.as_ptr(), before);
    }
}
