//! One datagram: which parts of it have come, and what is parked of it.

use fast_nat::Timestamp;
use interproto::{FragmentPart, HEADROOM, Ports};

use super::order::Link;
use super::table::Place;
use super::{FragmentRefusal, Key, Whole};

/// The longest payload (RFC 791 §3.1, RFC 8200 §4.5), in bytes. It keeps both ends of a span in 16 bits.
const LONGEST: usize = 65_535;

/// What the allocator keeps for itself of each block, in bytes, rounded up.
const BLOCK: usize = 16;

/// ECN codepoints (RFC 3168 §5), as bits of a set.
const NOT_ECT: u8 = 1 << 0b00;
const CE: u8 = 1 << 0b11;

/// The part of a payload that a fragment holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u16,
    end: u16,
}

impl Span {
    fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    fn len(self) -> u16 {
        self.end - self.start
    }
}

/// A fragment whose form is right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fragment<'p> {
    span: Span,
    /// Nothing is behind it.
    is_last: bool,
    /// All of it, with its headers.
    packet: &'p [u8],
}

impl<'p> Fragment<'p> {
    /// `None`: it can be no part of a datagram.
    pub(super) fn read(part: &FragmentPart, storage: &'p [u8]) -> Option<Self> {
        let packet = storage.get(part.payload.start.checked_sub(part.headers)?..part.payload.end)?;
        let length = part.payload.len();
        let end = usize::from(part.offset) + length;
        let fits = part.offset.is_multiple_of(8) && (!part.more || length.is_multiple_of(8));
        (length > 0 && end <= LONGEST && fits).then_some(Self {
            span: Span { start: part.offset, end: end as u16 },
            is_last: !part.more,
            packet,
        })
    }

    fn is_first(&self) -> bool {
        self.span.start == 0
    }
}

/// What a fragment needs to be translated.
#[derive(Debug, Clone, Copy)]
pub(super) enum Need {
    /// The ports of the first one. These are its own, if it is that.
    Ports(Ports),
    /// All the others.
    Whole,
}

/// What is known of a datagram.
#[derive(Debug, Clone, Copy)]
enum State {
    /// Nothing: neither its first fragment has come nor one that needs all the others. What has come is parked.
    Waiting,
    /// The ports of its first fragment, and nothing is parked.
    Passing(Ports),
    /// It is to be put together. What has come is parked.
    Collecting,
    /// It is lost, and nothing is parked.
    Lost(FragmentRefusal),
}

/// What is to be done with a fragment.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Pass(Ports),
    Release(Ports),
    Park,
}

/// Why nothing is to be done with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It alone goes nowhere.
    Refuse(FragmentRefusal),
    /// Its datagram is lost with it.
    Lose(FragmentRefusal),
}

/// One datagram.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) links: [Link; 2],
    /// Whose share it is part of.
    pub(super) source: Place,
    /// When its time is over.
    pub(super) until: Timestamp,
    /// The bytes that it is charged for, beside its place in the tables.
    pub(super) charged: usize,
    state: State,
    /// Where it ends, when that is known.
    end: Option<u16>,
    /// Bytes that have come.
    seen: u16,
    /// The parts that have come, in their order of arrival. None overlap.
    spans: Vec<Span>,
    /// The packets of the same parts, if they are parked.
    parked: Vec<Box<[u8]>>,
}

impl Datagram {
    pub(super) fn new(source: Place, until: Timestamp) -> Self {
        Self {
            links: [Link::default(); 2],
            source,
            until,
            charged: 0,
            state: State::Waiting,
            end: None,
            seen: 0,
            spans: Vec::new(),
            parked: Vec::new(),
        }
    }

    /// How many packets are parked.
    pub(super) fn parked(&self) -> usize {
        self.parked.len()
    }

    /// What is to be done with this fragment of at most `most`. Nothing changes yet.
    pub(super) fn judge(&self, fragment: &Fragment<'_>, need: Need, most: usize) -> Result<Step, Trouble> {
        if let State::Lost(reason) = self.state {
            return Err(Trouble::Refuse(reason));
        }
        self.judge_span(fragment)?;
        let step = match (self.state, need) {
            // The first one was no ICMP. What comes now would never be complete (RFC 8200 §4.5: the first one decides).
            (State::Passing(_), Need::Whole) => return Err(Trouble::Refuse(FragmentRefusal::Malformed)),
            (State::Passing(ports), Need::Ports(_)) => Step::Pass(ports),
            (State::Waiting, Need::Ports(ports)) if fragment.is_first() => Step::Release(ports),
            _ => Step::Park,
        };
        if self.spans.len() >= most {
            return Err(Trouble::Lose(FragmentRefusal::TooManyFragments));
        }
        Ok(step)
    }

