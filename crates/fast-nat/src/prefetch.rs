//! Asking for memory ahead of its use.
//!
//! A load that is not answered yet holds up what comes some 250 instructions behind it, so only so many of them wait side by side. A
//! prefetch holds up nothing.

/// Asks for the cache line at this address, wherever that is. Does nothing where there is no such instruction.
#[inline(always)]
#[allow(clippy::inline_always)] // one instruction
pub(crate) fn line<T: ?Sized>(at: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch neither reads nor writes as far as a program can tell, and any address may be given to it.
    #[allow(unsafe_code)]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: as above.
    #[allow(unsafe_code)]
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) at.cast::<u8>(), options(nostack, preserves_flags, readonly));
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = at;
}
