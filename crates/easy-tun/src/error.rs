//! Why there is no device, and what to do about it.

use std::io;

/// Why a device or one of its queues could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The node is missing: the kernel has no TUN support, the module is not loaded, or a container hides it.
    #[error(
        "/dev/net/tun does not exist; load the kernel module (modprobe tun), or run the container with --device \
         /dev/net/tun --cap-add NET_ADMIN"
    )]
    NodeMissing,
    /// The node is there, but opening it is forbidden: a container's device cgroup (EPERM) or the file's mode (EACCES).
    #[error(
        "opening /dev/net/tun is forbidden ({source}); run as root, and in a container run it with --device \
         /dev/net/tun --cap-add NET_ADMIN (some versions of runc and crun need --privileged for it)"
    )]
    NodeForbidden {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The node may be opened, but devices may not be made.
    #[error("making TUN device {name} is not permitted; run as root or give the process CAP_NET_ADMIN")]
    NotPermitted {
        /// The device asked for.
        name: String,
    },
    /// A TUN device of that name is in use by another process, or by another [`crate::Device`] of this one.
    #[error("{name} is in use by another process; stop it, or choose another interface name")]
    InUse {
        /// The device asked for.
        name: String,
    },
    /// A link of that name exists and is no multi-queue TUN device.
    #[error(
        "{name} exists and is not a multi-queue TUN device; choose another interface name, or remove it (ip link \
         delete {name})"
    )]
    NotOurKind {
        /// The device asked for.
        name: String,
    },
    /// The kernel would not take that name, or would take another one for it.
    #[error("{name:?} cannot name a network interface: {reason}")]
    BadName {
        /// The name asked for.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The number of queues is 0, above [`crate::MAX_QUEUES`], or above what this kernel allows.
    #[error("{asked} queues are not possible; ask for 1 to {most}")]
    QueueCount {
        /// How many were asked for.
        asked: usize,
        /// How many there can be.
        most: usize,
    },
    /// The kernel refused the MTU.
    #[error("{name} cannot have an MTU of {mtu} bytes: {reason}")]
    Mtu {
        /// The device.
        name: String,
        /// The MTU asked for, in bytes.
        mtu: u16,
        /// The kernel's answer.
        reason: String,
    },
    /// Programs of eBPF may not be loaded: a capability is missing, or a filter of system calls forbids it.
    #[error(
        "loading a steering program is not permitted; run as root or give the process CAP_BPF (a seccomp profile or a user \
         namespace may forbid it all the same)"
    )]
    SteeringForbidden,
    /// Any other system call failed.
    #[error("{action}: {source}")]
    System {
        /// What was being done.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn system(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { action: action.into(), source: source.into() }
    }
}