    /// Whether it fits to those that have come.
    fn judge_span(&self, fragment: &Fragment<'_>) -> Result<(), Trouble> {
        let Fragment { span, is_last, .. } = *fragment;
        // A second end overlaps the first, or is before or behind it.
        let mut contradicts = self.end.is_some_and(|end| span.end > end);
        for other in &self.spans {
            if *other == span && is_last == (self.end == Some(other.end)) {
                return Err(Trouble::Refuse(FragmentRefusal::Duplicate));
            }
            contradicts |= other.overlaps(span) || (is_last && other.end > span.end);
        }
        if contradicts { Err(Trouble::Lose(FragmentRefusal::Overlap)) } else { Ok(()) }
    }

    /// The bytes that this is to be charged for when the step is done: at least what is allocated then.
    pub(super) fn charge(&self, step: Step, fragment: &Fragment<'_>) -> usize {
        let count = self.spans.len() + 1;
        // A vector begins with room for four, and doubles it.
        let room = count.next_power_of_two().max(4);
        let spans = BLOCK + room * size_of::<Span>();
        match step {
            Step::Pass(_) | Step::Release(_) => spans,
            Step::Park => {
                let packets = self.parked.iter().map(|packet| packet.len()).sum::<usize>();
                let slots = BLOCK + room * size_of::<Box<[u8]>>();
                spans + slots + count * BLOCK + packets + fragment.packet.len()
            }
        }
    }

    /// Does the step that [`Self::judge`] has decided on.
    pub(super) fn place(&mut self, fragment: &Fragment<'_>, need: Need, step: Step) {
        self.spans.push(fragment.span);
        self.seen += fragment.span.len();
        if fragment.is_last {
            self.end = Some(fragment.span.end);
        }
        match step {
            Step::Pass(_) => {}
            Step::Release(ports) => self.state = State::Passing(ports),
            Step::Park => {
                if matches!(need, Need::Whole) {
                    self.state = State::Collecting;
                }
                self.parked.push(fragment.packet.into());
            }
        }
    }

    /// Hands out what is parked, in its order of arrival.
    pub(super) fn release(&mut self) -> Vec<Box<[u8]>> {
        std::mem::take(&mut self.parked)
    }

    /// Whether every part has come, and passed or is parked.
    pub(super) fn is_complete(&self) -> bool {
        self.end == Some(self.seen)
    }

    /// Loses what is parked, and whatever will come. Answers with how many packets were parked.
    pub(super) fn lose(&mut self, reason: FragmentRefusal) -> usize {
        self.state = State::Lost(reason);
        self.spans = Vec::new();
        self.release().len()
    }

    /// Puts a complete datagram together, all parts of which are parked.
    pub(super) fn put_together(&self, key: &Key) -> Result<Whole, FragmentRefusal> {
        let parts = || self.spans.iter().zip(&self.parked).map(|(span, packet)| (span, split(span, packet)));
        let (_, (headers, _)) =
            parts().find(|(span, _)| span.start == 0).ok_or(FragmentRefusal::Malformed)?;
        let payload_at = HEADROOM + headers.len();
        let mut storage = vec![0; payload_at + usize::from(self.seen)].into_boxed_slice();
        storage[HEADROOM..payload_at].copy_from_slice(headers);
        let mut codepoints = 0;
        for (span, (headers, payload)) in parts() {
            let at = payload_at + usize::from(span.start);
            storage[at..at + payload.len()].copy_from_slice(payload);
            codepoints |= 1 << ecn(key, headers);
        }
        let packet = HEADROOM..storage.len();
        if codepoints & CE != 0 {
            if codepoints & NOT_ECT != 0 {
                return Err(FragmentRefusal::MixedEcn);
            }
            set_ce(key, &mut storage[packet.clone()]);
        }
        Ok(Whole { storage, packet })
    }
}

/// The headers of a packet, and its part of the payload.
fn split<'p>(span: &Span, packet: &'p [u8]) -> (&'p [u8], &'p [u8]) {
    packet.split_at(packet.len() - usize::from(span.len()))
}

/// The ECN codepoint of a packet.
fn ecn(key: &Key, packet: &[u8]) -> u8 {
    let byte = packet.get(1).copied().unwrap_or(0);
    match key {
        Key::V4 { .. } => byte & 0b11,
        Key::V6 { .. } => byte >> 4 & 0b11,
    }
}

/// Says in the headers of a packet that there is congestion (RFC 3168 §5). Its checksum is for `check_reassembled`.
fn set_ce(key: &Key, packet: &mut [u8]) {
    if let Some(byte) = packet.get_mut(1) {
        *byte |= match key {
            Key::V4 { .. } => 0b11,
            Key::V6 { .. } => 0b11 << 4,
        };
    }
}

#[cfg(test)]
impl Datagram {
    /// Bytes that are allocated, as they are.
    pub(super) fn allocated(&self) -> usize {
        let blocks = usize::from(self.spans.capacity() > 0) + usize::from(self.parked.capacity() > 0);
        (blocks + self.parked.len()) * BLOCK
            + self.spans.capacity() * size_of::<Span>()
            + self.parked.capacity() * size_of::<Box<[u8]>>()
            + self.parked.iter().map(|packet| packet.len()).sum::<usize>()
    }
}
