use core::net::Ipv4Addr;

/// Whether non-global IPv4 addresses may be represented by the well-known prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NonGlobal {
    /// They must not (RFC 6052 §3.1).
    #[default]
    Refuse,
    /// They may, on the operator's own word.
    Allow,
}

/// The networks of the IANA IPv4 special-purpose address registry that are not globally reachable, and multicast:
/// (first address, prefix length).
const NOT_GLOBAL: [(u32, u8); 16] = [
    (0x0000_0000, 8),  // 0.0.0.0/8        "this network" (RFC 791 §3.2)
    (0x0a00_0000, 8),  // 10.0.0.0/8       private use (RFC 1918)
    (0x6440_0000, 10), // 100.64.0.0/10    shared address space (RFC 6598)
    (0x7f00_0000, 8),  // 127.0.0.0/8      loopback (RFC 1122 §3.2.1.3)
    (0xa9fe_0000, 16), // 169.254.0.0/16   link local (RFC 3927)
    (0xac10_0000, 12), // 172.16.0.0/12    private use (RFC 1918)
    (0xc000_0000, 24), // 192.0.0.0/24     IETF protocol assignments (RFC 6890); two exceptions below
    (0xc000_0200, 24), // 192.0.2.0/24     documentation (RFC 5737)
    (0xc058_6302, 32), // 192.88.99.2/32   6a44 relay anycast (RFC 6751)
    (0xc0a8_0000, 16), // 192.168.0.0/16   private use (RFC 1918)
    (0xc612_0000, 15), // 198.18.0.0/15    benchmarking (RFC 2544)
    (0xc633_6400, 24), // 198.51.100.0/24  documentation (RFC 5737)
    (0xcb00_7100, 24), // 203.0.113.0/24   documentation (RFC 5737)
    (0xe000_0000, 4),  // 224.0.0.0/4      multicast (RFC 5771): no unicast address at all
    (0xf000_0000, 4),  // 240.0.0.0/4      reserved, and the limited broadcast (RFC 1112 §4, RFC 8190)
    (0xffff_ffff, 32), // 255.255.255.255  limited broadcast (RFC 8190)
];

/// Inside 192.0.0.0/24, and globally reachable all the same: PCP anycast (RFC 7723) and TURN anycast (RFC 8155).
const GLOBAL_EXCEPTIONS: [u32; 2] = [0xc000_0009, 0xc000_000a];

/// Whether an IPv4 address is a globally reachable unicast address, by the IANA IPv4 special-purpose address registry.
pub const fn is_global(address: Ipv4Addr) -> bool {
    let bits = address.to_bits();
    let mut n = 0;
    while n < GLOBAL_EXCEPTIONS.len() {
        if GLOBAL_EXCEPTIONS[n] == bits {
            return true;
        }
        n += 1;
    }
    n = 0;
    while n < NOT_GLOBAL.len() {
        let (network, length) = NOT_GLOBAL[n];
        if (bits ^ network) >> (32 - length as u32) == 0 {
            return false;
        }
        n += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_decides() {
        let global = [
            "8.8.8.8",
            "1.1.1.1",
            "192.0.0.9",
            "192.0.0.10",
            "192.88.99.1",
            "192.31.196.1",
            "100.128.0.1",
            "172.32.0.1",
            "223.255.255.255",
        ];
        for text in global {
            assert!(is_global(text.parse().unwrap()), "{text} is global");
        }
        let not = [
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.1.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.2",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ];
        for text in not {
            assert!(!is_global(text.parse().unwrap()), "{text} is not global");
        }
    }
}
