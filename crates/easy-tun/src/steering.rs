//! Which queue a packet comes to, decided by a program in the kernel.
//!
//! Unsafe code: `bpf(2)`, for which no crate takes plain instructions, and the `ioctl` that gives a device such a program.
#![allow(unsafe_code)]

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};

use nix::errno::Errno;

use crate::Error;
use crate::faults::Point;
use crate::sys::unless_refused;

mod raw {
    // The number says "read", and the kernel reads.
    nix::ioctl_write_ptr_bad!(
        tun_set_steering,
        nix::request_code_read!(b'T', 224, size_of::<libc::c_int>()),
        libc::c_int
    );
}

/// One instruction of eBPF (`struct bpf_insn` of `linux/bpf.h`, RFC 9669 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// The opcode.
    pub code: u8,
    registers: u8,
    /// Instructions that a jump skips, or an offset into memory.
    pub offset: i16,
    /// The constant.
    pub immediate: i32,
}

impl Instruction {
    /// An instruction with two registers, 0 to 10 each.
    pub const fn new(code: u8, (destination, source): (u8, u8), offset: i16, immediate: i32) -> Self {
        // Four bits each: the first one is the lower half where bytes go from the low end.
        let registers = if cfg!(target_endian = "little") {
            destination & 0xf | source << 4
        } else {
            destination << 4 | source & 0xf
        };
        Self { code, registers, offset, immediate }
    }
}

/// A program that the kernel runs for each packet that comes to a device, instead of looking at how its flow hashes and where the other way
/// was written last. It sees the IP packet from its first byte, and its answer modulo the number of queues is the number of the queue, in the
/// order in which they were attached; once one is gone, the last one has its number.
///
/// The kernel then neither hashes what is written nor keeps a table of flows, which has room for 4096.
pub struct Steering {
    program: OwnedFd,
}

impl Steering {
    /// Has the kernel check and load a program of the type `BPF_PROG_TYPE_SOCKET_FILTER`. That takes `CAP_BPF` in the initial user
    /// namespace (before Linux 5.8 `CAP_SYS_ADMIN`), unless the sysctl `kernel.unprivileged_bpf_disabled` is 0; giving it to a device takes no
    /// capability. `name`: at most 15 letters, digits, `_` and `.`, for those who list programs.
    pub fn load(name: &str, program: &[Instruction]) -> Result<Self, Error> {
        /// `BPF_PROG_LOAD`.
        const LOAD: libc::c_long = 5;
        /// `BPF_PROG_TYPE_SOCKET_FILTER`.
        const SOCKET_FILTER: u32 = 1;

        /// As much of `union bpf_attr` as Linux 4.15 knows: nothing else is needed.
        #[repr(C)]
        struct Load {
            kind: u32,
            count: u32,
            instructions: u64,
            license: u64,
            log_level: u32,
            log_size: u32,
            log: u64,
            kernel_version: u32,
            flags: u32,
            name: [u8; 16],
        }

        let failed = |errno| match errno {
            Errno::EPERM => Error::SteeringForbidden,
            errno => Error::system(format!("loading the steering program {name}"), errno),
        };
        unless_refused(Point::LoadSteering).map_err(failed)?;
        let license = c"MIT";
        let mut attribute = Load {
            kind: SOCKET_FILTER,
            count: u32::try_from(program.len()).map_err(|_| failed(Errno::E2BIG))?,
            instructions: program.as_ptr().expose_provenance() as u64,
            license: license.as_ptr().expose_provenance() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
            name: [0; 16],
        };
        for (to, from) in attribute.name[..15].iter_mut().zip(name.bytes()) {
            *to = from;
        }
        // SAFETY: the kernel reads the structure, as many instructions as it says, and the license up to its zero byte; all of these live
        // until the call is over.
        let answer = unsafe { libc::syscall(libc::SYS_bpf, LOAD, &raw const attribute, size_of::<Load>()) };
        let descriptor = Errno::result(answer).map_err(failed)?;
        // SAFETY: the kernel has just opened this descriptor for us (closed on exec), and nobody else knows of it.
        let program = unsafe { OwnedFd::from_raw_fd(descriptor as libc::c_int) };
        Ok(Self { program })
    }

    /// Gives the program to the device of this queue, or takes from it what it has.
    pub(crate) fn set(queue: BorrowedFd<'_>, steering: Option<&Self>) -> nix::Result<()> {
        unless_refused(Point::SetSteering)?;
        let program = steering.map_or(-1, |steering| steering.program.as_raw_fd());
        // SAFETY: the kernel reads one integer, which lives until the call is over.
        unsafe { raw::tun_set_steering(queue.as_raw_fd(), &raw const program) }.map(drop)
    }
}

impl AsFd for Steering {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering").field("program", &self.program.as_raw_fd()).finish()
    }
}
