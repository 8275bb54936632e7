//! Changes while the router runs: the whole file anew, or one mapping.
//!
//! ```text
//!  SIGHUP ──┐                        ┌ wrong: nothing changes, and the log says why
//!  file ────┴▶ reader ─▶ classes ─▶ change ─▶ sessions puts the next generation into force ─▶ pool, routes, metrics, tun follow
//!  control socket: one mapping ───────┘
//! ```
//!
//! - [`classes`] says of each setting whether it can change while the router runs. What cannot is left as it is, and waits.
//! - [`change`] makes the next generation and checks it as a start does: against itself, the kernel's routes and addresses, and what the
//!   tables hold. Routes and masquerade rules that it needs are there before it holds.
//! - [`again`] makes the first generation of a run, with the mappings that an earlier one was told.
//! - [`reader`] reads the file when it is told to, or when the file has changed.

pub mod again;
pub mod change;
pub mod classes;
pub mod reader;

use parking_lot::Mutex;

/// How reloads have gone so far, for metrics and readiness.
#[derive(Debug, Default)]
pub struct Reloads(Mutex<Tally>);

/// The counts of [`Reloads`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// New settings hold.
    pub applied: u64,
    /// There was nothing new.
    pub unchanged: u64,
    /// They were refused.
    pub refused: u64,
    /// Why the last one was refused, if it was.
    pub why_refused: Option<String>,
}

impl Reloads {
    /// How they have gone.
    pub fn tally(&self) -> Tally {
        self.0.lock().clone()
    }

    fn count(&self, outcome: Result<bool, String>) {
        let mut tally = self.0.lock();
        tally.why_refused = None;
        match outcome {
            Ok(true) => tally.applied += 1,
            Ok(false) => tally.unchanged += 1,
            Err(why) => {
                tally.refused += 1;
                tally.why_refused = Some(why);
            }
        }
    }
}
