//! Checks of what individual hosts have: addresses of their own, and forwarded ports.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use fast_nat::{Eam, EamTable};
use ipnet::{Ipv4Net, Ipv6Net};
use rfc6052::Prefix;

use super::super::partial::{PartialEam, PartialForward};
use super::super::{Forward, Place, Placed, PoolSettings, Sharing, StaticPair};
use super::{Check, unusable};

/// Who has an address of its own, by a static pair or an explicit address mapping.
pub(in super::super) struct OwnAddresses {
    pairs: EamTable,
    eams: EamTable,
}

impl OwnAddresses {
    /// Of pairs and mappings that have been checked. What was found wrong may be left out.
    pub(in super::super) fn new(pairs: &[StaticPair], eams: &[Eam]) -> Self {
        let pairs = pairs.iter().map(|pair| Eam::pair(pair.address, pair.host)).collect();
        Self {
            pairs: EamTable::new(pairs).unwrap_or_default(),
            eams: EamTable::new(eams.to_vec()).unwrap_or_default(),
        }
    }

    /// What an IPv4 address belongs to.
    pub(super) fn holder_of(&self, address: Ipv4Addr) -> Option<&'static str> {
        let pair = self.pairs.to_v6(address).map(|_| "a static pair");
        pair.or_else(|| self.eams.to_v6(address).map(|_| "an explicit address mapping"))
    }

    /// The IPv4 address that a host has for itself.
    fn address_of(&self, host: Ipv6Addr) -> Option<Ipv4Addr> {
        self.pairs.to_v4(host).or_else(|| self.eams.to_v4(host))
    }
}

