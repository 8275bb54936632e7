//! What the kernel of a namespace has counted.

use std::fs;

use netlab::Namespace;

/// A counter of `/proc/net/snmp` by its group and name, like `Ip` and `ReasmOKs` (RFC 4293).
pub(crate) fn counter_v4(namespace: &Namespace, group: &str, name: &str) -> u64 {
    let page = namespace.run(|| fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
    // Two lines for each group: the names, and the values in the same order.
    let mut lines = page.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut columns = names.split(' ').zip(values.split(' '));
    let (_, value) = columns.find(|(own, _)| *own == name).unwrap_or_else(|| panic!("no {group} {name}"));
    value.parse().unwrap()
}

/// A counter of `/proc/net/snmp6`, like `Ip6ReasmOKs`.
pub(crate) fn counter_v6(namespace: &Namespace, name: &str) -> u64 {
    let page = namespace.run(|| fs::read_to_string("/proc/thread-self/net/snmp6").unwrap());
    let mut rows = page.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let (_, value) = rows.find(|(own, _)| *own == name).unwrap_or_else(|| panic!("no {name}"));
    value.trim().parse().unwrap()
}

/// That nothing in a namespace tracks connections, or has put fragments together on their way through.
pub(crate) fn assert_untracked(namespace: &Namespace) {
    let entries = namespace.run(|| fs::read_to_string("/proc/thread-self/net/nf_conntrack"));
    // Without the module there is no such file.
    assert!(entries.as_ref().map_or(true, String::is_empty), "connections are tracked: {entries:?}");
    assert_eq!(counter_v4(namespace, "Ip", "ReasmReqds"), 0, "IPv4 fragments were put together");
    assert_eq!(counter_v6(namespace, "Ip6ReasmReqds"), 0, "IPv6 fragments were put together");
}
