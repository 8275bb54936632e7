//! What single hosts have: explicit mappings and forwarded ports.

use super::*;

const POOLS: &str = "\
[[pool]]
prefix = \"192.0.2.16/28\"
sharing = \"exclusive\"
hosts = [\"2001:db8:e::/48\"]
[[pool]]
prefix = \"192.0.2.0/28\"
";

/// What follows [`POOLS`], at line 7.
fn with_pools(cases: &[(&str, &str, &str)]) {
    let cases: Vec<_> =
        cases.iter().map(|(text, place, words)| (format!("{POOLS}{text}"), *place, *words)).collect();
    refused(&cases.iter().map(|(text, place, words)| (&text[..], *place, *words)).collect::<Vec<_>>());
}

#[test]
fn what_a_mapping_cannot_be_is_said() {
    with_pools(&[
        ("[[eam]]\nipv4 = \"198.51.100.0/28\"", "7:1", "eam needs ipv6"),
        ("[[eam]]\nipv6 = \"2001:db8::/124\"", "7:1", "eam needs ipv4"),
        ("[[eam]]\nipv4 = \"198.51.100\"\nipv6 = \"2001:db8::/124\"", "8:8", "nor an IPv4 address"),
        ("[[eam]]\nipv4 = \"198.51.100.0\"\nipv6 = \"x\"", "9:8", "nor an IPv6 address"),
        (
            "[[eam]]\nipv4 = \"198.51.100.1/28\"\nipv6 = \"2001:db8::/124\"",
            "8:8",
            "the prefix is 198.51.100.0/28",
        ),
        (
            "[[eam]]\nipv4 = \"198.51.100.0/28\"\nipv6 = \"2001:db8::1/124\"",
            "9:8",
            "the prefix is 2001:db8::/124",
        ),
        (
            "[[eam]]\nipv4 = \"198.51.100.0/28\"\nipv6 = \"2001:db8::/125\"",
            "9:8",
            "make the IPv6 prefix /124",
        ),
        ("[[eam]]\nipv4 = \"127.0.0.1\"\nipv6 = \"2001:db8::1\"", "8:8", "overlaps 127.0.0.0/8"),
        (
            "[[eam]]\nipv4 = \"192.0.2.0/27\"\nipv6 = \"2001:db8::/64\"",
            "8:8",
            "takes all of the pool 192.0.2.16/28",
        ),
        ("[[eam]]\nipv4 = \"198.51.100.1\"\nipv6 = \"fe80::1\"", "9:8", "overlaps fe80::/10"),
        ("[[eam]]\nipv4 = \"198.51.100.0/24\"\nipv6 = \"::/64\"", "9:8", "overlaps ::/127"),
        (
            "[[eam]]\nipv4 = \"198.51.100.1\"\nipv6 = \"::ffff:192.0.2.1\"",
            "9:8",
            "overlaps ::ffff:0.0.0.0/96",
        ),
        (
            "[[eam]]\nipv4 = \"198.51.100.1\"\nipv6 = \"64:ff9b::1\"",
            "9:8",
            "overlaps the translation prefix 64:ff9b::/96",
        ),
        (
            "[[eam]]\nipv4 = \"198.51.100.0/24\"\nipv6 = \"64::/16\"",
            "9:8",
            "overlaps the translation prefix 64:ff9b::/96",
        ),
        (
            "[[eam]]\nipv4 = \"198.51.100.1\"\nipv6 = \"2001:db8::1\"\n\
             [[eam]]\nipv4 = \"198.51.100.1/32\"\nipv6 = \"2001:db8::2\"",
            "11:8",
            "198.51.100.1/32 is mapped already (p.toml:8:8)",
        ),
        (
            "[[static]]\naddress = \"198.51.100.1\"\nhost = \"2001:db8::1\"\n\
             [[eam]]\nipv4 = \"198.51.100.2\"\nipv6 = \"2001:db8::1\"",
            "12:8",
            "2001:db8::1/128 is mapped already (p.toml:8:11)",
        ),
    ]);
}

#[test]
fn mappings_may_overlap_each_other_pairs_and_pools() {
    let settings = parse(&format!(
        "{POOLS}\
         [[eam]]\nipv4 = \"192.0.2.0/30\"\nipv6 = \"2001:db8:1::/120\"\n\
         [[eam]]\nipv4 = \"192.0.2.1\"\nipv6 = \"2001:db8:1::/128\"\n\
         [[eam]]\nipv4 = \"192.0.2.20\"\nipv6 = \"2001:db8:2::1\"\n\
         [[static]]\naddress = \"192.0.2.2\"\nhost = \"2001:db8:1::7\"\n"
    ));
    assert_eq!(settings.unwrap().eams.len(), 3);
}

#[test]
fn what_a_forward_cannot_be_is_said() {
    const HEAD: &str = "[[forward]]\nprotocol = \"tcp\"\n";
    let forward = |rest: &str| format!("{HEAD}{rest}");
    let a = "address = \"192.0.2.1\"\nport = 80\nhost = \"2001:db8::80\"\n";
    for (text, place, words) in [
        (forward("port = 80\nhost = \"2001:db8::80\""), "7:1", "forward needs address"),
        (forward("address = \"192.0.2.1\"\nhost = \"2001:db8::80\""), "7:1", "forward needs port"),
        (forward("address = \"192.0.2.1\"\nport = 80"), "7:1", "forward needs host"),
        (format!("[[forward]]\n{a}"), "7:1", "forward needs protocol"),
        (format!("[[forward]]\nprotocol = \"icmp\"\n{a}"), "8:12", "expected `tcp` or `udp`"),
        (forward(&a.replace("80\n", "65536\n")), "10:8", "port"),
        (forward(&a.replace("80\n", "0\n")), "10:8", "0 is no port"),
        (forward(&format!("{a}host_port = 0")), "12:13", "0 is no port"),
        (forward(&a.replace("0.2.1", "0.2.32")), "9:11", "192.0.2.32 is in none of the pools"),
        (forward(&a.replace("0.2.1", "0.2.17")), "9:11", "whole addresses to hosts; use [[static]]"),
        (forward(&a.replace("2001:db8::80", "fe80::80")), "11:8", "cannot be the address of a host"),
        (forward(&a.replace("2001:db8::80", "64:ff9b::80")), "11:8", "cannot be the address of a host"),
        (forward(&format!("{a}prefix = \"64:ff9b:1::/96\"")), "12:10", "is none of the translation prefixes"),
        (
            format!("{}{}", forward(a), forward(&a.replace("::80", "::81"))),
            "15:8",
            "tcp port 80 of 192.0.2.1 is forwarded already (p.toml:10:8)",
        ),
        (
            format!(
                "{}{}",
                forward(a),
                forward(&format!("{}host_port = 80", a.replace("port = 80", "port = 81")))
            ),
            "16:8",
            "tcp port 80 of 2001:db8::80 is at another port already (p.toml:11:8)",
        ),
        (
            format!("{}[[static]]\naddress = \"192.0.2.1\"\nhost = \"2001:db8::1\"", forward(a)),
            "9:11",
            "is the address of a static pair",
        ),
        (
            format!("{}[[eam]]\nipv4 = \"192.0.2.0/31\"\nipv6 = \"2001:db8:1::/64\"", forward(a)),
            "9:11",
            "is the address of an explicit address mapping",
        ),
        (
            format!("{}[[static]]\naddress = \"198.51.100.1\"\nhost = \"2001:db8::80\"", forward(a)),
            "11:8",
            "has 198.51.100.1 for itself",
        ),
        (
            format!("{}[[eam]]\nipv4 = \"198.51.100.0/24\"\nipv6 = \"2001:db8::/64\"", forward(a)),
            "11:8",
            "has 198.51.100.0 for itself",
        ),
    ] {
        with_pools(&[(&text, place, words)]);
    }
    refused(&[(&forward(a), "3:11", "in none of the pools with sharing = \"ports\"")]);
    refused(&[(
        &format!("icmp_source_v4 = \"192.0.2.1\"\n{POOLS}{}", forward(a)),
        "1:18",
        "ports of 192.0.2.1 are forwarded",
    )]);
}

#[test]
fn the_same_port_may_be_forwarded_for_another_protocol_or_address() {
    let forward = |protocol: &str, address: &str, host: &str| {
        format!(
            "[[forward]]\nprotocol = \"{protocol}\"\naddress = \"{address}\"\nport = 80\nhost = \"{host}\"\n"
        )
    };
    let settings = parse(&format!(
        "{POOLS}{}{}{}",
        forward("tcp", "192.0.2.1", "2001:db8::80"),
        forward("udp", "192.0.2.1", "2001:db8::80"),
        forward("tcp", "192.0.2.2", "2001:db8::81"),
    ));
    let forwards = settings.unwrap().forwards;
    assert_eq!(forwards.len(), 3);
    assert!(forwards.iter().all(|forward| forward.host_port == 80 && forward.prefix == 0));
}

#[test]
fn a_host_looks_like_another_one_under_each_translation_prefix() {
    let forward = |port: u16, prefix: &str| {
        format!(
            "[[forward]]\nprotocol = \"tcp\"\naddress = \"192.0.2.1\"\nport = {port}\nhost = \"2001:db8::80\"\n\
             host_port = 80\nprefix = \"{prefix}\"\n"
        )
    };
    let prefixes = "translation_prefix = [\"64:ff9b::/96\", \"2001:db8:64::/96\"]\n";
    let (one, other) = (forward(80, "64:ff9b::/96"), forward(81, "2001:db8:64::/96"));
    let forwards = parse(&format!("{prefixes}{POOLS}{one}{other}")).unwrap().forwards;
    assert_eq!(
        forwards.iter().map(|forward| (forward.port, forward.prefix)).collect::<Vec<_>>(),
        [(80, 0), (81, 1)]
    );
}

#[test]
fn the_routers_address_is_nobodys_mapping() {
    refused(&[(
        "icmp_source_v4 = \"192.0.2.1\"\n[[eam]]\nipv4 = \"192.0.2.0/30\"\nipv6 = \"2001:db8::/126\"",
        "1:18",
        "192.0.2.1 is the address of an explicit address mapping",
    )]);
}
