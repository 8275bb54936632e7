//! Socket options that `socket2` does not know: whether a packet may be fragmented, the path MTU, the size of segments, and ECN.
//!
//! Unsafe code: `setsockopt` and `getsockopt` with plain values.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

/// Forbids fragments whatever path MTU is known (`PROBE`), or allows them (`DONT`).
pub fn dont_fragment(socket: &impl AsRawFd, v6: bool, forbidden: bool) -> io::Result<()> {
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

/// Forbids fragments, and has what is longer than the path MTU that is known refused (`DO`). Without it what IPv4 cuts into
/// datagrams by itself may be fragmented.
pub fn obey_path_mtu(socket: &impl AsRawFd, v6: bool) -> io::Result<()> {
    if v6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO)
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)
    }
}

/// Lets the kernel cut what is sent at a time into datagrams with so many bytes of payload, the last one with what is left
/// (`UDP_SEGMENT`, Linux 4.18). With 0 it is one datagram again.
pub fn segment_datagrams(socket: &impl AsRawFd, payload: u16) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_SEGMENT, payload.into())
}

fn set(socket: &impl AsRawFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
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

/// The path MTU that the kernel knows for a connected socket, in bytes (`IP_MTU`, `IPV6_MTU`).
pub fn path_mtu(socket: &impl AsRawFd, v6: bool) -> io::Result<u32> {
    let (level, option) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_MTU) } else { (libc::IPPROTO_IP, libc::IP_MTU) };
    let mut value: libc::c_int = 0;
    get(socket.as_raw_fd(), level, option, &mut value)?;
    u32::try_from(value).map_err(io::Error::other)
}

/// Whether both ends of a TCP connection have agreed on ECN (`TCPI_OPT_ECN` of `TCP_INFO`, RFC 3168 §6.1.1).
pub fn ecn_is_agreed(stream: &std::net::TcpStream) -> io::Result<bool> {
    const ECN: u8 = 8;
    Ok(tcp_options(stream)? & ECN != 0)
}

/// Whether a TCP connection has got a packet of an ECN-capable transport (`TCPI_OPT_ECN_SEEN`, RFC 3168 §5).
pub fn ecn_is_seen(stream: &std::net::TcpStream) -> io::Result<bool> {
    const ECN_SEEN: u8 = 16;
    Ok(tcp_options(stream)? & ECN_SEEN != 0)
}

fn tcp_options(stream: &std::net::TcpStream) -> io::Result<u8> {
    // SAFETY: `tcp_info` is made of integers, for which zeros are values.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    get(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    Ok(info.tcpi_options)
}

/// Reads an option of the type that the option has, or a part of it.
fn get<T>(fd: libc::c_int, level: libc::c_int, option: libc::c_int, value: &mut T) -> io::Result<()> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of one `T`, of which the kernel writes no more than the length.
    let answer = unsafe { libc::getsockopt(fd, level, option, (&raw mut *value).cast(), &raw mut length) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
