//! What random operations must reach.

/// Each outcome, and how often it must be reached in 100,000 operations at least.
pub const OUTCOMES: &[(&str, u64)] = &[];
