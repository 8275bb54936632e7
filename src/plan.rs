//! From settings and what the kernel holds to what is to be: pools, routes, masquerade, and the packet path's rules.
//!
//! Pure: all questions are asked of a [`Snapshot`].

mod mss;
mod pools;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use fast_nat::EamTable;
use fast_nat::nat64::{self, NatConfig, Protocol, Quota, StaticBinding};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rfc6052::{NonGlobal, Prefix};
use rtnl::{Desired, DesiredLink, Snapshot};

use crate::config::{
    AllowFrom, DEFAULT_MAX_LEASES_PER_SUBNET, Filtering, Forward, ForwardProtocol, PoolSettings, Pools,
    QuotaSettings, Settings, Sharing, built_in_denied,
};
use crate::datapath::{Eams, PoolRule, RouterPool, Rules};
use crate::kernel::LINK_ALIAS;
use crate::kernel::masquerade::Masquerade;
use crate::kernel::preflight::{NoDefaultPool, choose_default_pool, default_allow_from};

/// The source of ICMPv4 errors where no pool has an address to spare: the dummy address of RFC 7600 §6.
const DUMMY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// Session events that may wait for their record. At the pace of [`crate::actors::sessions`] that is 1.3 million a second.
const SESSION_EVENTS: usize = 65_536;

/// What the router leases addresses from, settled once at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The pools. Their translation prefix is told by its number in [`prefixes`](Self::prefixes).
    pub pools: Vec<PoolSettings>,
    /// Pools of before, of which hosts still have something. Nothing more is given of them.
    pub draining: Vec<PoolSettings>,
    /// The translation prefixes by their numbers, which are those of the sessions under them: a number keeps its prefix for as
    /// long as the process runs.
    pub prefixes: Vec<NumberedPrefix>,
    /// Whether the pools were chosen by the router itself.
    pub automatic: bool,
    /// The router's own IPv4 address: the source of its ICMPv4 errors. It is never leased for itself, but may be one that is shared
    /// by ports.
    pub router_address: Ipv4Addr,
}

/// A translation prefix, in use or not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumberedPrefix {
    /// The prefix.
    pub prefix: Prefix,
    /// Whether it is one of the settings.
    pub is_used: bool,
}

