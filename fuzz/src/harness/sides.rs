//! Both directions under one set of names.

use super::{
    Case, Door, DropReason, EmbeddedRewrite, FragmentPart, HOST4, HOST6, Icmpv4Error, Icmpv6Error,
    Ipv4Packet, Ipv6Packet, OWN4, OWN6, PEER4, PEER6, PortRewrite, Ports, Protocol, Rewrite, Tuple, Verdict,
    VirtioNetHdr, model,
};
use model::own;
use model::read::Ip;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// A tuple with addresses as bytes.
pub(super) type Talk = (Vec<u8>, Vec<u8>, Protocol, Ports);

pub(super) trait Side<'s>: Sized {
    fn check(storage: &'s mut [u8], range: Range<usize>, door: Door) -> Result<Self, DropReason>;
    fn talk(&self) -> (Talk, Option<Talk>);
    fn part(&self) -> (Option<FragmentPart>, usize);
    /// Bytes on the wire, by all IP lengths.
    fn wire_length(&self) -> usize;
    fn clamp_mss(&mut self, most: u16) -> bool;
    fn refusal(&self) -> Option<DropReason>;
    fn translate(&mut self, case: &Case) -> Verdict<'_>;
    fn answer(self, reason: DropReason, case: &Case) -> Option<&'s [u8]>;
    /// The same as a frame.
    fn answer_framed(self, reason: DropReason, case: &Case) -> Option<&'s [u8]>;
    /// An error of this number, of a few.
    fn error(self, number: u8, case: &Case) -> Option<&'s [u8]>;
    /// What the model says of the same.
    fn expected_answer(
        reason: DropReason,
        packet: &[u8],
        ip: &Ip,
        said: &VirtioNetHdr,
        case: &Case,
    ) -> Option<Vec<u8>>;
    fn expected_error(
        number: u8,
        packet: &[u8],
        ip: &Ip,
        said: &VirtioNetHdr,
        case: &Case,
    ) -> Option<Vec<u8>>;
}

/// Addresses and ports that the packet leaves with.
fn rewrite<A: Copy>(case: &Case, source: A, destination: A) -> Rewrite<A> {
    let ports = case.inner_ports.unwrap_or(PortRewrite::Keep);
    // The packet inside an error went the other way.
    let embedded = EmbeddedRewrite { source: destination, destination: source, ports };
    let ports = case.ports.unwrap_or(PortRewrite::Keep);
    Rewrite { source, destination, ports, embedded: (!case.unrelated).then_some(embedded) }
}

macro_rules! side {
    (
        $packet:ident, $address:ty, $error:ident, $model:path, $own:ident, $from:expr, $to:expr, $errors:expr,
        |$expected:ident| $some:expr,
        |$this:ident, $rewrite:ident, $case:ident| $translate:expr
    ) => {
        impl<'s> Side<'s> for $packet<'s> {
            fn check(storage: &'s mut [u8], range: Range<usize>, door: Door) -> Result<Self, DropReason> {
                match door {
                    Door::Plain => Self::check(storage, range),
                    Door::Reassembled => Self::check_reassembled(storage, range),
                    Door::Offloaded(said) => Self::check_offloaded(storage, range, &said),
                }
            }

            fn talk(&self) -> (Talk, Option<Talk>) {
                let talk = |tuple: Tuple<$address>| {
                    let (from, to) = (tuple.source.octets().to_vec(), tuple.destination.octets().to_vec());
                    (from, to, tuple.protocol, tuple.ports)
                };
                (talk(self.tuple()), self.embedded().map(talk))
            }

            fn part(&self) -> (Option<FragmentPart>, usize) {
                (self.fragment(), self.segments())
            }

            fn wire_length(&self) -> usize {
                Self::wire_length(self)
            }

            fn clamp_mss(&mut self, most: u16) -> bool {
                Self::clamp_mss(self, most)
            }

            fn refusal(&self) -> Option<DropReason> {
                Self::refusal(self)
            }

            fn translate(&mut self, $case: &Case) -> Verdict<'_> {
                let ($this, $rewrite) = (self, rewrite($case, $from, $to));
                $translate
            }

            fn answer(self, reason: DropReason, case: &Case) -> Option<&'s [u8]> {
                Self::answer(self, reason, $own, &case.params)
            }

            fn error(self, number: u8, case: &Case) -> Option<&'s [u8]> {
                let errors: &[$error] = &$errors;
                Self::error(self, errors[usize::from(number) % errors.len()], $own, &case.params)
            }

            fn answer_framed(self, reason: DropReason, case: &Case) -> Option<&'s [u8]> {
                Self::answer_framed(self, reason, $own, &case.params)
            }

            fn expected_answer(
                reason: DropReason,
                packet: &[u8],
                ip: &Ip,
                said: &VirtioNetHdr,
                case: &Case,
            ) -> Option<Vec<u8>> {
                let error = $error::of(reason).filter(|_| own::may_be_answered(ip))?;
                let $expected = $model(error, packet, ip, said, &$own.octets(), &case.params);
                $some
            }

            fn expected_error(
                number: u8,
                packet: &[u8],
                ip: &Ip,
                said: &VirtioNetHdr,
                case: &Case,
            ) -> Option<Vec<u8>> {
                let errors: &[$error] = &$errors;
                let error =
                    Some(errors[usize::from(number) % errors.len()]).filter(|_| own::may_be_answered(ip))?;
                let $expected = $model(error, packet, ip, said, &$own.octets(), &case.params);
                $some
            }
        }
    };
}

/// The error that a reason's documentation names.
trait Named: Sized {
    fn of(reason: DropReason) -> Option<Self>;
}

impl Named for Icmpv6Error {
    fn of(reason: DropReason) -> Option<Self> {
        Some(match reason {
            _ if !own::is_answered(reason, true) => return None,
            DropReason::SegmentsLeft => Self::RoutingHeader,
            DropReason::FirstFragmentTooShort => Self::IncompleteHeaderChain,
            DropReason::HopLimitExceeded => Self::TimeExceeded,
            DropReason::TooBig => Self::PacketTooBig,
            _ => Self::DestinationUnreachable { code: 1 },
        })
    }
}

impl Named for Icmpv4Error {
    fn of(reason: DropReason) -> Option<Self> {
        Some(match reason {
            _ if !own::is_answered(reason, false) => return None,
            DropReason::SourceRoute => Self::DestinationUnreachable { code: 5 },
            DropReason::HopLimitExceeded => Self::TimeExceeded,
            DropReason::TooBig => Self::FragmentationNeeded,
            _ => Self::DestinationUnreachable { code: 13 },
        })
    }
}

side!(
    Ipv6Packet,
    Ipv6Addr,
    Icmpv6Error,
    own::six,
    OWN6,
    HOST4,
    PEER4,
    [
        Icmpv6Error::DestinationUnreachable { code: 3 },
        Icmpv6Error::PacketTooBig,
        Icmpv6Error::TimeExceeded,
        Icmpv6Error::RoutingHeader,
        Icmpv6Error::IncompleteHeaderChain,
    ],
    |expected| expected,
    |this, rewrite, case| this.translate(&rewrite, |_| case.identification, &case.params)
);

side!(
    Ipv4Packet,
    Ipv4Addr,
    Icmpv4Error,
    own::four,
    OWN4,
    PEER6,
    HOST6,
    [
        Icmpv4Error::DestinationUnreachable { code: 1 },
        Icmpv4Error::FragmentationNeeded,
        Icmpv4Error::TimeExceeded,
    ],
    |expected| Some(expected),
    |this, rewrite, case| this.translate(&rewrite, &case.params)
);
