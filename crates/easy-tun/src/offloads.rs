//! What the kernel leaves to whoever reads a device, and takes unfinished from whoever writes to it.

use std::fmt;
use std::os::fd::BorrowedFd;

use bitflags::bitflags;
use nix::errno::Errno;

use crate::sys;

/// The length of the `virtio_net_hdr` (virtio 1.2 §5.1.6, `linux/virtio_net.h`) in front of each packet of a device with offloads, in bytes.
/// Its numbers are in the byte order of this machine.
pub const HEADER: usize = 10;

bitflags! {
    /// Offloads of a device. With any of them each packet has a header of [`HEADER`] bytes in front, which says what is left to do.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
    pub struct Offloads: u32 {
        /// The checksum of TCP and UDP may be partial: the sum of the pseudo-header alone. All others need this one.
        const CHECKSUM = libc::TUN_F_CSUM;
        /// TCP over IPv4 may come as super-packets of up to 64 KiB.
        const TSO4 = libc::TUN_F_TSO4;
        /// TCP over IPv6 may come as super-packets of up to 64 KiB.
        const TSO6 = libc::TUN_F_TSO6;
        /// Among those of TCP may be such with ECN's CWR, which only the first segment carries.
        const TSO_ECN = libc::TUN_F_TSO_ECN;
        /// UDP may come as super-packets, of which each segment is a datagram. Linux grants IPv4 and IPv6 together or not at all,
        /// since 6.2.
        const USO = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    }
}

impl Offloads {
    /// The names that [`Self::of_names`] knows.
    pub fn names() -> impl Iterator<Item = String> {
        Self::all().iter_names().map(|(name, _)| name.to_ascii_lowercase())
    }

    /// The offloads of these names, and what they need. The error is a name that is none.
    pub fn of_names<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, &'n str> {
        let mut wanted = Self::empty();
        for name in names {
            let known = Self::all().iter_names().find(|(known, _)| known.eq_ignore_ascii_case(name));
            wanted |= known.ok_or(name)?.1;
        }
        Ok(wanted.complete())
    }

    /// With what these need, and without what is nothing alone: Linux takes the bit for ECN only beside one for TCP.
    fn complete(self) -> Self {
        if self.is_empty() {
            self
        } else if self.intersects(Self::TSO4 | Self::TSO6) {
            self | Self::CHECKSUM
        } else {
            self.difference(Self::TSO_ECN) | Self::CHECKSUM
        }
    }

    /// Asks for these, as far as this kernel grants them, and answers with what it granted. The kernel says of a set only that
    /// something in it is unknown, so what came last to Linux is given up first.
    pub(crate) fn request(self, queue: BorrowedFd<'_>) -> nix::Result<Self> {
        let wanted = self.complete();
        let unknown = [Self::empty(), Self::USO, Self::USO | Self::TSO_ECN, Self::all() - Self::CHECKSUM];
        for fewer in unknown.map(|unknown| wanted - unknown) {
            match sys::set_offload(queue, fewer.bits()) {
                Ok(()) => return Ok(fewer),
                Err(Errno::EINVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        // Nothing is always granted. It takes back what whoever had the device before was granted.
        sys::set_offload(queue, 0).map(|()| Self::empty())
    }
}

/// The names, with commas between them; `none` if there is none.
impl fmt::Display for Offloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter_names().map(|(name, _)| name.to_ascii_lowercase()).collect();
        f.pad(&if names.is_empty() { "none".to_owned() } else { names.join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_wanted_together_with_what_it_needs() {
        assert_eq!(Offloads::of_names(["tso6"]).unwrap().to_string(), "checksum, tso6");
        let names: Vec<_> = Offloads::names().collect();
        assert_eq!(Offloads::of_names(names.iter().map(String::as_str)).unwrap(), Offloads::all());
        assert_eq!(Offloads::of_names([]).unwrap().to_string(), "none");
        assert_eq!(Offloads::of_names(["checksum", "gro"]), Err("gro"));
        assert_eq!(Offloads::of_names(["tso_ecn"]).unwrap().to_string(), "checksum", "ECN alone is nothing");
    }

    #[test]
    fn the_bits_are_those_of_linux() {
        assert_eq!(Offloads::all().bits(), 0x6f);
        assert_eq!(Offloads::USO.complete().bits(), 0x61);
    }
}
