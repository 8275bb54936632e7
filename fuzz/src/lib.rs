//! What the fuzz targets of `interproto` share: the harness, which the replay of the corpus uses too, and the
//! statistics.

pub mod harness;
pub mod statistics;
