//! Each call of the kernel is refused once: the error names what was refused, and the next try works.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail the test that calls them"
)]

use std::time::Duration;

use ipnet::IpNet;
use netlab::Namespace;
use rtnl::faults::{Point, arm, struck};
use rtnl::{Change, Handle, Watcher};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// The error and its causes.
fn text(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Has one call refused by `point`, which says `words`, and makes it again.
async fn refuse<T, F: Future<Output = Result<T, rtnl::Error>>>(
    point: Point,
    words: &str,
    call: impl Fn() -> F,
) -> T {
    arm(point, 1);
    let error = call().await.err().unwrap_or_else(|| panic!("{point:?} was not refused"));
    assert_eq!(struck(point), 1, "{point:?}");
    let text = text(&error);
    assert!(text.contains(words) && text.contains("os error 5"), "{point:?}: {text}");
    call().await.unwrap_or_else(|error| panic!("after {point:?}: {error}"))
}

#[test]
fn a_refused_call_of_the_kernel_is_named_and_the_next_one_works() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    Namespace::new("refused").unwrap().block_on(async {
        let handle = refuse(Point::Open, "netlink socket", || async { Handle::open() }).await;
        let mut watcher = refuse(Point::Watch, "netlink socket", || async { Watcher::open() }).await;
        let mut configuration = tun::Configuration::default();
        configuration.tun_name("nat64");
        configuration.platform_config(|platform| {
            platform.ensure_root_privileges(false);
        });
        // Stays for as long as its descriptor is open, unless it is removed.
        let _device = tun::create(&configuration).expect("a TUN device");
        let snapshot = refuse(Point::Snapshot, "list the links", || handle.snapshot()).await;
        let link = snapshot.links.iter().find(|link| link.name == "nat64").unwrap().index;
        refuse(Point::LinkStats, "counters", || handle.link_stats(link)).await;
        let (address, route) = (net("192.0.2.1/32"), net("203.0.113.0/24"));
        for (point, words, change) in [
            (Point::ChangeLink, "nat64", Change::SetUp { link, up: true }),
            (Point::AddAddress, "192.0.2.1", Change::AddAddress { link, address }),
            (Point::AddRoute, "203.0.113.0", Change::AddRoute { link, destination: route }),
            (Point::RemoveRoute, "203.0.113.0", Change::RemoveRoute { link, destination: route }),
            (Point::RemoveAddress, "192.0.2.1", Change::RemoveAddress { link, address }),
        ] {
            let words = if point == Point::ChangeLink { "the kernel refused to" } else { words };
            refuse(point, words, || handle.make(&change)).await;
        }
        // Whoever listens is told that there will be nothing more.
        arm(Point::Event, 1);
        handle.make(&Change::AddAddress { link, address }).await.unwrap();
        let end = async { while watcher.next().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(30), end).await.expect("no event after the last");
        refuse(Point::RemoveLink, &format!("remove interface {link}"), || handle.remove_link(link)).await;
        for point in Point::ALL {
            assert_eq!(struck(*point), 1, "{point:?} has its case here");
        }
    });
}
