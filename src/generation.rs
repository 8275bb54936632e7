//! What the router is told: one immutable generation at a time, behind an atomic pointer.
//!
//! A generation is replaced as a whole ([`Shared::change`]), by a reload of the file or by a mapping that is added or
//! removed at run time. What makes one is checked before; what puts it into force cannot fail half-way: the mappings are placed
//! first, and taken back if one of them cannot be. Actors look at the number of the generation before they act, so one that
//! was down or late follows without being told.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fast_nat::nat64::{BlockLease, StaticBinding};
use fast_nat::{EamTable, InsertError, Lanes, Lease, LeaseKind};
use ipnet::Ipv4Net;

use crate::clock;
use crate::config::{Configuration, Mappings, Partial, PoolSettings, Settings, Sharing, StaticPair};
use crate::datapath::{Rules, Tables};
use crate::faults::{self, Point};
use crate::plan::{Plan, engine_quota};
use crate::records::{Record, What};
use crate::shared::{PoolGauges, Shared};

/// One generation.
#[derive(Debug, Clone)]
pub struct Generation {
    /// Its number, from 1.
    pub number: u64,
    /// The settings that hold, mappings that were added at run time among them.
    pub settings: Settings,
    /// The pools and prefixes.
    pub plan: Plan,
    /// What the settings came of, without those mappings.
    pub base: Partial,
    /// Mappings that were added at run time. [`crate::state`] keeps them.
    pub added: Mappings,
    /// Mappings that flags and file give and that were removed at run time, until the file is read anew.
    pub removed: Mappings,
    /// Settings of the file that wait for a restart, by their keys.
    pub pending: Vec<&'static str>,
    /// How the tables were made.
    pub tables: TableFacts,
    /// One entry per pool, drained ones among them, in their order in the plan.
    pub gauges: Vec<Arc<PoolGauges>>,
}

/// What the tables were made for at the start: they do not grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableFacts {
    /// There is room for hosts that share addresses.
    pub shares: bool,
    /// Low ports are kept among themselves.
    pub low_ports: bool,
    /// By how many addresses and ports are chosen.
    pub lanes: Lanes,
}

impl Generation {
    /// That of the start.
    pub fn first(configuration: Configuration, plan: Plan) -> Self {
        let gauges = gauges(&plan, &[]);
        let Configuration { partial, settings, .. } = configuration;
        let shared = || plan.pools.iter().filter(|pool| pool.sharing == Sharing::Ports);
        let tables = TableFacts {
            shares: shared().next().is_some(),
            low_ports: shared().any(|pool| pool.ports.first() < 1024),
            lanes: Lanes::ONE,
        };
        Self {
            tables,
            number: 1,
            settings,
            plan,
            base: partial,
            added: Mappings::default(),
            removed: Mappings::default(),
            pending: Vec::new(),
            gauges,
        }
    }

    /// The one after this, with other settings and the plan for them.
    #[must_use]
    pub fn next(&self, settings: Settings, plan: Plan) -> Self {
        let gauges = gauges(&plan, &self.gauges);
        Self { number: self.number + 1, settings, plan, gauges, ..self.clone() }
    }
}

fn gauges(plan: &Plan, before: &[Arc<PoolGauges>]) -> Vec<Arc<PoolGauges>> {
    let gauge = |net: Ipv4Net, sharing| {
        let unit = unit_of(sharing);
        let known = before.iter().find(|gauges| gauges.net == net && gauges.unit == unit);
        known.map_or_else(|| Arc::new(PoolGauges::new(net, unit)), Arc::clone)
    };
    plan.held().map(|pool| gauge(pool.net, pool.sharing)).collect()
}

/// What a pool leases.
fn unit_of(sharing: Sharing) -> &'static str {
    match sharing {
        Sharing::Ports => "blocks",
        Sharing::Exclusive => "addresses",
    }
}

/// The mappings that are in the tables. It outlives whoever placed them.
#[derive(Debug, Default)]
pub struct Placed {
    pairs: HashSet<StaticPair>,
    bindings: HashSet<StaticBinding>,
}

/// Why a generation was not put into force. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotChanged {
    /// Another one came first: make it anew of that one.
    #[error("the settings were changed meanwhile; try again")]
    Outdated,
    /// A mapping cannot be placed.
    #[error("{0}")]
    Mapping(String),
}

