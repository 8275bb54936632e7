//! Where decisions come from: a seeded generator, or the input of the fuzzer.

/// Decides.
pub trait Source {
    /// A number below `bound` (1..=65,536).
    fn below(&mut self, bound: u32) -> u32;

    /// Whether there is anything left to decide with.
    fn is_empty(&self) -> bool;

    /// True once in `n`.
    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }

    /// One of these; `None` if there are none.
    fn pick<'a, T>(&mut self, among: &'a [T]) -> Option<&'a T> {
        if among.is_empty() { None } else { among.get(self.below(among.len() as u32) as usize) }
    }
}

/// `SplitMix64`: every seed is a good one, and a failure is replayed by its seed.
#[derive(Debug, Clone)]
pub struct Seeded(pub u64);

impl Source for Seeded {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = (z ^ (z >> 31)) >> 32;
        ((high * u64::from(bound)) >> 32) as u32
    }

    fn is_empty(&self) -> bool {
        false
    }
}

/// The bytes of an input, one for each decision (two where a byte does not suffice). Zeroes follow the last.
#[derive(Debug, Clone)]
pub struct Bytes<'d>(pub &'d [u8]);

impl Source for Bytes<'_> {
    fn below(&mut self, bound: u32) -> u32 {
        let mut value = 0;
        for _ in 0..if bound > 256 { 2 } else { 1 } {
            let Some((first, rest)) = self.0.split_first() else { return 0 };
            value = value << 8 | u32::from(*first);
            self.0 = rest;
        }
        value % bound
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
