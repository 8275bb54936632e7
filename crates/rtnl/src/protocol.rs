//! Route protocol numbers (`rtm_protocol`), from `linux/rtnetlink.h` and iproute2's `rt_protos`.

/// The route was made by the kernel for an address.
pub const KERNEL: u8 = 2;
/// The route came by a router advertisement.
pub const RA: u8 = 9;

/// The name `ip route` prints for a protocol number; the number itself where it has no name.
pub fn protocol_name(number: u8) -> String {
    let name = match number {
        0 => "unspec",
        1 => "redirect",
        KERNEL => "kernel",
        3 => "boot",
        4 => "static",
        8 => "gated",
        RA => "ra",
        10 => "mrt",
        11 => "zebra",
        12 => "bird",
        13 => "dnrouted",
        14 => "xorp",
        15 => "ntk",
        16 => "dhcp",
        17 => "mrouted",
        18 => "keepalived",
        42 => "babel",
        84 => "ovn",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        crate::ROUTE_PROTOCOL => "64 (protomask)",
        _ => return number.to_string(),
    };
    name.to_owned()
}
