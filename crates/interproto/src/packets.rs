//! What a translation yields: one packet, or several.

use crate::headers::{FRAGMENT, Fragment, IPV6, Ipv6Header};

/// The outcome of a translation.
#[derive(Debug)]
pub enum Verdict<'a> {
    /// Translated, into one packet or several.
    Forward(Packets<'a>),
    /// Not translated, and unchanged.
    Drop(crate::DropReason),
}

/// The packets that a translation yields, one after the other, each in the caller's storage: the next one overwrites parts
/// of the one before. Packets that are not asked for are not made.
#[derive(Debug)]
pub struct Packets<'a> {
    storage: &'a mut [u8],
    left: Left,
}

#[derive(Debug)]
enum Left {
    Nothing,
    One { start: usize, end: usize },
    Fragments(Fragments),
}

/// The rest of an IPv4 payload that is still to be sent in IPv6 fragments.
#[derive(Debug)]
pub(crate) struct Fragments {
    /// The header of the first fragment; length, offset and the M bit are set for each.
    pub(crate) header: Ipv6Header,
    /// The header's fragment part: identification, offset of the whole, and whether more follows behind it.
    pub(crate) fragment: Fragment,
    /// Where the payload that is left begins.
    pub(crate) at: usize,
    /// Where it ends.
    pub(crate) end: usize,
    /// Payload bytes of each fragment but the last, a multiple of eight.
    pub(crate) each: usize,
}

impl<'a> Packets<'a> {
    pub(crate) fn one(storage: &'a mut [u8], start: usize, end: usize) -> Self {
        Self { storage, left: Left::One { start, end } }
    }

    pub(crate) fn fragments(storage: &'a mut [u8], fragments: Fragments) -> Self {
        Self { storage, left: Left::Fragments(fragments) }
    }

    /// The next packet.
    #[allow(
        clippy::should_implement_trait,
        reason = "each packet borrows the storage, which an iterator cannot say"
    )]
    pub fn next(&mut self) -> Option<&[u8]> {
        let (start, end) = match &mut self.left {
            Left::Nothing => return None,
            Left::One { start, end } => {
                let range = (*start, *end);
                self.left = Left::Nothing;
                range
            }
            Left::Fragments(fragments) => {
                let range = fragments.write_next(self.storage);
                if fragments.at >= fragments.end {
                    self.left = Left::Nothing;
                }
                range
            }
        };
        self.storage.get(start..end)
    }
}

impl Fragments {
    /// Writes the next fragment's header in front of its payload, over payload that has been sent already.
    fn write_next(&mut self, storage: &mut [u8]) -> (usize, usize) {
        let end = self.end.min(self.at + self.each);
        let length = end - self.at;
        let last = end == self.end;
        let fragment = Fragment { more: self.fragment.more || !last, ..self.fragment };
        let header = Ipv6Header { payload_length: length, fragment: Some(fragment), ..self.header };
        let start = self.at - (IPV6 + FRAGMENT);
        header.write(storage, start);
        self.at = end;
        self.fragment.offset += (length / 8) as u16;
        (start, end)
    }
}
