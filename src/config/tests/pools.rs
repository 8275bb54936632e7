//! Pools, translation prefixes, and who is served from where.

use super::*;

#[test]
fn several_translation_prefixes_may_be_given_but_none_twice() {
    let one = parse("translation_prefix = \"2001:db8:64::/96\"").unwrap();
    assert_eq!(one.translation_prefixes, ["2001:db8:64::/96".parse().unwrap()]);
    let list = |numbers: std::ops::Range<u8>| {
        let prefixes =
            numbers.map(|number| format!("\"2001:db8:{number}::/96\"")).collect::<Vec<_>>().join(", ");
        format!("translation_prefix = [{prefixes}]")
    };
    let most = parse(&list(0..16)).unwrap();
    assert_eq!(most.translation_prefixes.len(), MAX_TRANSLATION_PREFIXES);
    assert_eq!(most.translation_prefix(), "2001:db8::/96".parse().unwrap());
    let too_many = parse(&list(0..18)).unwrap_err();
    assert!(
        too_many.len() == 1 && too_many[0].contains("2001:db8:16::/96 is one too many; 16"),
        "{too_many:?}"
    );
    refused(&[
        ("translation_prefix = []", "1:22", "the list is empty"),
        ("translation_prefix = 64", "1:22", "translation_prefix: "),
        ("translation_prefix = [\"64:ff9b::/96\", 3]", "1:39", "translation_prefix: "),
        (
            "translation_prefix = [\"2001:db8::/32\", \"2001:db8:1::/96\"]",
            "1:40",
            "2001:db8:1::/96 overlaps 2001:db8::/32 (p.toml:1:23)",
        ),
        (
            "translation_prefix = [\"2001:db8:1::/96\", \"2001:db8::/32\"]",
            "1:42",
            "2001:db8::/32 overlaps 2001:db8:1::/96 (p.toml:1:23)",
        ),
        ("translation_prefix = [\"64:ff9b::/96\", \"64:ff9b::/96\"]", "1:39", "overlaps"),
        ("translation_prefix = [\"64:ff9b::/96\", \"fe80::/64\"]", "1:39", "no addresses that can be routed"),
    ]);
}

#[test]
fn a_pool_is_for_everyone_and_shared_by_ports_unless_told_otherwise() {
    let settings = parse("[[pool]]\nprefix = \"192.0.2.0/28\"").unwrap();
    let Pools::Explicit(pools) = settings.pools else { panic!("{:?}", settings.pools) };
    assert_eq!(pools, [PoolSettings::new("192.0.2.0/28".parse().unwrap())]);
    assert_eq!((pools[0].sharing, pools[0].ports), (Sharing::Ports, PortRange::new(1024, 65_535).unwrap()));
}

#[test]
fn reserved_ports_are_listed_once_and_only_those_of_the_pool() {
    let text = "[[pool]]\nprefix = \"192.0.2.0/28\"\nports = \"2048-4095\"\n\
                reserved_ports = [\"4000-4002\", 3000, \"4002\", \"80\", \"4094-5000\"]";
    let Pools::Explicit(pools) = parse(text).unwrap().pools else { panic!() };
    assert_eq!(pools[0].reserved(), [3000, 4000, 4001, 4002, 4094, 4095]);
}

#[test]
fn what_a_pool_cannot_be_is_said() {
    let pool = |more: &str| format!("[[pool]]\nprefix = \"192.0.2.0/28\"\n{more}");
    let cases = [
        ("sharing = \"port\"", "3:11", "expected `ports` or `exclusive`"),
        ("ports = \"0-80\"", "3:9", "port 0"),
        ("ports = \"80-70\"", "3:9", "the lower port first"),
        ("ports = 70000", "3:9", "from 1 to 65535"),
        ("ports = \"1024\"", "3:9", "no block of 128 ports to lease in 1024"),
        ("ports = \"1025-1278\"", "3:9", "begins at a multiple of 128"),
        (
            "ports = \"1024-1151\"\nreserved_ports = [\"1024-1100\", \"1101-1151\"]",
            "3:9",
            "not all of its ports",
        ),
        ("reserved_ports = [\"1-65535\"]", "3:18", "no block of 128 ports"),
        ("reserved_ports = [80, \"http\"]", "3:23", "\"http\" is no range of ports"),
        ("reserved_ports = \"80\"", "3:18", "a list is expected"),
        ("sharing = \"exclusive\"\nports = \"1024-2047\"", "4:9", "ports has no meaning here"),
        ("sharing = \"exclusive\"\nreserved_ports = []", "4:18", "reserved_ports has no meaning here"),
        ("hosts = []", "3:9", "names nobody"),
        ("hosts = [\"2001:db8::/129\"]", "3:10", "2001:db8::/129"),
        ("hosts = [\"2001:db8::1/64\"]", "3:10", "the network is 2001:db8::/64"),
        (
            "[sessions]\nblock_size = 4096\n[[pool]]\nprefix = \"192.0.2.16/28\"\nports = \"1-4097\"",
            "7:9",
            "no block of 4096",
        ),
    ]
    .map(|(more, place, words)| (pool(more), place, words));
    refused(&cases.each_ref().map(|(text, place, words)| (&text[..], *place, *words)));
    parse(&pool("ports = \"1024-1151\"\nreserved_ports = [\"1024-1150\"]")).unwrap();
    // The size of a block comes later in the file, and counts all the same.
    parse(&pool("ports = \"1040-1055\"\n[sessions]\nblock_size = 16")).unwrap();
}

#[test]
fn a_pool_that_nobody_is_ever_served_from_is_a_mistake() {
    let pools = |pools: [(&str, &str); 3]| {
        let mut text = String::new();
        for (number, (sharing, hosts)) in pools.iter().enumerate() {
            let hosts = if hosts.is_empty() { String::new() } else { format!("hosts = {hosts}\n") };
            let line =
                format!("[[pool]]\nprefix = \"192.0.{number}.0/24\"\nsharing = \"{sharing}\"\n{hosts}");
            text.push_str(&line);
        }
        parse(&text)
    };
    let unserved = |given: [(&str, &str); 3]| {
        let problems = pools(given).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        let (_, rest) = problems[0].split_once("pool: ").unwrap();
        assert!(rest.contains("serves nobody"), "{problems:?}");
        rest.split_once(' ').unwrap().0.to_owned()
    };
    let (all, a, b) = ("", "[\"2001:db8:a::/48\"]", "[\"2001:db8:b::/48\"]");
    let both = "[\"2001:db8:a::/48\", \"2001:db8:b::/48\"]";
    assert_eq!(unserved([("ports", all), ("exclusive", all), ("ports", a)]), "192.0.1.0/24");
    assert_eq!(unserved([("exclusive", all), ("exclusive", a), ("ports", a)]), "192.0.2.0/24");
    assert_eq!(unserved([("exclusive", a), ("ports", a), ("ports", b)]), "192.0.1.0/24");
    assert_eq!(unserved([("exclusive", a), ("exclusive", b), ("ports", both)]), "192.0.2.0/24");
    for served in [
        [("ports", a), ("exclusive", all), ("ports", a)],
        [("ports", all), ("ports", a), ("ports", all)],
        [("exclusive", a), ("ports", both), ("exclusive", all)],
        [("ports", a), ("exclusive", all), ("ports", "[\"2001:db8::/32\"]")],
        // The second one serves 2001:db8:b::/48 of its /47.
        [("exclusive", a), ("ports", "[\"2001:db8:a::/47\"]"), ("ports", b)],
    ] {
        pools(served).unwrap();
    }
}
