//! The kernel's configuration as far as this router touches it.
//!
//! Links, addresses and routes live in the crate `rtnl`; the rest is here, and nothing outside the two changes kernel
//! state:
//!
//! | module | what |
//! | --- | --- |
//! | [`masquerade`] | the nftables table that hides pools behind the host's own IPv4 address |
//! | [`firewall`] | notices rules of others that drop what this router forwards |
//! | [`sysctl`] | forwarding: read, enable on request, restore |
//! | [`lanes`] | the program by which both ways of a flow come to one worker |
//! | [`preflight`] | pure checks of the configuration against what is there |
//! | [`cleanup`] | finds and removes what carries our marks |
//!
//! Functions that are not `async` make a few system calls which the kernel answers at once; none waits for a peer.
//!
//! Our marks, by which an unclean end is tidied up later: the alias [`LINK_ALIAS`] on the device, the route protocol
//! number [`rtnl::ROUTE_PROTOCOL`] with the metric [`rtnl::ROUTE_METRIC`], tables whose name begins with
//! [`masquerade::TABLE_PREFIX`], and record files of changed sysctls below [`sysctl::RECORD_DIR`].

pub mod cleanup;
pub mod firewall;
pub mod lanes;
pub mod masquerade;
mod netfilter;
pub mod preflight;
pub mod sysctl;

pub use netfilter::NetfilterError;

/// The alias (`ip link show` prints it) that marks a TUN device as made by this router.
pub const LINK_ALIAS: &str = "protomask";