/// Why new settings cannot follow those that hold.
#[derive(Debug, thiserror::Error)]
pub enum CannotFollow {
    /// The router was to choose a pool, and none is free.
    #[error(transparent)]
    NoPool(#[from] NoDefaultPool),
    /// Each prefix has a number of eight bits for good.
    #[error(
        "there have been 256 translation prefixes since the start; restart the router to use another one"
    )]
    Prefixes,
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
        Ok(Self::of(settings, pools, automatic))
    }

    /// The plan of the settings that come after those of this one. Pools that are gone are drained, what is kept keeps its number, and
    /// a pool that the router chose stays where it is.
    pub fn follow(&self, settings: &Settings, snapshot: &Snapshot) -> Result<Self, CannotFollow> {
        let mut next = match &settings.pools {
            Pools::Automatic if self.automatic => Self::of(settings, self.pools.clone(), true),
            _ => Self::settle(settings, snapshot)?,
        };
        let is_left = |pool: &&PoolSettings| !next.pools.iter().any(|kept| kept.net == pool.net);
        next.draining = self.pools.iter().chain(&self.draining).filter(is_left).cloned().collect();
        let mut prefixes: Vec<_> =
            self.prefixes.iter().map(|before| NumberedPrefix { is_used: false, ..*before }).collect();
        for prefix in settings.translation_prefixes.iter().copied() {
            if let Some(known) = prefixes.iter_mut().find(|known| known.prefix == prefix) {
                known.is_used = true;
            } else if prefixes.len() > usize::from(u8::MAX) {
                return Err(CannotFollow::Prefixes);
            } else {
                prefixes.push(NumberedPrefix { prefix, is_used: true });
            }
        }
        next.prefixes = prefixes;
        if !(self.automatic && next.automatic) {
            for place in 0..next.pools.len() {
                next.pools[place].prefix = next.number_of(settings, next.pools[place].prefix);
            }
        }
        Ok(next)
    }

    fn of(settings: &Settings, pools: Vec<PoolSettings>, automatic: bool) -> Self {
        let is_static = |address: &Ipv4Addr| {
            settings.static_pairs.iter().any(|pair| pair.address == *address)
                || settings.eams.iter().any(|eam| eam.ipv4().contains(address))
        };
        // A shared address is the router's too, so a pool of a single one is enough.
        let spare = pools
            .iter()
            .find(|pool| pool.sharing == Sharing::Ports || pool.net.prefix_len() < 31)
            .and_then(|pool| pool.net.hosts().find(|address| !is_static(address)));
        let router_address = settings.icmp_source_v4.or(spare).unwrap_or(DUMMY_V4);
        let prefixes = settings.translation_prefixes.iter();
        let prefixes = prefixes.map(|prefix| NumberedPrefix { prefix: *prefix, is_used: true }).collect();
        Self { pools, draining: Vec::new(), prefixes, automatic, router_address }
    }

    /// Pools that are in use, and behind them those that are being drained.
    pub fn held(&self) -> impl Iterator<Item = &PoolSettings> {
        self.pools.iter().chain(&self.draining)
    }

    /// The number of the translation prefix in this place of the settings.
    pub fn number_of(&self, settings: &Settings, place: u8) -> u8 {
        let prefix = settings.translation_prefixes.get(usize::from(place));
        let number = self.prefixes.iter().position(|numbered| Some(&numbered.prefix) == prefix);
        number.map_or(0, |number| number as u8)
    }

    /// The port forwards, as the engine knows them.
    pub fn bindings(&self, settings: &Settings) -> Vec<StaticBinding> {
        let binding = |forward: &Forward| StaticBinding {
            prefix: self.number_of(settings, forward.prefix),
            protocol: match forward.protocol {
                ForwardProtocol::Tcp => Protocol::Tcp,
                ForwardProtocol::Udp => Protocol::Udp,
            },
            address: forward.address,
            port: forward.port,
            host: forward.host,
            host_port: forward.host_port,
        };
        settings.forwards.iter().map(binding).collect()
    }

    /// The networks of the pools, drained ones among them.
    pub fn nets(&self) -> Vec<Ipv4Net> {
        self.held().map(|pool| pool.net).collect()
    }

    /// Every network that must be this router's alone: the pools, and static and mapped addresses outside them.
    pub fn claimed(&self, settings: &Settings) -> Vec<Ipv4Net> {
        let pairs = settings.static_pairs.iter().map(|pair| Ipv4Net::from(pair.address));
        let outside = pairs.chain(settings.eams.iter().map(fast_nat::Eam::ipv4));
        let mut claimed = self.nets();
        for net in outside {
            if !claimed.iter().any(|claimed| claimed.contains(&net)) {
                claimed.push(net);
            }
        }
        claimed
    }

    /// What the NAT64 engine is told. Without anything to share it is as small as it can be.
    pub fn nat(&self, settings: &Settings) -> NatConfig {
        let shared = || self.pools.iter().filter(|pool| pool.sharing == Sharing::Ports);
        let sessions = &settings.sessions;
        let is_used = shared().next().is_some();
        let (max_sessions, max_hosts) = if is_used { (sessions.max, sessions.max_hosts) } else { (1, 1) };
        let quota = &settings.quota;
        NatConfig {
            max_sessions,
            max_bindings: max_sessions.max(settings.forwards.len() as u32),
            max_hosts: max_hosts.max(settings.forwards.len() as u32),
            // Pools may come later, and entries are made as they are needed.
            max_blocks: max_hosts.saturating_mul(4).min(nat64::MOST_ENTRIES),
            max_stored_syns: sessions.max_stored_syns,
            filtering: match sessions.filtering {
                Filtering::EndpointIndependent => nat64::Filtering::EndpointIndependent,
                Filtering::AddressDependent => nat64::Filtering::AddressDependent,
            },
            timers: settings.timers,
            quota: engine_quota(quota),
            subscriber_prefix_len: quota.subscriber_prefix_len,
            lease_prefix_len: settings.lease_prefix_len(),
            max_resting_ports: sessions.max_resting_ports,
            track_changes: settings.state_dir.is_some(),
            events: if settings.records.as_ref().is_some_and(|records| records.sessions) {
                SESSION_EVENTS
            } else {
                0
            },
            low_ports: shared().any(|pool| pool.ports.first() < 1024),
            ..NatConfig::default()
        }
    }

    /// Leases that the hosts of one /64 may hold. A pool that the router chose for itself is for whoever is connected,
    /// and often that is one /64.
    pub fn max_leases_per_subnet(&self, settings: &Settings) -> u32 {
        let default = if self.automatic { u32::MAX } else { DEFAULT_MAX_LEASES_PER_SUBNET };
        settings.max_leases_per_subnet.unwrap_or(default)
    }

    /// The most leases that can exist: every address of every pool that is not shared, and every static pair.
    pub fn capacity(&self, settings: &Settings) -> usize {
        let exclusive = self.held().filter(|pool| pool.sharing == Sharing::Exclusive);
        let addresses: usize = exclusive.map(|pool| 1_usize << (32 - pool.net.prefix_len())).sum();
        addresses + settings.static_pairs.len()
    }

    /// Link and routes as they are to be. No address on the device: the kernel needs none to forward.
    pub fn desired(&self, settings: &Settings) -> Desired {
        let mut routes: Vec<IpNet> =
            settings.translation_prefixes.iter().map(|prefix| IpNet::V6((*prefix).into())).collect();
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
        let pools: Vec<_> = self.held().filter(|pool| pool.masquerade).map(|pool| pool.net).collect();
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
        let exclusive = self.held().any(|pool| pool.sharing == Sharing::Exclusive);
        let rule = |pool: &PoolSettings, draining| PoolRule {
            net: pool.net,
            sharing: pool.sharing,
            draining,
            prefix: pool.prefix,
            hosts: (!pool.hosts.is_empty()).then(|| pool.hosts.iter().copied().collect()),
        };
        let pools = self.pools.iter().map(|pool| rule(pool, false));
        let retired = self.prefixes.iter().zip(0..).filter(|(numbered, _)| !numbered.is_used);
        Rules {
            prefixes: self.prefixes.iter().map(|numbered| numbered.prefix).collect(),
            retired: retired.map(|(_, number)| number).collect(),
            pools: pools.chain(self.draining.iter().map(|pool| rule(pool, true))).collect(),
            has_leases: exclusive || !settings.static_pairs.is_empty(),
            // Settings let no table pass that cannot be made.
            eam: Eams(Arc::new(EamTable::new(settings.eams.clone()).unwrap_or_default())),
            answer_filtered: settings.sessions.answer_filtered,
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
            mss_clamp: mss::limits(settings.mss_clamp, snapshot, &settings.interface),
        }
    }
}

/// What the engine lets a subscriber have.
pub fn engine_quota(quota: &QuotaSettings) -> Quota {
    Quota {
        sessions: quota.most_sessions(),
        new_sessions_per_second: quota.new_sessions_per_second,
        burst: quota.new_sessions_burst,
    }
}

/// Whether a host elsewhere can make sense of this source address.
fn is_reachable(address: Ipv6Addr) -> bool {
    fast_nat::is_eligible_host(address)
}
