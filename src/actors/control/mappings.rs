//! Mappings that are added and removed at run time: checked by the code that checks those of the file.

use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::{Value, json};
use slog::{Logger, info};

use crate::config::{ForwardProtocol, Partial, PartialForward, Placed, Settings, StaticPair};
use crate::control::{ErrorKind, Failure, Forward, Mapping, Pair};
use crate::generation::Generation;
use crate::reload::change::{Refused, Wanted, change};
use crate::shared::Shared;

/// What is said of a mapping of the settings that was removed.
const COMES_BACK: &str =
    "it is in the configuration file, and comes back when that is reloaded (SIGHUP, or a new text)";

fn failure(refused: &Refused) -> Failure {
    let kind = match refused {
        Refused::Wrong(_) => ErrorKind::Conflict,
        Refused::NotFound(_) => ErrorKind::NotFound,
        Refused::Unavailable(_) => ErrorKind::Unavailable,
    };
    Failure::new(kind, refused.to_string())
}

pub(super) async fn add_forward(
    shared: &Arc<Shared>,
    forward: &Forward,
    log: &Logger,
) -> Result<Value, Failure> {
    let Forward { protocol, address, port, host, .. } = *forward;
    let given = forward.placed();
    let add = |before: &Generation| {
        let mut wanted = Wanted::of(before);
        wanted.added.forwards.push(given.clone());
        Ok(wanted)
    };
    let changed = change(shared, add).await.map_err(|refused| failure(&refused))?;
    info!(log, "forward added by request"; "protocol" => word(protocol), "address" => %address, "port" => port,
        "host" => %host);
    Ok(
        json!({ "added": format!("{} {address} port {port}", word(protocol)), "host": host, "lasts": changed.lasts.to_string() }),
    )
}

pub(super) async fn remove_forward(
    shared: &Arc<Shared>,
    mapping: &Mapping,
    log: &Logger,
) -> Result<Value, Failure> {
    let Mapping { protocol, address, port } = *mapping;
    let name = format!("{} {address} port {port}", word(protocol));
    let is_it = |forward: &PartialForward| {
        (forward.protocol.value, forward.address.value, forward.port.value) == (protocol, address, port)
    };
    let is_known = |settings: &Settings| {
        let mut forwards = settings.forwards.iter();
        forwards.any(|forward| (forward.protocol, forward.address, forward.port) == (protocol, address, port))
    };
    let remove = |before: &Generation| {
        if !is_known(&before.settings) {
            return Err(Refused::NotFound(format!("there is no forward {name}; list-mappings names them")));
        }
        let mut wanted = Wanted::of(before);
        wanted.added.forwards.retain(|forward| !is_it(forward));
        wanted.removed.forwards.extend(wanted.base.forwards.extract_if(.., |forward| is_it(forward)));
        Ok(wanted)
    };
    let is_of_file = |base: &Partial| base.forwards.iter().any(is_it);
    let note = is_of_file(&shared.generation().base).then_some(COMES_BACK);
    let changed = change(shared, remove).await.map_err(|refused| failure(&refused))?;
    info!(log, "forward removed by request"; "protocol" => word(protocol), "address" => %address, "port" => port);
    Ok(json!({ "removed": name, "lasts": changed.lasts.to_string(), "note": note }))
}

pub(super) async fn add_static(shared: &Arc<Shared>, pair: Pair, log: &Logger) -> Result<Value, Failure> {
    let Pair { address, host } = pair;
    let add = |before: &Generation| {
        let mut wanted = Wanted::of(before);
        wanted.added.static_pairs.push(pair.placed());
        Ok(wanted)
    };
    let changed = change(shared, add).await.map_err(|refused| failure(&refused))?;
    info!(log, "static pair added by request"; "address" => %address, "host" => %host);
    Ok(json!({ "added": address, "host": host, "lasts": changed.lasts.to_string() }))
}

pub(super) async fn remove_static(
    shared: &Arc<Shared>,
    address: Ipv4Addr,
    log: &Logger,
) -> Result<Value, Failure> {
    let is_it = |pair: &Placed<StaticPair>| pair.value.address == address;
    let remove = |before: &Generation| {
        if !before.settings.static_pairs.iter().any(|pair| pair.address == address) {
            let message = format!("{address} is no static pair; list-mappings names them");
            return Err(Refused::NotFound(message));
        }
        let mut wanted = Wanted::of(before);
        wanted.added.static_pairs.retain(|pair| !is_it(pair));
        wanted.removed.static_pairs.extend(wanted.base.static_pairs.extract_if(.., |pair| is_it(pair)));
        Ok(wanted)
    };
    let note = shared.generation().base.static_pairs.iter().any(is_it).then_some(COMES_BACK);
    let changed = change(shared, remove).await.map_err(|refused| failure(&refused))?;
    info!(log, "static pair removed by request"; "address" => %address);
    Ok(json!({ "removed": address, "lasts": changed.lasts.to_string(), "note": note }))
}

fn word(protocol: ForwardProtocol) -> &'static str {
    match protocol {
        ForwardProtocol::Tcp => "tcp",
        ForwardProtocol::Udp => "udp",
    }
}
