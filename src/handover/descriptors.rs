//! Descriptors over unix sockets (`unix(7)`, `SCM_RIGHTS`).
//!
//! Unsafe code: descriptors that the kernel has just made for this process are taken into hand.
#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

/// The most that one message carries; the kernel takes 253.
pub const MOST: usize = 64;

/// Sends bytes, of which there must be one at least, and descriptors, [`MOST`] at most. The receiver gets descriptors of his own.
pub fn send(
    socket: BorrowedFd<'_>,
    to: Option<&UnixAddr>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &[][..] } else { &rights[..] };
    let sent = sendmsg(socket.as_raw_fd(), &[IoSlice::new(bytes)], rights, MsgFlags::MSG_NOSIGNAL, to)?;
    if sent < bytes.len() {
        return Err(io::Error::new(io::ErrorKind::WriteZero, "a message with descriptors was cut"));
    }
    Ok(())
}

/// Receives bytes and the descriptors that come with them, which are closed on exec. 0 bytes: the other end is closed.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; MOST]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut descriptors = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel has just made these descriptors for this process, and nobody else knows of them.
            descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::other(
            "descriptors were lost: too many at a time, or the limit of open files is reached",
        ));
    }
    Ok((message.bytes, descriptors))
}

/// Takes a descriptor into hand that this process was started with.
pub(super) fn inherit(raw: RawFd) -> OwnedFd {
    // SAFETY: whoever started this process says that it is open and meant for us, and it is asked for once only.
    unsafe { OwnedFd::from_raw_fd(raw) }
}
