//! What the caller wants, and how that differs from what is there.

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;

use crate::snapshot::{Link, LinkKind, Route, Snapshot};
use crate::{ROUTE_METRIC, ROUTE_PROTOCOL, protocol_name};

/// How the interface shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredLink {
    /// Name of the interface. It must exist already: making the device is not this crate's job.
    pub name: String,
    /// Whether it shall be up. Of a link that shall be down only its attributes are compared, since the kernel keeps no
    /// routes on it.
    pub up: bool,
    /// Maximum transmission unit in bytes. Below 1280 the kernel takes IPv6 away from the interface.
    pub mtu: u32,
    /// The alias that marks the interface as the caller's.
    pub alias: String,
}

/// The whole of what shall hold for one interface.
///
/// The interface belongs to the caller: addresses on it that are not wanted are removed. Routes through it are removed
/// only where they carry [`ROUTE_PROTOCOL`] and [`ROUTE_METRIC`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The interface.
    pub link: DesiredLink,
    /// Addresses of the interface, with prefix length. They do not bring a route of their own.
    pub addresses: Vec<IpNet>,
    /// Destinations to be routed to the interface; host bits are ignored.
    pub routes: Vec<IpNet>,
}

/// One step from what is there to what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// Mark the interface.
    SetAlias {
        /// Index of the interface.
        link: u32,
        /// Its new alias.
        alias: String,
    },
    /// Have the kernel make no link-local address (`IN6_ADDR_GEN_MODE_NONE`).
    DisableLinkLocal {
        /// Index of the interface.
        link: u32,
    },
    /// Set the maximum transmission unit.
    SetMtu {
        /// Index of the interface.
        link: u32,
        /// In bytes.
        mtu: u32,
    },
    /// Bring the interface up or take it down.
    SetUp {
        /// Index of the interface.
        link: u32,
        /// Up or down.
        up: bool,
    },
    /// Take an address off the interface.
    RemoveAddress {
        /// Index of the interface.
        link: u32,
        /// The address.
        address: IpNet,
    },
    /// Put an address on the interface.
    AddAddress {
        /// Index of the interface.
        link: u32,
        /// The address.
        address: IpNet,
    },
    /// Remove one of our routes.
    RemoveRoute {
        /// Index of the interface.
        link: u32,
        /// Its destination.
        destination: IpNet,
    },
    /// Add one of our routes. Fails where another route with that destination and metric exists; never replaces.
    AddRoute {
        /// Index of the interface.
        link: u32,
        /// Its destination.
        destination: IpNet,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetAlias { link, alias } => write!(f, "set the alias of interface {link} to {alias:?}"),
            Self::DisableLinkLocal { link } => write!(f, "disable link-local addresses on interface {link}"),
            Self::SetMtu { link, mtu } => write!(f, "set the MTU of interface {link} to {mtu}"),
            Self::SetUp { link, up: true } => write!(f, "bring interface {link} up"),
            Self::SetUp { link, up: false } => write!(f, "take interface {link} down"),
            Self::RemoveAddress { link, address } => {
                write!(f, "remove address {address} from interface {link}")
            }
            Self::AddAddress { link, address } => write!(f, "add address {address} to interface {link}"),
            Self::RemoveRoute { link, destination } => {
                write!(f, "remove the route to {destination} through interface {link}")
            }
            Self::AddRoute { link, destination } => {
                write!(f, "add a route to {destination} through interface {link}")
            }
        }
    }
}

/// Whose a route is, as a person would look it up with `ip route`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RouteOwner {
    /// Name of the protocol that made it, or its number.
    pub protocol: String,
    /// Its protocol number.
    pub protocol_number: u8,
    /// Name of the interface it leaves by; `None` for a route that drops.
    pub device: Option<String>,
    /// Its metric.
    pub metric: u32,
}

impl RouteOwner {
    /// The owner of `route`, with the interface's name from `snapshot`.
    pub fn of(route: &Route, snapshot: &Snapshot) -> Self {
        Self {
            protocol: protocol_name(route.protocol),
            protocol_number: route.protocol,
            device: route.link().map(|index| snapshot.link_name(index)),
            metric: route.metric,
        }
    }
}

impl fmt::Display for RouteOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.device {
            Some(device) => write!(f, "dev {device} ")?,
            None => f.write_str("no device ")?,
        }
        write!(f, "proto {} metric {}", self.protocol, self.metric)
    }
}

