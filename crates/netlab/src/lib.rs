#![doc = include_str!("../README.md")]

mod bpf;
mod bulk;
mod card;
mod error;
mod exchange;
mod http;
mod link;
mod namespace;
mod ping;
mod rule;
mod server;
mod sockopt;
mod topology;

pub use bpf::run_program;
pub use bulk::{Direction, Transfer, bulk_transfer};
pub use error::Error;
pub use exchange::{tcp_connect, tcp_exchange, udp_exchange};
pub use http::{HttpResponse, http_get};
pub use link::veth;
pub use namespace::{Namespace, Published, end_with_parent};
pub use ping::{PingOptions, PingOutcome, ping, ping_series};
pub use rule::{REQUIRE_VARIABLE, kernel_tests_possible};
pub use server::Server;
pub use sockopt::{dont_fragment, ecn_is_agreed, ecn_is_seen, obey_path_mtu, path_mtu, segment_datagrams};
pub use topology::{Client, Topology, TopologyOptions};

/// What every fallible function of this crate answers with.
pub type Result<T> = std::result::Result<T, Error>;
