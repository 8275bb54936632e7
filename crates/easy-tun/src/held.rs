//! Queues that somebody kept open while their process was gone: a service manager, a keeper, or the process before this one.
//!
//! The kernel goes on putting packets into such a queue, as many as the link's `txqueuelen`, and whoever gets the descriptor reads them.
//!
//! Unsafe code: ioctls with the structure the kernel documents for them.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::stat::{fstat, stat};

mod raw {
    // The numbers say "int", and the kernel reads or writes an `ifreq`.
    nix::ioctl_read_bad!(
        tun_get_iff,
        nix::request_code_read!(b'T', 210, size_of::<libc::c_uint>()),
        libc::ifreq
    );
    nix::ioctl_write_ptr_bad!(
        tun_set_queue,
        nix::request_code_write!(b'T', 217, size_of::<libc::c_int>()),
        libc::ifreq
    );
    nix::ioctl_none!(tun_get_netns, b'T', 227);
}

/// A queue of a TUN device of this network namespace, whose device is still there.
#[derive(Debug)]
pub struct HeldQueue {
    fd: OwnedFd,
    device: String,
    header: bool,
}

impl HeldQueue {
    /// Looks at a descriptor. The error says why it is no queue that can be read on; the descriptor is closed then.
    pub fn check(fd: OwnedFd) -> io::Result<Self> {
        let mut request = empty_request();
        // SAFETY: the kernel writes one `ifreq`, which `request` is.
        unsafe { raw::tun_get_iff(fd.as_raw_fd(), &raw mut request) }.map_err(|errno| match errno {
            Errno::EBADFD => io::Error::other("its device was deleted"),
            Errno::ENOTTY | Errno::EINVAL => io::Error::other("it is no queue of a TUN device"),
            errno => errno.into(),
        })?;
        // SAFETY: the kernel has just written this field.
        let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
        let is = |flag: libc::c_int| flags & flag == flag;
        if !is(libc::IFF_TUN) || !is(libc::IFF_MULTI_QUEUE) || !is(libc::IFF_NO_PI) {
            return Err(io::Error::other("it is no queue of a multi-queue TUN device with bare packets"));
        }
        if is(libc::IFF_DETACH_QUEUE) {
            return Err(io::Error::other("it was detached from its device"));
        }
        if is_elsewhere(fd.as_fd()) {
            return Err(io::Error::other("its device is in another network namespace"));
        }
        let bytes = request.ifr_name.map(libc::c_char::cast_unsigned);
        let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let device = String::from_utf8_lossy(&bytes[..length]).into_owned();
        Ok(Self { fd, device, header: is(libc::IFF_VNET_HDR) })
    }

    /// The name of its device.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Whether packets have a `virtio_net_hdr` in front: that is the whole device's.
    pub fn header(&self) -> bool {
        self.header
    }

    /// Takes the queue from the device, also where others have the same descriptor: no packet goes to it any more.
    pub fn detach(self) -> io::Result<()> {
        let mut request = empty_request();
        request.ifr_ifru.ifru_flags = libc::IFF_DETACH_QUEUE as libc::c_short;
        // SAFETY: the kernel reads one `ifreq`, which `request` is.
        unsafe { raw::tun_set_queue(self.fd.as_raw_fd(), &raw const request) }
            .map(drop)
            .map_err(io::Error::from)
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for HeldQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn empty_request() -> libc::ifreq {
    // SAFETY: `ifreq` is a C structure of integers and a union of such; all zeroes is a value of it.
    unsafe { std::mem::zeroed() }
}

/// Whether its device is certainly in another network namespace than the calling thread.
fn is_elsewhere(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: no argument.
    let Ok(namespace) = (unsafe { raw::tun_get_netns(fd.as_raw_fd()) }) else { return false };
    // SAFETY: the kernel has just opened this descriptor for us, and nobody else knows of it.
    let namespace = unsafe { OwnedFd::from_raw_fd(namespace) };
    let (Ok(its), Ok(own)) = (fstat(&namespace), stat("/proc/thread-self/ns/net")) else { return false };
    (its.st_dev, its.st_ino) != (own.st_dev, own.st_ino)
}
