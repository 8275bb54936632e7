//! No standard library, no allocator: whatever the two crates need beyond `core` fails to link here.
#![no_std]

use {interproto as _, rfc6052 as _};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
