//! Counts the bytes that are allocated, by the size that was asked for.

use std::alloc::System;

use cap::Cap;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes that are allocated now, by everybody.
pub(crate) fn live() -> usize {
    ALLOCATOR.allocated()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_counted_by_the_size_asked_for() {
        let before = live();
        let held = vec![1_u8; 10_000_019];
        let grown = live() - before;
        // Other tests allocate meanwhile, but not megabytes.
        assert!((10_000_019..10_500_000).contains(&grown), "{grown}");
        drop(held);
        assert!(live() < before + 500_000);
    }
}
