//! The system calls that no crate offers: attaching a queue to a multi-queue TUN device, persistence, offloads, the number
//! of attached queues, waking a thread by a signal, and the registration of a descriptor with tokio.
//!
//! Unsafe code: ioctls with the integers and structures the kernel documents for them, a signal's handler that does nothing, `tgkill`,
//! and `AsyncFd::register`, whose contract an `OwnedFd` fulfils.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::HEADER;
use crate::faults::{self, Point};

/// Make the device, and refuse one that exists (`IFF_TUN_EXCL`, missing in `libc` for this type).
const EXCLUSIVE: libc::c_int = 0x8000;

nix::ioctl_write_int!(tun_set_persist, b'T', 203);
nix::ioctl_write_int!(tun_set_offload, b'T', 208);

mod raw {
    nix::ioctl_read!(tun_get_features, b'T', 207, libc::c_uint);
    nix::ioctl_write_ptr!(tun_set_send_buffer, b'T', 212, libc::c_int);
    nix::ioctl_write_ptr!(tun_set_header, b'T', 216, libc::c_int);
    nix::ioctl_write_ptr_bad!(
        tun_set_iff,
        nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
        libc::ifreq
    );
    nix::ioctl_readwrite_bad!(ethtool, libc::SIOCETHTOOL, libc::ifreq);
}

/// Opens the node for one queue: non-blocking, closed on exec.
pub(crate) fn open_node() -> nix::Result<OwnedFd> {
    unless_refused(Point::Open)?;
    open("/dev/net/tun", OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC, Mode::empty())
}