impl Shared {
    /// The generation of the moment.
    pub fn generation(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    /// Puts a generation into force, the rules of the packet path with it: all of it, or nothing. It must be the
    /// [next](Generation::next) of the one that holds.
    pub fn change(&self, next: Generation, rules: Rules) -> Result<(), NotChanged> {
        let mut placed = self.placed.lock();
        let before = self.generation();
        if next.number != before.number + 1 {
            return Err(NotChanged::Outdated);
        }
        let tables = &self.tables;
        let in_the_way = newly_mapped(&before.settings, &next.settings)
            .and_then(|newly| tables.nat.blocks().find(|block| newly(block.address)));
        if let Some(BlockLease { host, address, .. }) = in_the_way {
            return Err(NotChanged::Mapping(format!(
                "{address} cannot be one host's own: it is shared, and {host} has ports of it; choose an address that is not \
                 shared, or take its pool out first"
            )));
        }
        // Room for the static pairs of both: they are placed before the old ones are known to go for good.
        let capacity = |generation: &Generation| generation.plan.capacity(&generation.settings);
        tables.leases.set_bounds(capacity(&before) + capacity(&next), before.settings.address_rest);
        // Told in any case: also when the new settings are refused, or somebody panics, those leases have ended.
        let mut ended = InTheWay { shared: self, leases: Vec::new() };
        if let Err(why) = place_and_say(tables, &mut placed, &next, &mut ended.leases) {
            // What was there a moment ago has room: nobody can have taken it, but for a host that a dynamic port was given to, whose
            // packets then go on.
            let _ = place_and_say(tables, &mut placed, &before, &mut ended.leases);
            tables.leases.set_bounds(capacity(&before), before.settings.address_rest);
            return Err(NotChanged::Mapping(why));
        }
        // A panic before this leaves the generation that holds, and the next incarnation of `sessions` places its mappings; one behind
        // this leaves the next generation.
        faults::at(Point::GenerationPlaced);
        let coming = Coming { shared: self, next: Arc::new(next), rules: Arc::new(rules) };
        end_leases_of_others(tables, &before.settings, &coming.next.settings, &mut ended.leases);
        self.keep_to(&coming.next);
        faults::at(Point::GenerationHalf);
        drop(coming);
        self.retire_drained();
        drop(placed);
        Ok(())
    }

    /// Bounds, timers and quotas of this generation hold.
    fn keep_to(&self, generation: &Generation) {
        let (tables, settings) = (&self.tables, &generation.settings);
        tables.leases.set_bounds(generation.plan.capacity(settings), settings.address_rest);
        tables.nat.set_timers(&settings.timers);
        // Settings let no quota pass that the engine refuses.
        let _ = tables.nat.set_quota(&engine_quota(&settings.quota));
        tables.fragments.set_timeout(settings.fragments.timeout);
    }

    /// Nothing more begins in the port blocks of pools that are being drained.
    fn retire_drained(&self) {
        let Plan { pools, draining, .. } = &self.generation().plan;
        let holds =
            |pools: &[PoolSettings], address: &Ipv4Addr| pools.iter().any(|pool| pool.net.contains(address));
        if draining.iter().any(|pool| pool.sharing == Sharing::Ports) {
            for block in self.tables.nat.blocks() {
                if holds(draining, &block.address) && !holds(pools, &block.address) {
                    self.tables.nat.retire(block.reference);
                }
            }
        }
    }

    /// Stores rules, unless they were made of another generation than the one that holds. Says whether they were stored.
    pub fn follow_host(&self, generation: &Generation, rules: Rules) -> bool {
        let _placed = self.placed.lock();
        let is_current = self.number.load(Ordering::Acquire) == generation.number;
        if is_current {
            self.rules.store(Arc::new(rules));
        }
        is_current
    }

    /// Brings about what belongs to the generation that holds. Done by each incarnation of `sessions`: the one before may have failed in
    /// the midst of a change.
    pub fn place_mappings(&self) -> Result<(), String> {
        let mut placed = self.placed.lock();
        let generation = self.generation();
        let mut ended = InTheWay { shared: self, leases: Vec::new() };
        place_and_say(&self.tables, &mut placed, &generation, &mut ended.leases)?;
        self.keep_to(&generation);
        self.retire_drained();
        Ok(())
    }
}

/// A generation that comes into force when this is dropped: all of it, whatever happens before.
struct Coming<'s> {
    shared: &'s Shared,
    next: Arc<Generation>,
    rules: Arc<Rules>,
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.shared.number.store(self.next.number, Ordering::Release);
        self.shared.generation.store(Arc::clone(&self.next));
        self.shared.rules.store(Arc::clone(&self.rules));
    }
}

