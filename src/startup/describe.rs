//! What a start says in the log.

use std::net::TcpListener;

use easy_tun::{Device, Offloads};
use fast_nat::Lanes;
use rtnl::Snapshot;
use slog::{Logger, info, o, warn};

use crate::actors::routes::describe_allowed;
use crate::config::Settings;
use crate::error::chain;
use crate::kernel::lanes::NotSteered;
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

/// Says who shares packets out to workers.
pub(super) fn steering(queues: usize, given: &Result<Lanes, NotSteered>, log: &Logger) {
    match given {
        Ok(lanes) => {
            info!(log, "both ways of a flow come to one worker, by a program in the kernel";
                "lanes" => lanes.count(), "queues" => queues);
        }
        Err(NotSteered::OneWorker) => {}
        Err(why) => {
            info!(log, "the kernel shares packets out to workers by what it remembers of flows, which is dearer with many of them";
                "because" => chain(why));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use slog::Drain as _;

    use super::*;
    use crate::config::Partial;

    /// What was logged.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Kept {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn log() -> (Logger, Kept) {
        let kept = Kept::default();
        let drain = slog_term::FullFormat::new(slog_term::PlainSyncDecorator::new(kept.clone())).build();
        (Logger::root(drain.fuse(), o!()), kept)
    }

    fn said(granted: Offloads) -> String {
        let (log, kept) = log();
        let settings = Partial::default().configure(vec![]).unwrap().settings;
        offloads(&settings, granted, &log);
        kept.text()
    }

    #[test]
    fn who_shares_packets_out_is_said_and_why_it_is_not_the_program() {
        let said = |given| {
            let (log, kept) = log();
            steering(4, &given, &log);
            kept.text()
        };
        let by_program = said(Ok(Lanes::new(8).unwrap()));
        assert!(
            by_program.contains("by a program in the kernel") && by_program.contains("lanes: 8"),
            "{by_program}"
        );
        assert!(by_program.contains("queues: 4"), "{by_program}");
        assert_eq!(said(Err(NotSteered::OneWorker)), "", "one worker has all");
        let by_kernel = said(Err(NotSteered::Off));
        assert!(by_kernel.contains("by what it remembers of flows"), "{by_kernel}");
        assert!(by_kernel.contains("because: steering = false"), "{by_kernel}");
    }

    #[test]
    fn offloads_that_the_kernel_does_not_know_are_named_and_what_is_not_joined_for_it() {
        let all = said(Offloads::all());
        assert!(all.contains("joined_udp: true") && all.contains("joined_tcp: true"), "{all}");
        assert!(!all.contains("refused"), "{all}");
        let fewer = said(Offloads::all() - Offloads::USO - Offloads::TSO_ECN);
        assert!(fewer.contains("joined_udp: false") && fewer.contains("joined_tcp: true"), "{fewer}");
        assert!(fewer.contains("on: checksum, tso4, tso6"), "{fewer}");
        assert!(fewer.contains("refused: tso_ecn, uso"), "{fewer}");
        let none = said(Offloads::empty());
        assert!(none.contains("on: none") && none.contains("joined_tcp: false"), "{none}");
        assert!(none.contains("refused: checksum, tso4, tso6, tso_ecn, uso"), "{none}");
    }
}