/// Something that stands in the way and is not ours to change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Conflict {
    /// The interface does not exist.
    LinkMissing {
        /// The wanted name.
        name: String,
    },
    /// The interface exists but is no TUN device, or carries another alias.
    LinkForeign {
        /// Its name.
        name: String,
        /// What it is.
        kind: LinkKind,
        /// Its alias.
        alias: Option<String>,
    },
    /// A wanted destination is routed by somebody else.
    RouteTaken {
        /// The wanted destination.
        destination: IpNet,
        /// Whose route that is.
        owner: RouteOwner,
    },
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkMissing { name } => write!(f, "the interface {name} does not exist"),
            Self::LinkForeign { name, kind, alias } => {
                write!(f, "the interface {name} is not ours ({kind}, ")?;
                match alias {
                    Some(alias) => write!(f, "alias {alias:?})"),
                    None => f.write_str("no alias)"),
                }
            }
            Self::RouteTaken { destination, owner } => {
                write!(f, "{destination} is already routed elsewhere ({owner}); that route is left alone")
            }
        }
    }
}

/// The changes that are ours to make, and what stands in the way of the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// To be made in this order.
    pub changes: Vec<Change>,
    /// Not to be changed by us; to be reported.
    pub conflicts: Vec<Conflict>,
}

impl Plan {
    /// Whether all is as desired.
    pub fn is_settled(&self) -> bool {
        self.changes.is_empty() && self.conflicts.is_empty()
    }
}

/// Compares what is desired with what is there.
///
/// Pure and idempotent: once the changes have been made, the difference holds no change. A destination for which a
/// route exists that is not ours is a [`Conflict`], whatever its metric: with a lower one ours would be idle, with a
/// higher one ours would silently take its traffic over. Routes that the kernel itself made for an address of the same
/// interface lead to the same place and are none.
pub fn diff(desired: &Desired, snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    let want = &desired.link;
    let Some(link) = snapshot.link_by_name(&want.name) else {
        plan.conflicts.push(Conflict::LinkMissing { name: want.name.clone() });
        return plan;
    };
    // A device that was made a moment ago has no alias yet.
    if link.kind != LinkKind::Tun || link.alias.as_ref().is_some_and(|alias| *alias != want.alias) {
        plan.conflicts.push(Conflict::LinkForeign {
            name: link.name.clone(),
            kind: link.kind.clone(),
            alias: link.alias.clone(),
        });
        return plan;
    }
    link_changes(want, link, &mut plan);
    if want.up {
        address_changes(desired, link.index, snapshot, &mut plan);
        if !link.up {
            plan.changes.push(Change::SetUp { link: link.index, up: true });
        }
        route_changes(desired, link.index, snapshot, &mut plan);
    } else if link.up {
        plan.changes.push(Change::SetUp { link: link.index, up: false });
    }
    plan
}

fn link_changes(want: &DesiredLink, link: &Link, plan: &mut Plan) {
    if link.alias.as_ref() != Some(&want.alias) {
        plan.changes.push(Change::SetAlias { link: link.index, alias: want.alias.clone() });
    }
    if link.link_local == Some(true) {
        plan.changes.push(Change::DisableLinkLocal { link: link.index });
    }
    if link.mtu != want.mtu {
        plan.changes.push(Change::SetMtu { link: link.index, mtu: want.mtu });
    }
}

fn address_changes(desired: &Desired, link: u32, snapshot: &Snapshot, plan: &mut Plan) {
    let wanted: BTreeSet<IpNet> = desired.addresses.iter().copied().collect();
    let actual: BTreeSet<IpNet> =
        snapshot.addresses.iter().filter(|address| address.link == link).map(|address| address.net).collect();
    for address in actual.difference(&wanted) {
        plan.changes.push(Change::RemoveAddress { link, address: *address });
    }
    for address in wanted.difference(&actual) {
        plan.changes.push(Change::AddAddress { link, address: *address });
    }
}

fn route_changes(desired: &Desired, link: u32, snapshot: &Snapshot, plan: &mut Plan) {
    let wanted: BTreeSet<IpNet> = desired.routes.iter().map(IpNet::trunc).collect();
    let mut actual = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for route in &snapshot.routes {
        if route.is_ours(link) {
            actual.insert(route.destination);
        } else if wanted.contains(&route.destination) && !made_by_the_kernel_for(route, link) {
            taken.insert(route.destination);
            plan.conflicts.push(Conflict::RouteTaken {
                destination: route.destination,
                owner: RouteOwner::of(route, snapshot),
            });
        }
    }
    for destination in actual.difference(&wanted) {
        plan.changes.push(Change::RemoveRoute { link, destination: *destination });
    }
    for destination in wanted.difference(&actual) {
        if !taken.contains(destination) {
            plan.changes.push(Change::AddRoute { link, destination: *destination });
        }
    }
}

fn made_by_the_kernel_for(route: &Route, link: u32) -> bool {
    // With our metric it would still be in the way: the kernel holds one route for a destination and a metric.
    route.protocol == crate::protocol::KERNEL && route.link() == Some(link) && route.metric != ROUTE_METRIC
}

/// The marks of our routes, for messages that tell a person how to find them.
pub fn route_marks() -> String {
    format!("proto {ROUTE_PROTOCOL} metric {ROUTE_METRIC}")
}

#[cfg(test)]
mod tests;
