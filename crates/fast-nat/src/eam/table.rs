use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Eam, InvalidEam};

/// The explicit address mapping table (RFC 7757 §3.1): never changes once it is made.
///
/// Mappings may overlap. In each direction the longest prefix that holds an address decides, apart from the other
/// direction: with overlapping mappings an address may come back as another one (RFC 7757 §5).
///
/// A NAT64 asks it for the side of the host alone: for the source of a packet from IPv6, and the destination of one from IPv4.
/// The other address is translated by the translation prefix even if it is mapped. That is what makes hairpinning work (RFC 7757
/// §4): a host that saw the IPv6 address of another one behind the same translator would answer it directly, and the other would
/// not know the answer.
#[derive(Debug, Clone, Default)]
pub struct EamTable {
    eams: Box<[Eam]>,
    by_v4: Ranges<u32>,
    by_v6: Ranges<u128>,
}

impl EamTable {
    /// The table of these mappings. No two may have the same IPv4 prefix or the same IPv6 prefix.
    pub fn new(eams: Vec<Eam>) -> Result<Self, InvalidEam> {
        let (mut seen_v4, mut seen_v6) = (HashSet::new(), HashSet::new());
        for eam in &eams {
            if !seen_v4.insert(eam.ipv4) {
                return Err(InvalidEam::Twice4(eam.ipv4));
            }
            if !seen_v6.insert(eam.ipv6) {
                return Err(InvalidEam::Twice6(eam.ipv6));
            }
        }
        let v4 = eams.iter().map(|eam| (eam.ipv4.network().to_bits(), eam.ipv4.broadcast().to_bits()));
        let v6 = eams.iter().map(|eam| (eam.ipv6.network().to_bits(), eam.ipv6.broadcast().to_bits()));
        let (by_v4, by_v6) = (Ranges::new(v4.collect()), Ranges::new(v6.collect()));
        Ok(Self { eams: eams.into(), by_v4, by_v6 })
    }

    /// The IPv6 address that an IPv4 address is mapped to, if it is mapped.
    #[inline]
    pub fn to_v6(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        let place = self.by_v4.find(address.to_bits())?;
        self.eams.get(place).map(|eam| eam.embed(address))
    }

    /// The IPv4 address that an IPv6 address is mapped to, if it is mapped.
    #[inline]
    pub fn to_v4(&self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let place = self.by_v6.find(address.to_bits())?;
        self.eams.get(place).map(|eam| eam.extract(address))
    }

    /// The mappings, in the order in which they were given.
    pub fn eams(&self) -> &[Eam] {
        &self.eams
    }

    /// Whether there are no mappings.
    pub fn is_empty(&self) -> bool {
        self.eams.is_empty()
    }
}

/// What a range leads to where no prefix holds it.
const NOTHING: u32 = u32::MAX;

/// Nested prefixes, laid flat: ranges of addresses in ascending order, each with the longest prefix that holds it. A range
/// ends where the next one begins. The longest match is a binary search then, at most 2 ranges for each prefix.
///
/// A table that never changes needs no trie: with up to thousands of prefixes this took half the time of one hash table for
/// each length, and a fifth or less of the tries that were compared (IPv6). Only with 100,000 did the hash tables win.
#[derive(Debug, Clone, Default)]
struct Ranges<B> {
    /// Where ranges begin: the search touches nothing else.
    starts: Box<[B]>,
    places: Box<[u32]>,
}

trait Bits: Copy + Ord {
    /// The next address.
    fn next(self) -> Option<Self>;
}

impl Bits for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Bits for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl<B: Bits> Ranges<B> {
    /// `prefixes`: the first and last address of each. Two of them are nested or apart, and no two the same.
    fn new(prefixes: Vec<(B, B)>) -> Self {
        let mut prefixes: Vec<_> =
            (0_u32..).zip(prefixes).map(|(place, (first, last))| (first, last, place)).collect();
        // An outer prefix before the inner ones that begin where it does.
        prefixes.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        let mut ranges: Vec<(B, u32)> = Vec::new();
        let mut begin = |at: B, place: u32| match ranges.last_mut() {
            Some(range) if range.0 == at => range.1 = place,
            _ => ranges.push((at, place)),
        };
        // The prefixes that hold the present address, outermost first.
        let mut open: Vec<(B, u32)> = Vec::new();
        for (first, last, place) in prefixes {
            close(&mut open, Some(first), &mut begin);
            begin(first, place);
            open.push((last, place));
        }
        close(&mut open, None, &mut begin);
        let (starts, places): (Vec<_>, Vec<_>) = ranges.into_iter().unzip();
        Self { starts: starts.into(), places: places.into() }
    }

    #[inline]
    fn find(&self, address: B) -> Option<usize> {
        let after = self.starts.partition_point(|start| *start <= address);
        let place = *self.places.get(after.checked_sub(1)?)?;
        (place != NOTHING).then_some(place as usize)
    }
}

/// Ends the open prefixes that end before `until`, or all.
fn close<B: Bits>(open: &mut Vec<(B, u32)>, until: Option<B>, begin: &mut impl FnMut(B, u32)) {
    while let Some((last, _)) = open.last().copied()
        && until.is_none_or(|until| last < until)
    {
        open.pop();
        if let Some(next) = last.next() {
            begin(next, open.last().map_or(NOTHING, |(_, outer)| *outer));
        }
    }
}
