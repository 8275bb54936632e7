//! Congestion that is marked (RFC 3168): how a sender answers that is said once, by the first segment of a super-packet.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use etherparse::{SlicedPacket, TransportSlice};
use netlab::{Direction, Namespace, Server, Topology, bulk_transfer};

use crate::common::wire::Sniffer;
use crate::common::{Lab, Router, plain_and, through};
use crate::lab::{Way, without_offloads};

/// Enough for super-packets, and little enough for a sniffer to see all of it.
const BYTES: u64 = 2_000_000;

/// The longest packet that is not a super-packet.
const MTU: usize = 1500;

/// Transfers that are tried until an answer comes in a super-packet: that is the sender's choice.
const TRIES: usize = 20;

/// Marks some of the data that comes in, of both families. `false` where that cannot be had.
fn marks(namespace: &Namespace) -> bool {
    let marked = |family: &str| {
        format!(
            "add rule inet congestion marked tcp dport != 0 meta length > 1000 limit rate 20/second burst 1 packets {family} ecn set ce"
        )
    };
    let hook = "add table inet congestion; add chain inet congestion marked { type filter hook prerouting priority -300; }";
    let rules = format!("{hook}; {}; {}", marked("ip"), marked("ip6"));
    namespace.run(|| Command::new("nft").arg(rules).output()).is_ok_and(|done| done.status.success())
}

/// The length of a TCP packet with CWR.
fn length_of_answer(packet: &[u8]) -> Option<usize> {
    let TransportSlice::Tcp(tcp) = SlicedPacket::from_ip(packet).ok()?.transport? else { return None };
    (tcp.cwr() && !tcp.syn()).then_some(packet.len())
}

#[test]
fn an_answer_to_congestion_leaves_once_for_each_time_that_it_was_given() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for offloads in ["auto", "tso4,tso6"] {
        let lab = Lab::new();
        without_offloads(&lab);
        for namespace in [lab.client(), &lab.server] {
            namespace.sysctl("net.ipv4.tcp_ecn", "1").unwrap();
            if !marks(namespace) {
                let must = std::env::var(netlab::REQUIRE_VARIABLE).is_ok_and(|value| value == "1");
                assert!(!must, "nft cannot mark packets, and this test must run");
                println!("skipped: nft cannot mark packets here");
                return;
            }
        }
        let _server = Server::bulk(&lab.server, (Topology::SERVER_V4, 9000)).unwrap();
        let mut router = Router::start(&lab, &plain_and(&["--offloads", offloads]));
        let on = router.wait_for_log("offloads", |_| true).field("on");
        assert_eq!(on.contains("tso_ecn"), offloads == "auto", "{on}");
        for way in Way::BOTH {
            let (from, to, direction) = match way {
                Way::Up => (lab.client(), &lab.server, Direction::Upload),
                Way::Down => (&lab.server, lab.client(), Direction::Download),
            };
            let whole = (0..TRIES).any(|_| {
                let (sent, came) = (Sniffer::new(from), Sniffer::new(to));
                let target = SocketAddr::from((through(Topology::SERVER_V4), 9000));
                let limit = Duration::from_mins(2);
                let transfer = bulk_transfer(lab.client(), target, direction, BYTES, limit, |_| ()).unwrap();
                assert!(transfer.is_intact(), "{way:?}: {transfer:?}");
                let (sent, came) = (sent.so_far(length_of_answer), came.so_far(length_of_answer));
                assert_eq!(came.len(), sent.len(), "{way:?} with {on}: {sent:?} became {came:?}");
                assert!(came.iter().all(|length| *length <= MTU), "{came:?}");
                sent.iter().any(|length| *length > MTU)
            });
            assert!(whole, "{way:?}: no answer came in a super-packet");
        }
        let metrics = router.metrics();
        assert_eq!(metrics.all_dropped() + metrics.sum("protomask_device_read_errors_total", &[]), 0);
        router.end();
    }
}
