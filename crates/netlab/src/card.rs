//! What a link's card does by itself, asked for like `ethtool` does.
//!
//! Unsafe code: `ioctl` with a structure of integers.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

use crate::{Error, Namespace, Result};

impl Namespace {
    /// Takes the offloads of a link's card away (`ETHTOOL_STXCSUM`): the kernel completes checksums and cuts super-packets into
    /// packets before they leave by it, and the other end verifies what it gets.
    pub fn without_offloads(&self, link: &str) -> Result<()> {
        const SET_TX_CHECKSUM: u32 = 0x17;
        let action = format!("turning off the checksums of {link} in namespace {}", self.label());
        // `struct ethtool_value`: the command and its value.
        self.try_run(|| ethtool(link, &mut [SET_TX_CHECKSUM, 0]))?
            .map_err(|error| Error::system(action, error))?;
        Ok(())
    }
}

/// Runs one command: the structure of the command, of which `words` is all. Answers with what the kernel does.
fn ethtool(link: &str, words: &mut [u32]) -> io::Result<libc::c_int> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let mut name = [0; libc::IFNAMSIZ];
    if link.len() >= name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (own, byte) in name.iter_mut().zip(link.bytes()) {
        *own = byte.cast_signed();
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: words.as_mut_ptr().cast() },
    };
    // SAFETY: the request names a link, with a zero behind the name, and points to the structure of this command, as long as
    // its own fields say it is; both live until the call has returned.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
