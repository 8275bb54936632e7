//! What each command comes to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fast_nat::nat64::SessionRef;
use serde_json::{Value, json};
use slog::{Logger, info};

use super::{lists, mappings};
use crate::actors::sessions::{DropLease, DropSession};
use crate::control::{Command, ErrorKind, Failure};
use crate::shared::Shared;
use crate::supervision::{Birth, Concern, Unavailable};

/// How long `sessions` may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Does it.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    birth: &Birth,
    command: Command,
    log: &Logger,
) -> Result<Value, Failure> {
    match command {
        Command::Status {} => Ok(status(shared)),
        Command::ListActors {} => Ok(actors(shared)),
        Command::ListSessions(filter) => lists::sessions(shared, birth, &filter).await,
        Command::ListLeases(filter) => lists::leases(shared, &filter).await,
        Command::ListBlocks(filter) => lists::blocks(shared, &filter).await,
        Command::ListMappings(limit) => lists::mappings(shared, limit),
        Command::DropSession(drop) => {
            let session = reference(&drop.session)?;
            let dropped = shared.directory.sessions.ask(DropSession { session }, PATIENCE).await;
            if !dropped.map_err(unavailable)? {
                let message = format!("there is no session {}: it is over already", drop.session);
                return Err(Failure::new(ErrorKind::NotFound, message));
            }
            info!(log, "session dropped by request"; "session" => &drop.session);
            Ok(json!({ "dropped": drop.session }))
        }
        Command::DropLease(drop) => {
            let address = drop.address;
            if shared.generation().settings.static_pairs.iter().any(|pair| pair.address == address) {
                let message = format!("{address} is a static pair; remove-static takes it away");
                return Err(Failure::new(ErrorKind::Conflict, message));
            }
            let dropped = shared.directory.sessions.ask(DropLease { address }, PATIENCE).await;
            let lease = dropped.map_err(unavailable)?.ok_or_else(|| {
                Failure::new(ErrorKind::NotFound, format!("nobody has a lease of {address}"))
            })?;
            Ok(json!({ "dropped": address, "host": lease.host }))
        }
        Command::AddForward(forward) => mappings::add_forward(shared, &forward, log).await,
        Command::RemoveForward(mapping) => mappings::remove_forward(shared, &mapping, log).await,
        Command::AddStatic(pair) => mappings::add_static(shared, pair, log).await,
        // The connection does that.
        Command::HandOver { .. } => Err(Failure::new(ErrorKind::Unavailable, "try again")),
        Command::RemoveStatic(pair) => mappings::remove_static(shared, pair.address, log).await,
    }
}

fn unavailable(why: Unavailable) -> Failure {
    Failure::new(ErrorKind::Unavailable, format!("sessions: {why}; try again"))
}

/// The name of a session, as lists have it.
pub(super) fn session_name(session: SessionRef) -> String {
    let bits = session.to_bits();
    format!("{}-{}", bits >> 32, bits & u64::from(u32::MAX))
}

fn reference(name: &str) -> Result<SessionRef, Failure> {
    let parts = name.split_once('-').and_then(|(id, version)| {
        Some((u64::from(id.parse::<u32>().ok()?), u64::from(version.parse::<u32>().ok()?)))
    });
    let (id, version) = parts.ok_or_else(|| {
        let message = format!("{name:?} is no session; list-sessions names them, like 17-3");
        Failure::new(ErrorKind::BadRequest, message)
    })?;
    Ok(SessionRef::from_bits(id << 32 | version))
}

fn status(shared: &Shared) -> Value {
    let generation = shared.generation();
    let problems = shared.problems();
    let usage = shared.tables.nat.usage();
    let pools = generation.gauges.iter().map(|gauges| {
        let draining = generation.plan.draining.iter().any(|pool| pool.net == gauges.net);
        json!({
            "pool": gauges.net,
            "unit": gauges.unit,
            "used": gauges.used.load(Ordering::Relaxed),
            "free": if draining { 0 } else { gauges.free.load(Ordering::Relaxed) },
            "resting": gauges.resting.load(Ordering::Relaxed),
            "draining": draining,
        })
    });
    let prefixes = generation.settings.translation_prefixes.iter().map(ToString::to_string);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "interface": shared.interface,
        "pid": std::process::id(),
        "ready": problems.is_empty(),
        "problems": problems,
        "settings_generation": generation.number,
        "pending_restart": generation.pending,
        "translation_prefixes": prefixes.collect::<Vec<_>>(),
        "leases": shared.tables.leases.len(),
        "sessions": usage.sessions.iter().sum::<u32>(),
        "bindings": usage.bindings,
        "hosts": usage.hosts,
        "port_blocks": usage.blocks,
        "pools": pools.collect::<Vec<_>>(),
    })
}

fn actors(shared: &Shared) -> Value {
    let actors = Concern::ALL.map(|concern| {
        let status = shared.board.of(concern);
        json!({
            "actor": concern.as_str(),
            "state": status.state.as_str(),
            "generation": status.generation,
            "exits": status.exits.iter().sum::<u64>(),
            "last_failure": status.last_failure,
        })
    });
    json!({ "actors": actors })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_found_by_the_name_that_it_is_listed_with() {
        let session = SessionRef::from_bits(17 << 32 | 3);
        assert_eq!(session_name(session), "17-3");
        assert_eq!(reference("17-3"), Ok(session));
        for wrong in ["", "17", "17-", "-3", "17-3-1", "4294967296-1", "x-1"] {
            assert_eq!(reference(wrong).unwrap_err().kind, ErrorKind::BadRequest, "{wrong}");
        }
    }
}
