#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]
// The way of an ordinary packet must become one function at its caller's, with the checked packet in registers: out of line,
// one moves it through memory three times, and each move waits for narrow stores. Measured: 84 ns a packet against 21 ns; and 42 ns
// where two callers shared one function that was only hinted to be inlined.
#![allow(clippy::inline_always, reason = "see above")]

#[cfg(test)]
extern crate std;

mod bytes;
mod checksum;
mod headers;
mod icmp;
mod ipv4;
mod ipv6;
mod mss;
mod offload;
mod own;
mod packets;
mod params;
mod parse;
mod reason;
mod rewrite;
mod tuple;
mod upper;

pub use checksum::Sum;
pub use ipv4::Ipv4Packet;
pub use ipv6::Ipv6Packet;
pub use offload::VirtioNetHdr;
pub use own::{Icmpv4Error, Icmpv6Error};
pub use packets::{Packets, Verdict};
pub use params::{Params, TrafficClass, ZeroChecksum};
pub use reason::DropReason;
pub use rewrite::{EmbeddedRewrite, PortRewrite, Rewrite};
pub use tuple::{FragmentPart, Ports, Protocol, Tuple};

/// Bytes that must be free in front of a packet.
///
/// The worst case is 62: an IPv4 ICMP error with a fragment inside (20 + 8 + 20 bytes of headers) becomes an IPv6 one (40 +
/// 8 + 40 + 8), and if RFC 4884 extensions follow, the packet inside is padded by up to 4 bytes to a multiple of eight; that is 52,
/// and a frame has [`VirtioNetHdr::LENGTH`] bytes in front of its packet. An ICMP error about an IPv6 packet has 40 + 8 bytes in
/// front of it, and those of a frame. The rest keeps the packet at the beginning of a cache line where the buffer is.
pub const HEADROOM: usize = 64;
