use rtnl::{Link, LinkKind, LinkStats, NextHop, Route, RouteKind};

use super::*;

/// A `/proc/sys` of ordinary files, removed when dropped. The kernel's side effects are played by hand.
struct Fake {
    directory: PathBuf,
    sysctls: Sysctls,
}

impl Fake {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("protomask-sysctl-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let fake = Self { sysctls: Sysctls::at(directory.join("sys"), directory.join("run")), directory };
        fake.set("net/ipv4/ip_forward", "0");
        fake.set("net/ipv6/conf/all/forwarding", "0");
        fake
    }

    fn path(&self, key: &str) -> PathBuf {
        self.directory.join("sys").join(key)
    }

    fn set(&self, key: &str, value: &str) {
        let path = self.path(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{value}\n")).unwrap();
    }

    fn get(&self, key: &str) -> String {
        fs::read_to_string(self.path(key)).unwrap().trim().to_owned()
    }

    fn record(&self) -> PathBuf {
        self.directory.join("run/nat64.sysctl.json")
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn snapshot(links: &[&str], advertised_by: &[u32]) -> Snapshot {
    Snapshot {
        links: links
            .iter()
            .zip(1..)
            .map(|(name, index)| Link {
                index,
                name: (*name).into(),
                kind: LinkKind::Unspecified,
                loopback: false,
                up: true,
                carrier: true,
                mtu: 1500,
                alias: None,
                link_local: None,
                stats: LinkStats::default(),
            })
            .collect(),
        addresses: vec![],
        routes: advertised_by
            .iter()
            .map(|index| Route {
                destination: "::/0".parse().unwrap(),
                metric: 1024,
                protocol: rtnl::protocol::RA,
                scope: 0,
                kind: RouteKind::Unicast,
                next_hops: vec![NextHop { link: Some(*index), gateway: Some("fe80::1".parse().unwrap()) }],
            })
            .collect(),
    }
}

fn texts(changes: &[Change]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

#[test]
fn commands_keep_advertised_routes_before_they_turn_forwarding_on() {
    let fake = Fake::new("commands");
    fake.set("net/ipv6/conf/eth0/accept_ra", "1");
    fake.set("net/ipv6/conf/eth0.100/accept_ra", "1");
    fake.set("net/ipv6/conf/wlan0/accept_ra", "0");
    let snapshot = snapshot(&["eth0", "eth0.100", "wlan0", "eth9"], &[1, 2, 3]);
    assert_eq!(
        fake.sysctls.commands_to_enable(&snapshot).unwrap(),
        [
            "sysctl -w net.ipv6.conf.eth0.accept_ra=2",
            "sysctl -w net/ipv6/conf/eth0.100/accept_ra=2",
            "sysctl -w net.ipv6.conf.all.forwarding=1",
            "sysctl -w net.ipv4.ip_forward=1",
        ]
    );
}

#[test]
fn where_all_is_on_there_is_nothing_to_do_and_nothing_to_record() {
    let fake = Fake::new("on");
    fake.set("net/ipv4/ip_forward", "1");
    fake.set("net/ipv6/conf/all/forwarding", "1");
    assert!(fake.sysctls.forwarding().unwrap().is_on());
    assert!(fake.sysctls.commands_to_enable(&snapshot(&["eth0"], &[1])).unwrap().is_empty());
    assert!(fake.sysctls.enable("nat64", &snapshot(&["eth0"], &[1])).unwrap().changed.is_empty());
    assert!(!fake.record().exists());
}

#[test]
fn a_kernel_without_ipv6_does_not_forward_it() {
    let fake = Fake::new("noipv6");
    fs::remove_file(fake.path("net/ipv6/conf/all/forwarding")).unwrap();
    fake.set("net/ipv4/ip_forward", "1");
    assert_eq!(fake.sysctls.forwarding().unwrap(), Forwarding { ipv4: true, ipv6: false });
}

#[test]
fn changes_are_recorded_and_restored_in_reverse_order() {
    let fake = Fake::new("restore");
    fake.set("net/ipv6/conf/eth0/accept_ra", "1");
    let snapshot = snapshot(&["eth0"], &[1]);
    let changes = fake.sysctls.enable("nat64", &snapshot).unwrap();
    assert_eq!(
        texts(&changes.changed),
        [
            "net.ipv6.conf.eth0.accept_ra: 1 -> 2",
            "net.ipv6.conf.all.forwarding: 0 -> 1",
            "net.ipv4.ip_forward: 0 -> 1",
        ]
    );
    assert!(fake.sysctls.forwarding().unwrap().is_on());
    assert_eq!(fake.sysctls.records().unwrap(), ["nat64"]);

    let restored = fake.sysctls.restore("nat64").unwrap();
    assert_eq!(
        texts(&restored.changed),
        [
            "net.ipv4.ip_forward: 1 -> 0",
            "net.ipv6.conf.all.forwarding: 1 -> 0",
            "net.ipv6.conf.eth0.accept_ra: 2 -> 1",
        ]
    );
    assert_eq!(fake.get("net/ipv6/conf/eth0/accept_ra"), "1");
    assert!(!fake.record().exists());
    assert_eq!(fake.sysctls.restore("nat64").unwrap(), Restored::default(), "idempotent");
    assert!(fake.sysctls.records().unwrap().is_empty());
}

#[test]
fn after_an_unclean_end_the_values_of_before_it_are_the_ones_restored() {
    let fake = Fake::new("unclean");
    fake.set("net/ipv6/conf/eth0/accept_ra", "1");
    let snapshot = snapshot(&["eth0"], &[1]);
    fake.sysctls.enable("nat64", &snapshot).unwrap();
    // The process died. Somebody turned IPv4 forwarding off; the next start turns it on again.
    fake.set("net/ipv4/ip_forward", "0");
    let changes = fake.sysctls.enable("nat64", &snapshot).unwrap();
    assert_eq!(changes.changed.len(), 3);
    fake.sysctls.restore("nat64").unwrap();
    assert_eq!(fake.sysctls.forwarding().unwrap(), Forwarding { ipv4: false, ipv6: false });
    assert_eq!(fake.get("net/ipv6/conf/eth0/accept_ra"), "1");
}

#[test]
fn what_was_on_for_one_interface_is_on_again_after_the_restore() {
    let fake = Fake::new("kept");
    fake.set("net/ipv4/conf/br0/forwarding", "1");
    fake.set("net/ipv4/conf/eth0/forwarding", "0");
    fake.set("net/ipv4/conf/all/accept_redirects", "1");
    let snapshot = snapshot(&["br0", "eth0"], &[]);
    fake.sysctls.enable("nat64", &snapshot).unwrap();
    // What the kernel does with ip_forward=1 and =0.
    fake.set("net/ipv4/conf/br0/forwarding", "0");
    fake.set("net/ipv4/conf/all/accept_redirects", "0");
    fake.sysctls.restore("nat64").unwrap();
    assert_eq!(fake.get("net/ipv4/conf/br0/forwarding"), "1");
    assert_eq!(fake.get("net/ipv4/conf/eth0/forwarding"), "0");
    assert_eq!(fake.get("net/ipv4/conf/all/accept_redirects"), "1");
}

#[test]
fn a_value_that_somebody_else_set_meanwhile_is_left_and_reported() {
    let fake = Fake::new("left");
    fake.set("net/ipv6/conf/eth0/accept_ra", "1");
    fake.sysctls.enable("nat64", &snapshot(&["eth0"], &[1])).unwrap();
    fake.set("net/ipv6/conf/eth0/accept_ra", "0");
    let restored = fake.sysctls.restore("nat64").unwrap();
    assert_eq!(restored.left.len(), 1);
    assert_eq!(fake.get("net/ipv6/conf/eth0/accept_ra"), "0");
    assert!(!fake.record().exists());
}

#[test]
fn a_failed_write_is_named_and_what_was_written_is_undone() {
    let fake = Fake::new("failed");
    // IPv6 comes first and cannot be written: no such file.
    fs::remove_file(fake.path("net/ipv6/conf/all/forwarding")).unwrap();
    fake.set("net/ipv4/ip_forward", "0");
    let error = fake.sysctls.enable("nat64", &snapshot(&[], &[])).unwrap_err();
    assert!(error.to_string().contains("net.ipv6.conf.all.forwarding"), "{error}");
    assert_eq!(fake.get("net/ipv4/ip_forward"), "0");
    assert!(!fake.record().exists());
}

#[test]
fn without_a_place_for_the_record_nothing_is_changed() {
    let fake = Fake::new("norecord");
    fs::write(fake.directory.join("run"), "a file, not a directory").unwrap();
    let error = fake.sysctls.enable("nat64", &snapshot(&[], &[])).unwrap_err();
    assert!(matches!(error, SysctlError::Record { .. } | SysctlError::BadRecord { .. }), "{error:?}");
    assert!(!fake.sysctls.forwarding().unwrap().is_on());
}

#[test]
fn a_record_that_is_broken_or_leads_elsewhere_is_refused() {
    let fake = Fake::new("bad");
    fs::create_dir_all(fake.directory.join("run")).unwrap();
    fs::write(fake.path("../outside"), "1").unwrap();
    let entry = |key: &str| format!(r#"{{"changed":[{{"key":"{key}","old":"0","new":"1"}}],"kept":[]}}"#);
    for text in [
        String::new(),
        "{".into(),
        r#"{"changed":[],"kept":[],"more":1}"#.into(),
        entry("../outside"),
        entry("net/ipv4/conf/../../../outside/forwarding"),
        entry("net/ipv4/conf/../forwarding"),
        entry("kernel/panic"),
    ] {
        fs::write(fake.record(), &text).unwrap();
        let error = fake.sysctls.restore("nat64").unwrap_err();
        assert!(matches!(error, SysctlError::BadRecord { .. }), "{text}: {error:?}");
        assert!(error.to_string().contains("nat64.sysctl.json"), "{error}");
    }
    assert_eq!(fake.get("../outside"), "1");
}

#[test]
fn of_several_routers_the_last_one_to_end_restores() {
    let fake = Fake::new("several");
    let snapshot = snapshot(&["eth0"], &[]);
    fake.sysctls.enable("nat64", &snapshot).unwrap();
    // Nothing is left for the second one to do, but it relies on it.
    fake.sysctls.enable("nat65", &snapshot).unwrap();
    assert_eq!(fake.sysctls.records().unwrap(), ["nat64", "nat65"]);
    assert_eq!(fake.sysctls.restore("nat64").unwrap(), Restored::default());
    assert!(fake.sysctls.forwarding().unwrap().is_on());
    assert_eq!(fake.sysctls.restore("nat65").unwrap().changed.len(), 2);
    assert_eq!(fake.sysctls.forwarding().unwrap(), Forwarding { ipv4: false, ipv6: false });
    assert!(fake.sysctls.records().unwrap().is_empty());
}