impl Check<'_> {
    pub(in super::super) fn static_pairs(&mut self, pairs: &[Placed<StaticPair>], prefixes: &[Prefix]) {
        let (mut hosts, mut addresses) = (HashMap::new(), HashMap::new());
        for placed in pairs {
            let StaticPair { host, address } = placed.value;
            self.host(&placed.place, host, "static", prefixes);
            if unusable(address.into()).is_some() {
                self.wrong(placed, format!("static: {address} cannot be a host's address"));
            }
            if let Some(there) = addresses.insert(address, &placed.place) {
                self.wrong(placed, format!("static: {address} is given away already ({there})"));
            }
            if let Some(there) = hosts.insert(host, &placed.place) {
                self.wrong(placed, format!("static: {host} has an address already ({there})"));
            }
        }
    }

    /// The mappings that are right. Static pairs are mappings too, of a /32 and a /128: none may be said twice.
    pub(in super::super) fn eams(
        &mut self,
        eams: Vec<PartialEam>,
        pairs: &[Placed<StaticPair>],
        prefixes: &[Prefix],
        pools: Option<&[PoolSettings]>,
    ) -> Vec<Eam> {
        let by_v4 = |placed: &Placed<StaticPair>| (Ipv4Net::from(placed.value.address), placed.place.clone());
        let by_v6 = |placed: &Placed<StaticPair>| (Ipv6Net::from(placed.value.host), placed.place.clone());
        let mut seen_v4: HashMap<_, _> = pairs.iter().map(by_v4).collect();
        let mut seen_v6: HashMap<_, _> = pairs.iter().map(by_v6).collect();
        let mut checked = Vec::new();
        for PartialEam { ipv4, ipv6 } in eams {
            let eam = match Eam::new(ipv4.value, ipv6.value) {
                Ok(eam) => eam,
                Err(error @ fast_nat::InvalidEam::HostBits4 { .. }) => {
                    self.wrong(&ipv4, format!("eam: {error}"));
                    continue;
                }
                Err(error) => {
                    self.wrong(&ipv6, format!("eam: {error}"));
                    continue;
                }
            };
            let mut is_right = true;
            let mut wrong = |place: &Place, message: String| {
                is_right = false;
                self.problems.push(super::Problem { place: place.clone(), message });
            };
            let (v4, v6) = (eam.ipv4(), eam.ipv6());
            if let Some(denied) = unusable(v4) {
                wrong(
                    &ipv4.place,
                    format!("eam: {v4} overlaps {denied}, which no host can have an address of"),
                );
            }
            if let Some(pool) = pools.unwrap_or_default().iter().find(|pool| v4.contains(&pool.net)) {
                let pool = pool.net;
                wrong(&ipv4.place, format!("eam: {v4} takes all of the pool {pool}; none of it is left"));
            }
            if let Some(special) = special_v6().into_iter().find(|special| overlap_v6(*special, v6)) {
                wrong(
                    &ipv6.place,
                    format!("eam: {v6} overlaps {special}, which no host can have an address of"),
                );
            }
            if let Some(prefix) = prefixes.iter().find(|prefix| overlap_v6((**prefix).into(), v6)) {
                wrong(&ipv6.place, format!("eam: {v6} overlaps the translation prefix {prefix}"));
            }
            if let Some(there) = seen_v4.insert(v4, ipv4.place.clone()) {
                wrong(&ipv4.place, format!("eam: {v4} is mapped already ({there})"));
            }
            if let Some(there) = seen_v6.insert(v6, ipv6.place.clone()) {
                wrong(&ipv6.place, format!("eam: {v6} is mapped already ({there})"));
            }
            if is_right {
                checked.push(eam);
            }
        }
        checked
    }

    pub(in super::super) fn forwards(
        &mut self,
        forwards: Vec<PartialForward>,
        prefixes: &[Prefix],
        pools: Option<&[PoolSettings]>,
        own: &OwnAddresses,
    ) -> Vec<Forward> {
        let (mut outside, mut inside) = (HashMap::new(), HashMap::new());
        let mut checked = Vec::new();
        for given in forwards {
            let Forward { protocol, address, port, host, host_port, prefix } = self.forward(&given, prefixes);
            let protocol_name = format!("{protocol:?}").to_lowercase();
            let pool = pools.unwrap_or_default().iter().find(|pool| pool.net.contains(&address));
            match pool.map(|pool| pool.sharing) {
                Some(Sharing::Ports) => {}
                Some(Sharing::Exclusive) => self.wrong(
                    &given.address,
                    format!("forward: the pool of {address} gives whole addresses to hosts; use [[static]]"),
                ),
                None => self.wrong(
                    &given.address,
                    format!("forward: {address} is in none of the pools with sharing = \"ports\""),
                ),
            }
            if let Some(what) = own.holder_of(address) {
                self.wrong(&given.address, format!("forward: {address} is the address of {what}"));
            }
            if let Some(has) = own.address_of(host) {
                self.wrong(
                    &given.host,
                    format!("forward: {host} has {has} for itself, where all of its ports are reached"),
                );
            }
            if let Some(there) = outside.insert((protocol, address, port), given.port.place.clone()) {
                self.wrong(
                    &given.port,
                    format!(
                        "forward: {protocol_name} port {port} of {address} is forwarded already ({there})"
                    ),
                );
            }
            if let Some(there) = inside.insert((protocol, host, host_port, prefix), given.host.place.clone())
            {
                self.wrong(
                    &given.host,
                    format!(
                        "forward: {protocol_name} port {host_port} of {host} is at another port already ({there}); \
                         what it sends can have one source only"
                    ),
                );
            }
            checked.push(Forward { protocol, address, port, host, host_port, prefix });
        }
        checked
    }

    fn forward(&mut self, given: &PartialForward, prefixes: &[Prefix]) -> Forward {
        for port in [Some(&given.port), given.host_port.as_ref()].into_iter().flatten() {
            if port.value == 0 {
                self.wrong(port, "forward: 0 is no port; a port is a number from 1 to 65535".to_owned());
            }
        }
        self.host(&given.host.place, given.host.value, "forward", prefixes);
        let prefix = given.prefix.as_ref().map_or(Some(0), |placed| {
            let place = prefixes.iter().position(|prefix| *prefix == placed.value);
            if place.is_none() {
                let prefix = placed.value;
                self.wrong(placed, format!("forward: {prefix} is none of the translation prefixes"));
            }
            place
        });
        Forward {
            protocol: given.protocol.value,
            address: given.address.value,
            port: given.port.value,
            host: given.host.value,
            host_port: given.host_port.as_ref().map_or(given.port.value, |placed| placed.value),
            prefix: prefix.unwrap_or(0) as u8,
        }
    }

    fn host(&mut self, place: &Place, host: Ipv6Addr, what: &str, prefixes: &[Prefix]) {
        if !fast_nat::is_eligible_host(host) || prefixes.iter().any(|prefix| prefix.contains(host)) {
            let message = format!("{what}: {host} cannot be the address of a host behind this router");
            self.problems.push(super::Problem { place: place.clone(), message });
        }
    }

    /// A network of hosts, without bits behind its prefix.
    pub(super) fn network_v6(&mut self, placed: &Placed<Ipv6Net>, what: &str) {
        let net = placed.value;
        if net.addr() != net.network() {
            let meant = net.trunc();
            self.wrong(
                placed,
                format!("{what}: {net} has bits set behind its prefix; the network is {meant}"),
            );
        }
    }
}

pub(super) fn overlap_v6(a: Ipv6Net, b: Ipv6Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The networks of addresses that are no host's: see [`fast_nat::is_eligible_host`].
fn special_v6() -> [Ipv6Net; 4] {
    [
        Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 127), // unspecified and loopback (RFC 4291 §2.5.2, §2.5.3)
        Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96), // IPv4-mapped (§2.5.5.2)
        Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10), // link-local (§2.5.6)
        Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8), // multicast (§2.7)
    ]
}
