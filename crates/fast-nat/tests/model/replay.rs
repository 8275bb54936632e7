//! An input of the fuzzer: its first byte chooses the configuration, its second one is the engine's seed, the others
//! decide on the operations.

use super::Wrong;
use super::run::{Counts, Run};
use super::setups::setups;
use super::source::{Bytes, Source};

/// The longest input that is read: what is behind it would only make it slow.
pub const LONGEST: usize = 4096;

/// Does what the input says; what was reached, or how the engine and the model differ.
pub fn replay(input: &[u8]) -> Result<Counts, Wrong> {
    let mut source = Bytes(&input[..input.len().min(LONGEST)]);
    let setups = setups();
    let setup = &setups[source.below(setups.len() as u32) as usize];
    // The engine's own choices: a change of the input further behind leaves them alone.
    let seed = source.below(256).into();
    let mut run = Run::new(setup, seed);
    while !source.is_empty() {
        run.step(&mut source, 16).map_err(|wrong| format!("{}: {wrong}", setup.name))?;
    }
    run.settle().map_err(|wrong| format!("{}: {wrong}", setup.name))?;
    Ok(run.counts)
}
