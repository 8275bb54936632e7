//! How large the segments of a TCP connection may be: the links of this host decide, as far as it knows them.

use ipnet::IpNet;
use rtnl::{RouteKind, Snapshot};

use crate::config::{LEAST_MSS, MssClamp};
use crate::datapath::MssLimits;

/// The headers of a TCP segment without options, in bytes.
const HEADERS_V4: u32 = 20 + 20;
const HEADERS_V6: u32 = 40 + 20;

/// The limits, by the setting and the links beside the device `own`.
pub(super) fn limits(setting: MssClamp, snapshot: &Snapshot, own: &str) -> Option<MssLimits> {
    match setting {
        MssClamp::Off => None,
        MssClamp::Most(most) => Some(MssLimits { to_v4: most, to_v6: most }),
        MssClamp::Auto => {
            let size = |is_v6, headers| {
                let mtu = narrowest(snapshot, own, is_v6).unwrap_or(u32::MAX);
                u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX).max(LEAST_MSS)
            };
            // What comes back to an IPv6 host leaves by an IPv6 link, and what it sends by an IPv4 link.
            Some(MssLimits { to_v4: size(true, HEADERS_V6), to_v6: size(false, HEADERS_V4) })
        }
    }
}

/// The least MTU of the links that are up and that routes of this family lead to.
fn narrowest(snapshot: &Snapshot, own: &str, is_v6: bool) -> Option<u32> {
    let leads_on = |destination: &IpNet| match destination {
        IpNet::V4(_) => !is_v6,
        IpNet::V6(net) => is_v6 && !net.addr().is_unicast_link_local() && !net.addr().is_multicast(),
    };
    let routes = snapshot
        .routes
        .iter()
        .filter(|route| route.kind == RouteKind::Unicast && leads_on(&route.destination));
    let links = routes.flat_map(|route| &route.next_hops).filter_map(|hop| hop.link);
    links
        .filter_map(|index| snapshot.link_by_index(index))
        .filter(|link| link.up && !link.loopback && link.name != own)
        .map(|link| link.mtu)
        .min()
}

#[cfg(test)]
mod tests {
    use rtnl::{Link, LinkKind, LinkStats, NextHop, Route};

    use super::*;

    fn link(index: u32, name: &str, mtu: u32) -> Link {
        Link {
            index,
            name: name.to_owned(),
            kind: LinkKind::Other("veth".to_owned()),
            loopback: false,
            up: true,
            carrier: true,
            mtu,
            alias: None,
            link_local: None,
            stats: LinkStats::default(),
        }
    }

    fn route(destination: &str, link: u32) -> Route {
        Route {
            destination: destination.parse().unwrap(),
            metric: 0,
            protocol: 3,
            scope: 0,
            kind: RouteKind::Unicast,
            next_hops: vec![NextHop { link: Some(link), gateway: None }],
        }
    }

    #[test]
    fn segments_fit_the_narrowest_link_of_the_side_that_they_leave_by() {
        let mut snapshot = Snapshot {
            links: vec![
                link(1, "inside", 1480),
                link(2, "uplink", 1492),
                link(3, "nat64", 9216),
                link(4, "spare", 1300),
            ],
            routes: vec![
                route("2001:db8:1::/64", 1),
                route("fe80::/64", 4),
                route("0.0.0.0/0", 2),
                route("203.0.113.0/24", 3),
                route("64:ff9b::/96", 3),
            ],
            ..Snapshot::default()
        };
        let auto = |snapshot: &Snapshot| limits(MssClamp::Auto, snapshot, "nat64");
        assert_eq!(auto(&snapshot), Some(MssLimits { to_v4: 1480 - 60, to_v6: 1492 - 40 }));
        snapshot.links[0].up = false;
        assert_eq!(auto(&snapshot).unwrap().to_v4, u16::MAX, "no link, no limit");
        snapshot.links[1].mtu = 68;
        assert_eq!(auto(&snapshot).unwrap().to_v6, LEAST_MSS);
    }

    #[test]
    fn a_size_that_was_set_holds_for_both_sides() {
        let snapshot = Snapshot::default();
        let most = limits(MssClamp::Most(1220), &snapshot, "nat64");
        assert_eq!(most, Some(MssLimits { to_v4: 1220, to_v6: 1220 }));
        assert_eq!(limits(MssClamp::Off, &snapshot, "nat64"), None);
    }
}
