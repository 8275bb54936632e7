//! Memory of the big tables: mapped once at its final size, zero until it is written, and in huge pages where it is much.
//!
//! A random read that finds its page's translation nowhere costs twice as much as one that does, and translations of 4 KiB pages are
//! soon too many to be kept. Huge pages (2 MiB) are asked for where they will fill, so that a small router stays small: an array that
//! fills from its beginning has them from its second on, and one that fills at random places gets them when it is known to fill.

use std::io;
use std::marker::PhantomData;

use memmap2::{MmapMut, MmapOptions};

/// The size of a huge page; where it is another one, nothing goes wrong.
const HUGE: usize = 2 << 20;

/// What a table may consist of.
///
/// # Safety
/// All its fields are atomics of integers: zero bytes are a value, all that is changed is changed through shared references, and nothing
/// is to be dropped. It is aligned to at most a page.
#[allow(unsafe_code)]
pub(crate) unsafe trait Atoms: Sync + Send {}

// SAFETY: one kind of atomics.
#[allow(unsafe_code)]
unsafe impl<const N: usize> Atoms for [std::sync::atomic::AtomicU32; N] {}

/// An array in such memory.
#[derive(Debug)]
pub(crate) struct Mapped<T> {
    map: MmapMut,
    length: usize,
    of: PhantomData<T>,
}

impl<T: Atoms> Mapped<T> {
    /// So many, all zero. Their memory is taken as they are first written.
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        let bytes = length.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::InvalidInput)?;
        // Linux begins a mapping at a huge page only if it is some of them long. What is behind the array is never touched.
        let bytes = if bytes < HUGE {
            bytes
        } else {
            bytes.checked_next_multiple_of(HUGE).ok_or(io::ErrorKind::InvalidInput)?
        };
        let map = MmapOptions::new().len(bytes.max(1)).no_reserve_swap().map_anon()?;
        Ok(Self { map, length, of: PhantomData })
    }

    #[inline]
    pub(crate) fn get(&self, place: usize) -> Option<&T> {
        if place >= self.length {
            return None;
        }
        // SAFETY: `place` lies inside the mapping, which is page-aligned, zero at first, lives as long as `self`, and is only ever
        // read and written as `T`, whose fields are atomics.
        #[allow(unsafe_code)]
        Some(unsafe { &*self.map.as_ptr().cast::<T>().add(place) })
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn bytes(&self) -> usize {
        self.length * size_of::<T>()
    }

    /// Asks for huge pages from this entry on, where memory is taken from now on.
    pub(crate) fn prefer_huge_pages(&self, from: usize) {
        let from = (from * size_of::<T>()).next_multiple_of(HUGE);
        // A kernel without them keeps its pages.
        #[cfg(target_os = "linux")]
        if let Some(length) = self.map.len().checked_sub(from) {
            let _ = self.map.advise_range(memmap2::Advice::HugePage, from, length);
        }
    }

    /// Puts what has been written to the `nth` two mebibytes into a huge page, as far as the kernel can do that (Linux 6.1); else it does so
    /// by itself, in time. `false`: there are not so many.
    pub(crate) fn collapse(&self, nth: usize) -> bool {
        // Where it begins elsewhere, the first huge page begins behind it.
        let at = self.map.as_ptr().align_offset(HUGE).saturating_add(nth * HUGE);
        if at >= self.map.len() {
            return false;
        }
        #[cfg(target_os = "linux")]
        // SAFETY: the range lies inside the mapping, and neither its content nor its addresses change.
        #[allow(unsafe_code)]
        unsafe {
            libc::madvise(
                self.map.as_ptr().add(at).cast_mut().cast(),
                HUGE.min(self.map.len() - at),
                MADV_COLLAPSE,
            );
        }
        true
    }
}

/// Of `asm-generic/mman-common.h`; not every C library has it.
#[cfg(target_os = "linux")]
const MADV_COLLAPSE: libc::c_int = 25;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn what_is_written_stays_through_huge_pages() {
        let length = 3 * HUGE / 64 + 5;
        let mapped = Mapped::<[AtomicU32; 16]>::new(length).unwrap();
        assert_eq!(mapped.len(), length);
        let number = |place: usize| (place as u32).wrapping_mul(0x9e37_79b9) | 1;
        for place in 0..length {
            assert_eq!(mapped.get(place).unwrap()[7].swap(number(place), Ordering::Relaxed), 0);
        }
        assert!(mapped.get(length).is_none());
        mapped.prefer_huge_pages(0);
        assert_eq!((0..9).take_while(|nth| mapped.collapse(*nth)).count(), 4);
        mapped.prefer_huge_pages(length + HUGE);
        for place in 0..length {
            assert_eq!(mapped.get(place).unwrap()[7].load(Ordering::Relaxed), number(place));
        }
    }

    #[test]
    fn more_than_there_are_addresses_for_is_an_error() {
        assert!(Mapped::<[AtomicU32; 16]>::new(usize::MAX / 8).is_err());
        assert!(Mapped::<[AtomicU32; 16]>::new(1 << 57).is_err());
        assert!(Mapped::<[AtomicU32; 16]>::new(0).unwrap().get(0).is_none());
    }
}
