//! Lists: what fits is picked from the tables in steps, and other tasks run between them.

use std::sync::Arc;

use fast_nat::nat64::SessionView;
use fast_nat::{LeaseKind, Timestamp};
use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::answers::session_name;
use crate::clock;
use crate::config::{Forward, ForwardProtocol, NetOrAddress, StaticPair, Text};
use crate::control::{Blocks, ErrorKind, Failure, Leases, Limit, Sessions, State};
use crate::records::Protocol;
use crate::shared::Shared;
use crate::supervision::Birth;

/// How many are listed where nothing is said, and at most: 10,000 sessions are 4 MB.
const DEFAULT_LIMIT: usize = 100;
const MOST: usize = 10_000;

/// Entries that are looked at in one step: a fraction of a millisecond.
const STEP: u32 = 4096;

fn limit(wanted: Option<usize>) -> Result<usize, Failure> {
    match wanted {
        None => Ok(DEFAULT_LIMIT),
        Some(limit @ 1..=MOST) => Ok(limit),
        Some(limit) => {
            let message = format!("limit: {limit} is not between 1 and {MOST}");
            Err(Failure::new(ErrorKind::BadRequest, message))
        }
    }
}

fn within6(net: Option<Text<NetOrAddress<Ipv6Net>>>, address: Ipv6Addr) -> bool {
    net.is_none_or(|Text(NetOrAddress(net))| net.contains(&address))
}

fn within4(net: Option<Text<NetOrAddress<Ipv4Net>>>, address: Ipv4Addr) -> bool {
    net.is_none_or(|Text(NetOrAddress(net))| net.contains(&address))
}

fn is<T: PartialEq + Copy>(wanted: Option<T>, value: T) -> bool {
    wanted.is_none_or(|wanted| wanted == value)
}

fn seconds(since: Timestamp, now: Timestamp) -> u64 {
    now.since(since).as_secs()
}

fn fits(filter: &Sessions, view: &SessionView) -> bool {
    let protocol = match view.outbound.protocol {
        fast_nat::nat64::Protocol::Tcp => Protocol::Tcp,
        fast_nat::nat64::Protocol::Udp => Protocol::Udp,
        fast_nat::nat64::Protocol::Icmp => Protocol::Icmp,
    };
    within6(filter.host, view.outbound.host)
        && within4(filter.address, view.inbound.address)
        && is(filter.port, view.inbound.port)
        && within4(filter.remote, view.outbound.remote)
        && is(filter.remote_port, view.outbound.remote_port)
        && is(filter.protocol, protocol)
        && is(filter.state, State::from(view.state))
}

/// Sessions that fit, in no order.
pub(super) async fn sessions(
    shared: &Arc<Shared>,
    birth: &Birth,
    filter: &Sessions,
) -> Result<Value, Failure> {
    let limit = limit(filter.limit)?;
    let mut found = Vec::new();
    let mut from = Some(0);
    while let Some(at) = from
        && found.len() <= limit
        && birth.is_current()
    {
        let (views, next) = shared.tables.nat.sessions_from(at, STEP);
        found.extend(views.into_iter().filter(|view| fits(filter, view)));
        from = next;
        tokio::task::yield_now().await;
    }
    let truncated = found.len() > limit;
    let now = clock::now();
    let sessions = found.iter().take(limit).map(|view| {
        json!({
            "session": session_name(view.reference),
            "protocol": view.outbound.protocol.as_str(),
            "host": view.outbound.host,
            "host_port": view.outbound.port,
            "address": view.inbound.address,
            "port": view.inbound.port,
            "remote": view.outbound.remote,
            "remote_port": view.outbound.remote_port,
            "state": view.state.as_str(),
            "idle_s": seconds(view.last_seen, now),
            "packets_6to4": view.packets[0],
            "packets_4to6": view.packets[1],
            "bytes_6to4": view.bytes[0],
            "bytes_4to6": view.bytes[1],
        })
    });
    Ok(json!({ "sessions": sessions.collect::<Vec<_>>(), "truncated": truncated }))
}