/// Attaches the descriptor as one more queue of the device, which is made if it does not exist; with `exclusive` an
/// existing one is `EBUSY`. Packets are bare IP packets, or with `header` have a `virtio_net_hdr` in front; what was said last
/// holds for all queues. Answers with the device's name.
pub(crate) fn attach(
    queue: BorrowedFd<'_>,
    name: &str,
    exclusive: bool,
    header: bool,
) -> nix::Result<String> {
    unless_refused(Point::Attach)?;
    let mut request = interface_request(name);
    let mut flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_MULTI_QUEUE;
    if header {
        flags |= libc::IFF_VNET_HDR;
    }
    if exclusive {
        flags |= EXCLUSIVE;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the descriptor is open, and the kernel reads and writes one `ifreq`, which `request` is. The macro's
    // pointer is const because the number says "write"; the value lives on this stack and is not read meanwhile.
    unsafe { raw::tun_set_iff(queue.as_raw_fd(), &raw mut request) }?;
    let bytes = request.ifr_name.map(libc::c_char::cast_unsigned);
    let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

/// Whether the device stays when its last descriptor is closed.
pub(crate) fn set_persist(queue: BorrowedFd<'_>, persist: bool) -> nix::Result<()> {
    unless_refused(Point::Persist)?;
    // SAFETY: the argument is a plain integer.
    unsafe { tun_set_persist(queue.as_raw_fd(), libc::c_ulong::from(persist)) }.map(drop)
}

/// Whether this kernel can put a `virtio_net_hdr` in front of packets.
pub(crate) fn knows_header(node: BorrowedFd<'_>) -> bool {
    if faults::is_unknown(faults::HEADER) {
        return false;
    }
    let mut features = 0;
    // SAFETY: the kernel writes one unsigned integer, which `features` is.
    let answer = unsafe { raw::tun_get_features(node.as_raw_fd(), &raw mut features) };
    answer.is_ok() && features & libc::IFF_VNET_HDR.cast_unsigned() != 0
}

/// Sets the length of the header in front of packets to [`HEADER`]: whoever had the device before may have chosen another one.
pub(crate) fn set_header(queue: BorrowedFd<'_>) -> nix::Result<()> {
    unless_refused(Point::SetHeader)?;
    #[allow(clippy::cast_possible_wrap, reason = "it is ten")]
    let length = HEADER as libc::c_int;
    // SAFETY: the kernel reads one integer, which lives until the call is over.
    unsafe { raw::tun_set_header(queue.as_raw_fd(), &raw const length) }.map(drop)
}

/// Sets what the kernel may leave to us; `EINVAL` if it does not know one of these.
pub(crate) fn set_offload(queue: BorrowedFd<'_>, mask: libc::c_uint) -> nix::Result<()> {
    unless_refused(Point::SetOffload)?;
    if faults::is_unknown(mask) {
        return Err(nix::errno::Errno::EINVAL);
    }
    // SAFETY: the argument is a plain integer.
    unsafe { tun_set_offload(queue.as_raw_fd(), libc::c_ulong::from(mask)) }.map(drop)
}

/// Lets any number of bytes that were written be under way: with the limit that whoever had the device before may have set, a write waits
/// where reads of its queue do.
pub(crate) fn unlimit_send_buffer(queue: BorrowedFd<'_>) -> nix::Result<()> {
    unless_refused(Point::SetSendBuffer)?;
    // What a queue begins with (`tun_chr_open` in `drivers/net/tun.c`).
    let unlimited = libc::c_int::MAX;
    // SAFETY: the kernel reads one integer, which lives until the call is over.
    unsafe { raw::tun_set_send_buffer(queue.as_raw_fd(), &raw const unlimited) }.map(drop)
}

/// Whether reads and writes of this descriptor answer at once instead of waiting. The flag belongs to the open file: all who have it
/// see the same.
pub(crate) fn set_nonblocking(queue: impl AsFd, nonblocking: bool) -> nix::Result<()> {
    if !nonblocking {
        unless_refused(Point::Wait)?;
    }
    // Of what can be set this way, a queue has nothing else.
    let flags = if nonblocking { OFlag::O_NONBLOCK } else { OFlag::empty() };
    fcntl(queue, FcntlArg::F_SETFL(flags)).map(drop)
}

/// What wakes a thread that sleeps in a read. Nobody else needs it: it is about out-of-band data of sockets with an owner.
const WAKE: Signal = Signal::SIGURG;

/// Makes the calling thread one that [`wake`] interrupts: a signal that is ignored or blocked, as a parent may have left it, interrupts
/// nothing.
pub(crate) fn expect_wake() -> nix::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    static CAUGHT: OnceLock<nix::Result<()>> = OnceLock::new();

    (*CAUGHT.get_or_init(|| {
        // Calls that must not be interrupted, in whichever thread, are begun again by the kernel.
        let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler does nothing, which is safe at any moment.
        unsafe { sigaction(WAKE, &action) }.map(drop)
    }))?;
    SigSet::from(WAKE).thread_unblock()
}

/// Interrupts the call in which a thread of this process sleeps; nothing happens if there is no such thread.
pub(crate) fn wake(thread: Pid) {
    // SAFETY: the arguments are plain integers. There is no other call with which a thread that has ended is merely not found.
    unsafe { libc::syscall(libc::SYS_tgkill, getpid().as_raw(), thread.as_raw(), WAKE as libc::c_int) };
}

/// How many queues are attached to the device, by whomever; `None` on a kernel that does not tell.
pub(crate) fn attached_queues(name: &str) -> Option<usize> {
    /// `struct ethtool_channels` of `linux/ethtool.h`.
    #[repr(C)]
    #[derive(Default)]
    struct Channels {
        command: u32,
        most: [u32; 4],
        receive: u32,
        transmit: u32,
        other: u32,
        combined: u32,
    }
    /// `ETHTOOL_GCHANNELS`.
    const GET_CHANNELS: u32 = 0x3c;

    let control = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
    let mut channels = Channels { command: GET_CHANNELS, ..Channels::default() };
    let mut request = interface_request(name);
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    // SAFETY: the request points at a `Channels` that lives until the call is over, and the kernel writes no more
    // than that for this command.
    unsafe { raw::ethtool(control.as_raw_fd(), &raw mut request) }.ok()?;
    (channels.combined != 0).then_some(channels.combined as usize)
}

/// Registers a descriptor with the calling tokio runtime.
pub(crate) fn register(queue: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(io::Error::other("a queue is opened inside a tokio runtime"));
    }
    let interest = Interest::READABLE | Interest::WRITABLE | Interest::ERROR;
    // SAFETY: an `OwnedFd` is open, stays the same descriptor, and is owned by the `AsyncFd` from here on.
    unsafe { AsyncFd::register_with_interest(queue, interest) }.map_err(|error| error.into_parts().1)
}

/// An error, if a test wants this call refused.
#[inline]
pub(crate) fn unless_refused(point: Point) -> nix::Result<()> {
    if faults::strikes(point) { Err(nix::errno::Errno::EIO) } else { Ok(()) }
}

/// An `ifreq` for a name that [`crate::name::check`] let pass.
fn interface_request(name: &str) -> libc::ifreq {
    // SAFETY: `ifreq` is a C structure of integers and a union of such; all zeroes is a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed();
    }
    request
}