/// Leases that were in the way of a mapping, and have ended. They are recorded when this is dropped.
struct InTheWay<'s> {
    shared: &'s Shared,
    leases: Vec<Lease>,
}

impl Drop for InTheWay<'_> {
    fn drop(&mut self) {
        let now = clock::now();
        for Lease { host, address, granted, .. } in self.leases.drain(..) {
            let what = What::LeaseEnded { given: granted };
            self.shared.records.tell(Record { at: now, host, address, what, reason: "mapped" });
        }
    }
}

/// Which addresses become hosts' own by a change of the settings; `None`: none can.
fn newly_mapped(before: &Settings, next: &Settings) -> Option<impl Fn(Ipv4Addr) -> bool + use<>> {
    if (&before.eams, &before.static_pairs) == (&next.eams, &next.static_pairs) {
        return None;
    }
    // Settings let no table pass that cannot be made.
    let table = |settings: &Settings| EamTable::new(settings.mappings()).unwrap_or_default();
    let (before, next) = (table(before), table(next));
    Some(move |address| next.to_v6(address).is_some() && next.to_v6(address) != before.to_v6(address))
}

/// Ends the leases of addresses that are other hosts' by an explicit mapping from now on.
fn end_leases_of_others(tables: &Tables, before: &Settings, next: &Settings, ended: &mut Vec<Lease>) {
    let Some(newly) = newly_mapped(before, next) else { return };
    let leases = tables.leases.leases();
    let others = leases.filter(|lease| lease.kind == LeaseKind::Dynamic && newly(lease.address));
    ended.extend(others.filter_map(|lease| tables.leases.remove(lease.address, clock::now())));
}

/// Takes the mappings away that are not in this generation, and places those that are, whatever was done before. The answer is the leases
/// that were in the way, and have ended.
pub(crate) fn place(
    tables: &Tables,
    placed: &mut Placed,
    generation: &Generation,
) -> Result<Vec<Lease>, String> {
    let mut ended = Vec::new();
    place_and_say(tables, placed, generation, &mut ended)?;
    Ok(ended)
}

/// The same, and `ended` is right whatever comes of it.
fn place_and_say(
    tables: &Tables,
    placed: &mut Placed,
    generation: &Generation,
    ended: &mut Vec<Lease>,
) -> Result<(), String> {
    let now = clock::now();
    let Tables { leases, nat, .. } = tables;
    let pairs: HashSet<_> = generation.settings.static_pairs.iter().copied().collect();
    let wanted = generation.plan.bindings(&generation.settings);
    let bindings: HashSet<_> = wanted.iter().copied().collect();
    placed.pairs.retain(|pair| {
        let stays = pairs.contains(pair);
        let lease = leases.by_address(pair.address);
        if !stays && lease.is_some_and(|lease| lease.kind == LeaseKind::Static && lease.host == pair.host) {
            leases.remove(pair.address, now);
        }
        stays
    });
    placed.bindings.retain(|binding| {
        let stays = bindings.contains(binding);
        if !stays {
            nat.remove_static(binding, now);
            faults::at(Point::Unplaced);
        }
        stays
    });
    for pair in &generation.settings.static_pairs {
        let StaticPair { host, address } = *pair;
        // Two leases may be in the way: that of the host, and that of the address.
        let mut placing = leases.insert(host, address, LeaseKind::Static, now);
        for _ in 0..2 {
            let Err(InsertError::HostHasLease(lease) | InsertError::AddressTaken(lease)) = placing else {
                break;
            };
            if lease.kind == LeaseKind::Static {
                break;
            }
            ended.extend(leases.remove(lease.address, now));
            placing = leases.insert(host, address, LeaseKind::Static, now);
        }
        // The host's own lease of this very address becomes one for good.
        if let Ok(lease) = placing
            && lease.kind == LeaseKind::Dynamic
        {
            ended.extend(leases.remove(address, now));
            placing = leases.insert(host, address, LeaseKind::Static, now);
        }
        placing.map_err(|error| format!("the static pair {address} = {host} cannot be placed: {error}"))?;
        placed.pairs.insert(*pair);
    }
    let new: Vec<_> = wanted.iter().filter(|binding| !placed.bindings.contains(*binding)).copied().collect();
    nat.reserve(&new);
    for binding in wanted {
        nat.add_static(&binding, now).map_err(|error| {
            let StaticBinding { protocol, address, port, host, host_port, .. } = binding;
            format!("the forward {protocol} {address} port {port} to {host} port {host_port} cannot be placed: {error}")
        })?;
        placed.bindings.insert(binding);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
