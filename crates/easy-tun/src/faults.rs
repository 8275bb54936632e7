//! Calls of the kernel that a test can have refused. Without the feature `fault-injection` this is nothing.

fault_points::fault_points! {
    /// Which call is refused, with `EIO`.
    pub enum Point {
        /// Opening the node of TUN devices.
        Open,
        /// Attaching a queue to a device, or making it.
        Attach,
        /// Having the device stay, or go.
        Persist,
        /// Setting the length of the header in front of packets.
        SetHeader,
        /// Setting the offloads.
        SetOffload,
        /// Taking the limit from what may be under way of what was written.
        SetSendBuffer,
        /// Loading a steering program.
        LoadSteering,
        /// Giving a device a steering program.
        SetSteering,
        /// Having a read wait.
        Wait,
        /// Reading a frame.
        Read,
        /// Writing a frame.
        Write,
        /// Writing a frame: the kernel takes nothing just now (`EAGAIN`).
        Full,
    }
}

/// Beside bits of offloads: the header in front of packets (`IFF_VNET_HDR`, since Linux 2.6.27).
#[cfg_attr(not(feature = "fault-injection"), allow(unreachable_pub, reason = "tests need it"))]
pub const HEADER: u32 = 1 << 30;

/// Beside bits of offloads: a read that does not wait, of a queue that waits (`RWF_NOWAIT`, since Linux 5.11).
#[cfg_attr(not(feature = "fault-injection"), allow(unreachable_pub, reason = "tests need it"))]
pub const NOWAIT: u32 = 1 << 31;

#[cfg(feature = "fault-injection")]
static UNKNOWN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// Has the kernel answer from now on as one that does not know any of these: bits of [`Offloads`](crate::Offloads), [`HEADER`] and
/// [`NOWAIT`].
#[cfg(feature = "fault-injection")]
pub fn forget(unknown: u32) {
    UNKNOWN.store(unknown, std::sync::atomic::Ordering::SeqCst);
}

/// Whether the kernel shall not know some of these.
#[cfg(feature = "fault-injection")]
pub(crate) fn is_unknown(what: u32) -> bool {
    UNKNOWN.load(std::sync::atomic::Ordering::Relaxed) & what != 0
}

/// Whether the kernel shall not know some of these: never, in this build.
#[cfg(not(feature = "fault-injection"))]
#[inline]
pub(crate) const fn is_unknown(_what: u32) -> bool {
    false
}
