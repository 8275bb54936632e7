#![doc = include_str!("../README.md")]

mod error;
mod link;
mod namespace;
mod rule;
mod topology;

pub use error::Error;
pub use link::veth;
pub use namespace::{Namespace, Published, end_with_parent};
pub use rule::{REQUIRE_VARIABLE, kernel_tests_possible};
pub use topology::{Client, Topology, TopologyOptions};

/// What every fallible function of this crate answers with.
pub type Result<T> = std::result::Result<T, Error>;