/// Leases that fit, in no order.
pub(super) async fn leases(shared: &Arc<Shared>, filter: &Leases) -> Result<Value, Failure> {
    let limit = limit(filter.limit)?;
    let mut all = shared.tables.leases.leases();
    let mut found = Vec::new();
    let mut is_over = false;
    while !is_over && found.len() <= limit {
        let mut seen = 0;
        for lease in all.by_ref().take(STEP as usize) {
            seen += 1;
            if within6(filter.host, lease.host) && within4(filter.address, lease.address) {
                found.push(lease);
            }
        }
        is_over = seen < STEP;
        tokio::task::yield_now().await;
    }
    let truncated = found.len() > limit;
    let now = clock::now();
    let leases = found.iter().take(limit).map(|lease| {
        json!({
            "address": lease.address,
            "host": lease.host,
            "kind": match lease.kind {
                LeaseKind::Dynamic => "leased",
                LeaseKind::Static => "static",
            },
            "held_s": seconds(lease.granted, now),
            "idle_s": seconds(lease.last_seen, now),
        })
    });
    Ok(json!({ "leases": leases.collect::<Vec<_>>(), "truncated": truncated }))
}

/// Port blocks that fit, in no order.
pub(super) async fn blocks(shared: &Arc<Shared>, filter: &Blocks) -> Result<Value, Failure> {
    let limit = limit(filter.limit)?;
    let mut all = shared.tables.nat.blocks();
    let mut found = Vec::new();
    let mut is_over = false;
    while !is_over && found.len() <= limit {
        let mut seen = 0;
        for block in all.by_ref().take(STEP as usize) {
            seen += 1;
            let has_port =
                |port: u16| port.checked_sub(block.first_port).is_some_and(|place| place < block.size);
            if within6(filter.host, block.host)
                && within4(filter.address, block.address)
                && filter.port.is_none_or(has_port)
            {
                found.push(block);
            }
        }
        is_over = seen < STEP;
        tokio::task::yield_now().await;
    }
    let truncated = found.len() > limit;
    let now = clock::now();
    let blocks = found.iter().take(limit).map(|block| {
        json!({
            "address": block.address,
            "ports": format!("{}-{}", block.first_port, block.first_port + (block.size - 1)),
            "host": block.host,
            "held_s": seconds(block.given, now),
            "tcp": block.used[0],
            "udp": block.used[1],
            "icmp": block.used[2],
        })
    });
    Ok(json!({ "blocks": blocks.collect::<Vec<_>>(), "truncated": truncated }))
}

/// Port forwards and static pairs.
pub(super) fn mappings(shared: &Shared, wanted: Limit) -> Result<Value, Failure> {
    let limit = limit(wanted.limit)?;
    let generation = shared.generation();
    let settings = &generation.settings;
    let source = |is_added: bool| if is_added { "control socket" } else { "settings" };
    let forward = |forward: &Forward| {
        let Forward { protocol, address, port, host, host_port, prefix } = *forward;
        let added = generation.added.forwards.iter().any(|added| {
            (added.protocol.value, added.address.value, added.port.value) == (protocol, address, port)
        });
        let prefix = settings.translation_prefixes.get(usize::from(prefix)).map(ToString::to_string);
        json!({
            "protocol": match protocol {
                ForwardProtocol::Tcp => "tcp",
                ForwardProtocol::Udp => "udp",
            },
            "address": address,
            "port": port,
            "host": host,
            "host_port": host_port,
            "prefix": prefix,
            "from": source(added),
        })
    };
    let pair = |pair: &StaticPair| {
        let added = generation.added.static_pairs.iter().any(|added| added.value == *pair);
        json!({ "address": pair.address, "host": pair.host, "from": source(added) })
    };
    Ok(json!({
        "forwards": settings.forwards.iter().take(limit).map(forward).collect::<Vec<_>>(),
        "static": settings.static_pairs.iter().take(limit).map(pair).collect::<Vec<_>>(),
        "truncated": settings.forwards.len() > limit || settings.static_pairs.len() > limit,
    }))
}
