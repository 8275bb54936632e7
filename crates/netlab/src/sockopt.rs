//! The one socket option that neither `socket2` nor `nix` sets: whether a packet may be fragmented.
//!
//! Unsafe code: `setsockopt` with an integer.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use socket2::Socket;

/// Forbids fragments whatever path MTU is known (`PROBE`), or allows them (`DONT`).
pub(crate) fn dont_fragment(socket: &Socket, v6: bool, forbidden: bool) -> io::Result<()> {
    let (level, option, value) = match (v6, forbidden) {
        (false, true) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
        (false, false) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT),
        (true, true) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
        (true, false) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT),
    };
    set(socket, level, option, value)?;
    if v6 {
        set(socket, level, libc::IPV6_DONTFRAG, forbidden.into())?;
    }
    Ok(())
}

fn set(socket: &Socket, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the pointer and the length are those of one `c_int`.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
