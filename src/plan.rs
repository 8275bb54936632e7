//! From settings and what the kernel holds to what is to be: pools, routes, masquerade, and the packet path's rules.
//!
//! Pure: all questions are asked of a [`Snapshot`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rfc6052::NonGlobal;
use rtnl::{Desired, DesiredLink, Snapshot};

use crate::config::{
    AllowFrom, DEFAULT_MAX_LEASES_PER_SUBNET, PoolSettings, Pools, Settings, built_in_denied,
};
use crate::datapath::{RouterPool, Rules};
use crate::kernel::LINK_ALIAS;
use crate::kernel::masquerade::Masquerade;
use crate::kernel::preflight::{NoDefaultPool, choose_default_pool, default_allow_from};

/// The source of ICMPv4 errors where no pool has an address to spare: the dummy address of RFC 7600 §6.
const DUMMY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// What the router leases addresses from, settled once at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The pools.
    pub pools: Vec<PoolSettings>,
    /// Whether the pools were chosen by the router itself.
    pub automatic: bool,
    /// The router's own IPv4 address: the source of its ICMPv4 errors, never leased.
    pub router_address: Ipv4Addr,
}

impl Plan {
    /// Settles the pools.
    pub fn settle(settings: &Settings, snapshot: &Snapshot) -> Result<Self, NoDefaultPool> {
        let (pools, automatic) = match &settings.pools {
            Pools::Explicit(pools) => (pools.clone(), false),
            Pools::Automatic => {
                let net = choose_default_pool(snapshot, &settings.interface)?;
                (vec![PoolSettings { masquerade: true, ..PoolSettings::new(net) }], true)
            }
        };
        let is_static =
            |address: &Ipv4Addr| settings.static_pairs.iter().any(|pair| pair.address == *address);
        let spare = pools
            .iter()
            .find(|pool| pool.net.prefix_len() < 31)
            .and_then(|pool| pool.net.hosts().find(|address| !is_static(address)));
        let router_address = settings.icmp_source_v4.or(spare).unwrap_or(DUMMY_V4);
        Ok(Self { pools, automatic, router_address })
    }

    /// The networks of the pools.
    pub fn nets(&self) -> Vec<Ipv4Net> {
        self.pools.iter().map(|pool| pool.net).collect()
    }

    /// Every network that must be this router's alone: the pools, and static addresses outside them.
    pub fn claimed(&self, settings: &Settings) -> Vec<Ipv4Net> {
        let outside = settings.static_pairs.iter().map(|pair| pair.address);
        let outside = outside.filter(|address| !self.pools.iter().any(|pool| pool.net.contains(address)));
        self.nets().into_iter().chain(outside.map(Ipv4Net::from)).collect()
    }

    /// Leases that the hosts of one /64 may hold. A pool that the router chose for itself is for whoever is connected,
    /// and often that is one /64.
    pub fn max_leases_per_subnet(&self, settings: &Settings) -> u32 {
        let default = if self.automatic { u32::MAX } else { DEFAULT_MAX_LEASES_PER_SUBNET };
        settings.max_leases_per_subnet.unwrap_or(default)
    }

    /// The most leases that can exist: every address of every pool, and every static pair.
    pub fn capacity(&self, settings: &Settings) -> usize {
        let addresses: usize = self.pools.iter().map(|pool| 1_usize << (32 - pool.net.prefix_len())).sum();
        addresses + settings.static_pairs.len()
    }

    /// Link and routes as they are to be. No address on the device: the kernel needs none to forward.
    pub fn desired(&self, settings: &Settings) -> Desired {
        let mut routes: Vec<IpNet> = vec![IpNet::V6(settings.translation_prefix().into())];
        routes.extend(self.claimed(settings).into_iter().map(IpNet::V4));
        Desired {
            link: DesiredLink {
                name: settings.interface.clone(),
                up: true,
                mtu: settings.mtu.into(),
                alias: LINK_ALIAS.to_owned(),
            },
            addresses: Vec::new(),
            routes,
        }
    }

    /// The masquerade table, if any pool wants it.
    pub fn masquerade(&self, settings: &Settings) -> Option<Masquerade> {
        let pools: Vec<_> = self.pools.iter().filter(|pool| pool.masquerade).map(|pool| pool.net).collect();
        (!pools.is_empty()).then(|| Masquerade { interface: settings.interface.clone(), pools })
    }

    /// Who may use the router; `None`: everyone.
    pub fn allowed(&self, settings: &Settings, snapshot: &Snapshot) -> Option<Vec<Ipv6Net>> {
        match &settings.allow_from {
            AllowFrom::Only(nets) => Some(nets.clone()),
            AllowFrom::Automatic if self.automatic => Some(default_allow_from(snapshot, &settings.interface)),
            AllowFrom::Automatic => None,
        }
    }

    /// The rules of the packet path, given the host's addresses of the moment.
    pub fn rules(&self, settings: &Settings, snapshot: &Snapshot) -> Rules {
        let local = rtnl::local_addresses(snapshot);
        let own_v4 = local.iter().filter_map(|address| match address {
            IpAddr::V4(address) => Some(Ipv4Net::from(*address)),
            IpAddr::V6(_) => None,
        });
        let denied = built_in_denied().into_iter().chain(settings.deny_to.iter().copied()).chain(own_v4);
        let own_v6 = local.iter().find_map(|address| match address {
            IpAddr::V6(address) if is_reachable(*address) => Some(*address),
            _ => None,
        });
        Rules {
            prefix: settings.translation_prefix(),
            non_global: if settings.allow_non_global { NonGlobal::Allow } else { NonGlobal::Refuse },
            allow_from: self.allowed(settings, snapshot).map(|nets| nets.into_iter().collect()),
            deny_to: denied.collect(),
            icmp_source_v4: self.router_address,
            icmp_source_v6: settings
                .icmp_source_v6
                .or(own_v6)
                .unwrap_or_else(|| settings.translation_prefix().embed(self.router_address)),
            router_pool: settings.icmp_router_pool.map(RouterPool::new),
            params: settings.translation,
        }
    }
}

/// Whether a host elsewhere can make sense of this source address.
fn is_reachable(address: Ipv6Addr) -> bool {
    fast_nat::is_eligible_host(address)
}
