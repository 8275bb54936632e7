#![doc = include_str!("../README.md")]
//!
//! Points are armed for the whole process, since a fault strikes in whichever thread comes by: tests that arm any run one at a time.
//!
//! ```
//! mod faults {
//!     fault_points::fault_points! {
//!         /// Where this library can be made to fail.
//!         pub enum Point {
//!             /// Half of the change is made.
//!             HalfDone,
//!         }
//!     }
//! }
//! faults::at(faults::Point::HalfDone);
//! assert_eq!(faults::Point::ALL.len(), 1);
//! ```
#![deny(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};

/// How many times each of `N` points will still strike, and how often it has.
#[derive(Debug)]
pub struct Armed<const N: usize> {
    left: [AtomicU32; N],
    struck: [AtomicU32; N],
}

impl<const N: usize> Default for Armed<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Armed<N> {
    /// No point is armed.
    pub const fn new() -> Self {
        Self { left: [const { AtomicU32::new(0) }; N], struck: [const { AtomicU32::new(0) }; N] }
    }

    /// Makes this point strike `times` times from now on.
    pub fn arm(&self, point: usize, times: u32) {
        self.left[point].store(times, Ordering::SeqCst);
    }

    /// How often it has struck: a test that never hit its point proves nothing.
    pub fn struck(&self, point: usize) -> u32 {
        self.struck[point].load(Ordering::SeqCst)
    }

    /// Whether it strikes now. Nothing strikes in a thread that panics already: what mends things there would end the process.
    pub fn strikes(&self, point: usize) -> bool {
        if self.left[point].load(Ordering::Relaxed) == 0 || std::thread::panicking() {
            return false;
        }
        let hit = self.left[point]
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok();
        if hit {
            // Whoever looks for it in a binary finds out whether faults can be injected there.
            std::hint::black_box("injected fault");
            self.struck[point].fetch_add(1, Ordering::SeqCst);
        }
        hit
    }
}

/// Lists the points of a library, in a module of its own: see the crate's documentation.
///
/// Beside the enum it makes `at` (panics if the point is armed) and `fails` (is refused with `EIO` if it is). With the library's feature
/// `fault-injection` there are also `arm`, `struck` and `strikes`.
#[macro_export]
macro_rules! fault_points {
    ($(#[$of_all:meta])* pub enum $name:ident { $($(#[$of_one:meta])* $point:ident),+ $(,)? }) => {
        $(#[$of_all])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$of_one])* $point),+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$point),+];
        }

        #[cfg(feature = "fault-injection")]
        static ARMED: $crate::Armed<{ $name::ALL.len() }> = $crate::Armed::new();

        /// Makes `point` strike `times` times from now on, in whichever thread of the process comes by.
        #[cfg(feature = "fault-injection")]
        pub fn arm(point: $name, times: u32) {
            ARMED.arm(point as usize, times);
        }

        /// How often `point` has struck.
        #[cfg(feature = "fault-injection")]
        pub fn struck(point: $name) -> u32 {
            ARMED.struck(point as usize)
        }

        /// Whether `point` strikes now.
        #[cfg(feature = "fault-injection")]
        pub fn strikes(point: $name) -> bool {
            ARMED.strikes(point as usize)
        }

        /// Whether `point` strikes now: never, in this build.
        #[cfg(not(feature = "fault-injection"))]
        #[allow(dead_code, reason = "each library needs some of these")]
        #[inline(always)]
        pub const fn strikes(_point: $name) -> bool {
            false
        }

        /// Panics here if `point` is armed.
        #[allow(dead_code, reason = "each library needs some of these")]
        #[allow(clippy::panic, clippy::manual_assert, clippy::missing_panics_doc, reason = "the purpose of the feature")]
        #[inline]
        pub fn at(_point: $name) {
            #[cfg(feature = "fault-injection")]
            if strikes(_point) {
                panic!("injected fault: {_point:?}");
            }
        }

        /// An error as of a call that the kernel refuses, if `point` is armed.
        #[allow(dead_code, reason = "each library needs some of these")]
        #[inline]
        pub fn fails(_point: $name) -> std::io::Result<()> {
            #[cfg(feature = "fault-injection")]
            if strikes(_point) {
                // `EIO`, which nobody takes for something else.
                return Err(std::io::Error::from_raw_os_error(5));
            }
            Ok(())
        }
    };
}
