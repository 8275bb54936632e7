//! Checks of translation prefixes and of the router's own addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use rfc6052::Prefix;

use super::super::{Forward, MAX_TRANSLATION_PREFIXES, Placed, PoolSettings};
use super::{Check, OwnAddresses, unusable};

impl Check<'_> {
    /// The prefixes; the well-known one where none is given.
    pub(in super::super) fn translation_prefixes(
        &mut self,
        prefixes: Option<Vec<Placed<Prefix>>>,
    ) -> Vec<Prefix> {
        let mut checked: Vec<Placed<Prefix>> = Vec::new();
        for placed in prefixes.unwrap_or_default() {
            let prefix = placed.value;
            let first = prefix.address();
            // ::/96 and ::ffff:0:0/96 are IPv4-compatible and IPv4-mapped addresses (RFC 4291 §2.5.5).
            if first.segments()[..5] == [0; 5] || first.is_unicast_link_local() || first.is_multicast() {
                self.wrong(
                    &placed,
                    format!("translation_prefix: {prefix} holds no addresses that can be routed"),
                );
            }
            let overlaps = |other: &&Placed<Prefix>| {
                other.value.contains(first) || prefix.contains(other.value.address())
            };
            if let Some(other) = checked.iter().find(overlaps) {
                let (other, there) = (other.value, &other.place);
                self.wrong(&placed, format!("translation_prefix: {prefix} overlaps {other} ({there})"));
            }
            if checked.len() == MAX_TRANSLATION_PREFIXES {
                let most = MAX_TRANSLATION_PREFIXES;
                self.wrong(
                    &placed,
                    format!("translation_prefix: {prefix} is one too many; {most} are the most"),
                );
                break;
            }
            checked.push(placed);
        }
        if checked.is_empty() { vec![Prefix::WELL_KNOWN] } else { super::values(checked) }
    }

    pub(in super::super) fn icmp_sources(
        &mut self,
        v4: Option<&Placed<Ipv4Addr>>,
        v6: Option<&Placed<Ipv6Addr>>,
    ) {
        if let Some(placed) = v4
            && unusable(placed.value.into()).is_some()
        {
            let address = placed.value;
            self.wrong(placed, format!("icmp_source_v4: {address} cannot be the address of a router"));
        }
        if let Some(placed) = v6
            && !fast_nat::is_eligible_host(placed.value)
        {
            let address = placed.value;
            self.wrong(placed, format!("icmp_source_v6: {address} cannot be the address of a router"));
        }
    }

    pub(in super::super) fn router_pool(&mut self, placed: Option<&Placed<Ipv4Net>>) {
        let Some(placed) = placed else { return };
        let net = placed.value;
        if net.addr() != net.network() {
            let meant = net.trunc();
            self.wrong(
                placed,
                format!("icmp_router_pool: {net} has bits set behind its prefix; the network is {meant}"),
            );
        }
        if let Some(denied) = unusable(net) {
            self.wrong(
                placed,
                format!("icmp_router_pool: {net} overlaps {denied}, which no router can have an address of"),
            );
        }
    }

    /// The router's own address is nobody else's.
    pub(in super::super) fn router_address(
        &mut self,
        own: Option<&Placed<Ipv4Addr>>,
        pools: Option<&[PoolSettings]>,
        given_away: &OwnAddresses,
        forwards: &[Forward],
    ) {
        let Some(own) = own else { return };
        let address = own.value;
        if let Some(what) = given_away.holder_of(address) {
            self.wrong(own, format!("icmp_source_v4: {address} is the address of {what}"));
        }
        if forwards.iter().any(|forward| forward.address == address) {
            self.wrong(
                own,
                format!("icmp_source_v4: ports of {address} are forwarded; take another address"),
            );
        }
        if pools.is_some_and(|pools| pools.iter().all(|pool| pool.net == Ipv4Net::from(address))) {
            self.wrong(
                own,
                format!("icmp_source_v4: {address} is the only address of the pool; none is left"),
            );
        }
    }
}
