//! An input of the fuzzer: its first byte chooses the configuration, the others decide on the operations.

use super::Wrong;
use super::run::{Counts, Run};
use super::setups::setups;
use super::source::{Bytes, Source};

/// The longest input that is read: what is behind it would only make it slow.
pub const LONGEST: usize = 8192;

/// Does what the input says; what was reached, or how the engine and the model differ.
pub fn replay(input: &[u8]) -> Result<Counts, Wrong> {
    let mut source = Bytes(&input[..input.len().min(LONGEST)]);
    let setups = setups();
    let setup = &setups[source.below(setups.len() as u32) as usize];
    // The engine's own choices follow from the input too.
    let seed = input.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut run = Run::new(setup, seed);
    while !source.is_empty() {
        run.step(&mut source, 16).map_err(|wrong| format!("{}: {wrong}", setup.name))?;
    }
    run.close().map_err(|wrong| format!("{}: {wrong}", setup.name))?;
    Ok(run.counts)
}
