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

    /// Gives a link's card one offload or takes it away, by the name that `ethtool -k` has for it: without `tx-udp-segmentation`, for
    /// one, what a program sends at a time (`UDP_SEGMENT`) leaves by the link as datagrams of their own, one right behind the
    /// other. [`Error::Invalid`] if the kernel has no offload of this name, or the card does not let go of it or cannot do it.
    pub fn set_offload(&self, link: &str, offload: &str, is_on: bool) -> Result<()> {
        let way = if is_on { "on" } else { "off" };
        let action = format!("turning {way} {offload} of {link} in namespace {}", self.label());
        match self.try_run(|| turn(link, offload, is_on))? {
            Ok(Answer::Done) => Ok(()),
            Ok(Answer::Unknown) => Err(Error::Invalid(format!("{action}: the kernel knows no such offload"))),
            Ok(Answer::Fixed) => Err(Error::Invalid(format!("{action}: the card does not change it"))),
            Err(error) => Err(Error::system(action, error)),
        }
    }
}

enum Answer {
    Done,
    Unknown,
    Fixed,
}

/// An offload has a number, which is another one in each kernel: it is the place of its name in a list that the kernel tells.
fn turn(link: &str, offload: &str, is_on: bool) -> io::Result<Answer> {
    const SET_FEATURES: u32 = 0x3b;
    let names = features(link)?;
    let Some(number) = names.iter().position(|name| name == offload) else { return Ok(Answer::Unknown) };
    // `struct ethtool_sfeatures`: 32 offloads are a block of two words, those that are to be set and what they are to be.
    let blocks = names.len().div_ceil(32);
    let mut words = vec![0; 2 + 2 * blocks];
    words[0] = SET_FEATURES;
    words[1] = blocks as u32;
    let (block, bit) = (2 + 2 * (number / 32), 1 << (number % 32));
    words[block] = bit;
    words[block + 1] = if is_on { bit } else { 0 };
    Ok(if ethtool(link, &mut words)? == 0 { Answer::Done } else { Answer::Fixed })
}

/// The names of all offloads, in the order of their numbers.
fn features(link: &str) -> io::Result<Vec<String>> {
    const GET_SET_INFO: u32 = 0x37;
    const GET_STRINGS: u32 = 0x1b;
    /// `ETH_SS_FEATURES`.
    const FEATURES: u32 = 4;
    /// `ETH_GSTRING_LEN`, in words.
    const LENGTH: usize = 8;
    // `struct ethtool_sset_info`: a mask of 64 bits says which lists are meant, and a word each how long they are.
    let [high, low] = [0, 1 << FEATURES];
    let mask = if cfg!(target_endian = "big") { [high, low] } else { [low, high] };
    let mut info = [GET_SET_INFO, 0, mask[0], mask[1], 0];
    ethtool(link, &mut info)?;
    let count = info[4] as usize;
    // `struct ethtool_gstrings`.
    let mut words = vec![0; 3 + LENGTH * count];
    words[..3].copy_from_slice(&[GET_STRINGS, FEATURES, info[4]]);
    ethtool(link, &mut words)?;
    let name = |words: &[u32]| {
        let bytes: Vec<u8> =
            words.iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok(words[3..].chunks(LENGTH).map(name).collect())
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
