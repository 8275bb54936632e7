//! What a program of eBPF says of a packet.
//!
//! Unsafe code: `bpf(2)`, for which no crate has this command without an object file.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Has the kernel run a socket filter once for an IP packet, and tells its answer. Packets shorter than an IP header are refused.
pub fn run_program(program: BorrowedFd<'_>, packet: &[u8]) -> io::Result<u32> {
    /// `BPF_PROG_TEST_RUN`.
    const TEST_RUN: libc::c_long = 10;

    /// The beginning of its part of `union bpf_attr`.
    #[repr(C)]
    struct TestRun {
        program: u32,
        answer: u32,
        size_in: u32,
        size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
    }

    // The kernel expects an Ethernet header, and shows the filter what is behind it.
    let kind = if packet.first().is_some_and(|first| first >> 4 == 6) { 0x86dd_u16 } else { 0x0800 };
    let frame = [&[0; 12], &kind.to_be_bytes()[..], packet].concat();
    let mut run = TestRun {
        program: program.as_raw_fd().cast_unsigned(),
        answer: 0,
        size_in: u32::try_from(frame.len()).map_err(io::Error::other)?,
        size_out: 0,
        data_in: frame.as_ptr().expose_provenance() as u64,
        data_out: 0,
        repeat: 1,
        duration: 0,
    };
    // SAFETY: the kernel reads and writes the structure and reads the frame, which both live until the call is over.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, TEST_RUN, &raw mut run, size_of::<TestRun>()) };
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(run.answer) }
}
