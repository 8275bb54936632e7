//! What a start says in the log.

use std::net::TcpListener;

use easy_tun::{Device, Offloads};
use rtnl::Snapshot;
use slog::{Logger, info, o, warn};

use crate::actors::routes::describe_allowed;
use crate::config::Settings;
use crate::plan::Plan;
use crate::state::Meanwhile;

/// Says who had the device while there was no router, and what that has cost.
pub(super) fn meanwhile(
    device: &Device,
    (kept, replaces): (usize, Option<u32>),
    meanwhile: Option<Meanwhile>,
    log: &Logger,
) {
    let Some(Meanwhile { dropped, within }) = meanwhile else { return };
    let within =
        within.map_or_else(|| "its whole life".to_owned(), |within| format!("{:.1} s", within.as_secs_f64()));
    let log = log.new(o!("dropped_by_device" => dropped, "counted_within" => within, "interface" => device.name().to_owned()));
    match (kept, replaces) {
        (0, None) => {
            warn!(
                log,
                "nobody had the device's queues open while there was no router: what came was dropped"
            );
        }
        (_, Some(pid)) => {
            info!(log, "the device's queues were handed over by the router before: what came meanwhile is read now";
            "queues" => kept, "process" => pid);
        }
        (_, None) => {
            info!(log, "the device's queues were kept by the service manager: what came meanwhile is read now";
            "queues" => kept);
        }
    }
}

/// Says at start what this router is going to do, and for whom.
pub(super) fn plan(
    settings: &Settings,
    plan: &Plan,
    snapshot: &Snapshot,
    metrics: Option<&TcpListener>,
    log: &Logger,
) {
    for pool in &plan.pools {
        info!(log, "pool"; "prefix" => %pool.net, "sharing" => pool.sharing.as_str(), "masquerade" => pool.masquerade, "automatic" => plan.automatic);
    }
    let denied = crate::config::built_in_denied().into_iter().chain(settings.deny_to.iter().copied());
    let denied = denied.map(|net| net.to_string()).collect::<Vec<_>>().join(", ");
    let allowed = plan.allowed(settings, snapshot);
    info!(log, "access"; "allowed_from" => describe_allowed(allowed.as_deref()),
        "denied_to" => format!("{denied}, this host's own addresses"));
    for sentence in &settings.below_rfc {
        warn!(log, "a timer is shorter than its RFC says"; "timer" => sentence);
    }
    let prefixes: Vec<_> = settings.translation_prefixes.iter().map(ToString::to_string).collect();
    let metrics = metrics.and_then(|listener| listener.local_addr().ok());
    info!(log, "set up";
        "version" => env!("CARGO_PKG_VERSION"),
        "interface" => &settings.interface,
        "translation_prefix" => prefixes.join(", "),
        "icmp_source_v4" => %plan.router_address,
        "queues" => settings.num_queues,
        "mtu" => settings.mtu,
        "metrics" => metrics.map_or_else(|| "off".to_owned(), |address| format!("http://{address}/metrics")));
}

/// Says which offloads are on.
pub(super) fn offloads(settings: &Settings, granted: Offloads, log: &Logger) {
    let refused = settings.offloads - granted;
    let joins = super::joins(settings, granted);
    info!(log, "offloads"; "on" => %granted, "joined_tcp" => joins.tcp, "joined_udp" => joins.udp);
    if !refused.is_empty() {
        info!(log, "this kernel does not know all offloads that the router can use; what it knows is on";
            "refused" => %refused);
    }
}
