//! What is told: a table for people, a chart, JSON for programs, and whether the promises are kept.

mod chart;
mod json;
mod locks;
mod promises;
mod rows;
mod table;

use serde::Serialize;

pub(crate) use chart::chart;
pub(crate) use json::json;
pub(crate) use locks::locks;
pub(crate) use promises::{Promise, TOLERANCE, promises};
pub(crate) use table::table;

/// Where and how it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Circumstances {
    pub(crate) rounds: u32,
    pub(crate) seconds: u32,
    pub(crate) kernel: String,
    pub(crate) processors: usize,
    pub(crate) processor: String,
    pub(crate) iperf3: String,
    /// The load average of the last minute, when it began and when it ended.
    pub(crate) load_average: [String; 2],
    /// How long all of it took, in seconds.
    pub(crate) took: u64,
}
