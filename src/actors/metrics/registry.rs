//! From figures to `OpenMetrics` text: names, help, units and labels of all metrics.
//!
//! Labels come from closed sets (families, directions, drop reasons, concerns) or from the configuration (pools): nothing
//! that a stranger sends can make a new series.

use std::fmt;

use easy_tun::Offloads;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::sample::Sample;
use crate::reload::Tally;
use crate::supervision::Exit;

/// The text of a scrape, in `OpenMetrics` 1.0.
pub(super) fn encode(sample: Sample) -> String {
    let mut registry = Registry::with_prefix("protomask");
    registry.register_collector(Box::new(sample));
    let mut text = String::with_capacity(16 * 1024);
    // Writing to a string cannot fail.
    let _ = text::encode(&mut text, &registry);
    text
}

impl Collector for Sample {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families(encoder);
        self.packets(&mut out)?;
        self.leases(&mut out)?;
        self.nat(&mut out)?;
        self.records(&mut out)?;
        self.concerns(&mut out)?;
        self.settings(&mut out)?;
        self.kernel(&mut out)?;
        self.state(&mut out)?;
        self.process(&mut out)
    }
}

impl Sample {
    fn packets(&self, out: &mut Families<'_>) -> fmt::Result {
        let received = [("ipv4", self.received_v4), ("ipv6", self.received_v6)];
        let forwarded = [("6to4", self.forwarded_6to4), ("4to6", self.forwarded_4to6)];
        out.counters("received_packets", "Packets read from the device.", None, |each| {
            received.iter().try_for_each(|(family, flow)| each(&[("family", family)], flow.packets))
        })?;
        out.counters(
            "received",
            "Bytes read from the device, as in IP headers.",
            Some(&Unit::Bytes),
            |each| received.iter().try_for_each(|(family, flow)| each(&[("family", family)], flow.bytes)),
        )?;
        out.counters("forwarded_packets", "Packets translated and written to the device.", None, |each| {
            forwarded.iter().try_for_each(|(direction, flow)| each(&[("direction", direction)], flow.packets))
        })?;
        out.counters(
            "forwarded",
            "Bytes translated and written to the device, as in IP headers.",
            Some(&Unit::Bytes),
            |each| {
                forwarded
                    .iter()
                    .try_for_each(|(direction, flow)| each(&[("direction", direction)], flow.bytes))
            },
        )?;
        out.counters(
            "dropped_packets",
            "Packets not forwarded, by the one reason for each.",
            None,
            |each| self.drops.iter().try_for_each(|(reason, packets)| each(&[("reason", reason)], *packets)),
        )?;
        out.counter("icmp_errors_sent", "ICMP errors of the router's own.", self.icmp_errors)?;
        out.counter(
            "icmp_errors_limited",
            "ICMP errors that the rate limit held back.",
            self.icmp_errors_limited,
        )?;
        out.counter(
            "own_packets_lost",
            "ICMP errors and probes of the router's own that the device did not take.",
            self.own_lost,
        )?;
        out.counter(
            "kernel_chatter_packets",
            "Packets of the kernel's own on the device (router solicitations, MLD reports): no drops.",
            self.kernel_chatter,
        )?;
        out.counter("held_packets", "First packets of new hosts that waited for a lease.", self.held)?;
        out.counter("device_read_errors", "Reads from the device that failed.", self.read_errors)?;
        out.counter(
            "processor_contentions",
            "Times a worker had waited too long for a processor, and became a thread like any other for a while.",
            self.processor_contentions,
        )?;
        #[cfg(feature = "count-allocations")]
        {
            let help = "What the threads of the packet workers have allocated, in this test build.";
            out.counters("worker_allocations", help, None, |each| {
                let mut workers = self.worker_allocations.iter().enumerate();
                workers.try_for_each(|(index, count)| each(&[("worker", &index.to_string())], *count))
            })?;
        }
        out.gauge("workers", "Packet workers, one per queue of the device.", self.workers)
    }

    fn pools_of(&self, unit: &'static str) -> impl Iterator<Item = &super::sample::PoolSample> {
        self.pools.iter().filter(move |pool| pool.unit == unit)
    }

    fn nat(&self, out: &mut Families<'_>) -> fmt::Result {
        out.gauges("sessions", "Sessions of hosts that share addresses.", |each| {
            let protocols = fast_nat::nat64::Protocol::ALL;
            protocols.into_iter().zip(self.nat.sessions).try_for_each(|(protocol, sessions)| {
                each(&[("protocol", protocol.as_str())], sessions.into())
            })
        })?;
        out.gauge("sessions_capacity", "The most sessions that can be held.", self.nat_capacity.into())?;
        out.counter("sessions_begun", "Sessions begun.", self.sessions_begun)?;
        out.gauge(
            "bindings",
            "Bindings of hosts that share addresses, port forwards included.",
            self.nat.bindings.into(),
        )?;
        out.gauge("nat_hosts", "Hosts with a port block or a binding.", self.nat.hosts.into())?;
        out.gauge("nat_subscribers", "Subscribers with such a host.", self.nat.subscribers.into())?;
        out.gauge("port_blocks", "Port blocks under lease.", self.nat.blocks.into())?;
        out.counter("port_blocks_returned", "Port blocks that came back.", self.blocks_returned)?;
        out.gauge("stored_syns", "IPv4 SYNs that wait for their host.", self.nat.stored_syns.into())?;
        out.counter(
            "session_probes",
            "Established connections whose host was asked whether they are still there.",
            self.probes,
        )?;
        out.counter(
            "session_outputs_lost",
            "Probes and late errors that found no room to wait in.",
            self.nat_outputs_lost,
        )?;
        out.counter(
            "session_table_contentions",
            "Times a lock of the session table was not free at the first try.",
            self.nat_contended,
        )?;
        out.gauge("fragment_datagrams", "Datagrams whose fragments wait.", self.fragments.datagrams as u64)?;
        out.gauge("fragment_packets", "Fragments that wait.", self.fragments.packets as u64)?;
        out.gauge("fragment_memory_bytes", "Memory of the fragment buffer.", self.fragments.memory as u64)?;
        out.counter("fragments_parked", "Fragments that had to wait for others.", self.fragments_parked)?;
        out.counter("datagrams_reassembled", "Datagrams that were put together.", self.reassembled)?;
        out.counter(
            "echo_replies",
            "Echo requests to the router itself that were replied to.",
            self.echo_replies,
        )
    }

    fn records(&self, out: &mut Families<'_>) -> fmt::Result {
        let Some(records) = &self.records else { return Ok(()) };
        out.counter("records_written", "Allocation records written.", records.written)?;
        out.gauge("records_waiting", "Allocation records that wait to be written.", records.waiting)?;
        out.gauge("records_capacity", "The most allocation records that can wait.", records.capacity)?;
        out.counter(
            "records_lost",
            "Allocation records for which there was no room, with when_full = go-on.",
            records.lost,
        )?;
        out.counter(
            "records_refused",
            "Times an allocation record found no room, with when_full = wait.",
            records.refused,
        )?;
        out.counter(
            "records_allocations_waited",
            "Requests for a lease that had to wait until they could be recorded.",
            self.waited_for_records,
        )?;
        out.counter(
            "records_session_events_lost",
            "Sessions that began or ended unrecorded, where sessions are to be recorded.",
            self.session_events_lost,
        )?;
        out.counter(
            "records_sink_errors",
            "Failures to write allocation records; they were tried again.",
            records.sink_errors,
        )?;
        out.gauge(
            "records_failing",
            "Whether allocation records cannot be written just now.",
            u64::from(records.failing),
        )
    }

    fn leases(&self, out: &mut Families<'_>) -> fmt::Result {
        out.gauges("pool_addresses", "Addresses of a pool by what they are doing.", |each| {
            self.pools_of("addresses").try_for_each(|pool| {
                let states = [("used", pool.used), ("free", pool.free), ("resting", pool.resting)];
                states.iter().try_for_each(|(state, addresses)| {
                    each(&[("pool", &pool.name), ("state", state)], *addresses)
                })
            })
        })?;
        out.gauges(
            "pool_addresses_high_water",
            "The most addresses of a pool that were under lease at a time.",
            |each| {
                self.pools_of("addresses").try_for_each(|pool| each(&[("pool", &pool.name)], pool.high_water))
            },
        )?;
        out.gauges("pool_blocks", "Port blocks of a shared pool by what they are doing.", |each| {
            self.pools_of("blocks").try_for_each(|pool| {
                let states = [("used", pool.used), ("free", pool.free)];
                states
                    .iter()
                    .try_for_each(|(state, blocks)| each(&[("pool", &pool.name), ("state", state)], *blocks))
            })
        })?;
        out.gauges(
            "pool_blocks_high_water",
            "The most port blocks of a shared pool that were under lease at a time.",
            |each| {
                self.pools_of("blocks").try_for_each(|pool| each(&[("pool", &pool.name)], pool.high_water))
            },
        )?;
        out.gauge("leases", "Leases held, static pairs included.", self.leases)?;
        out.gauge("leases_capacity", "The most leases that can be held.", self.lease_capacity)?;
        out.counter("leases_granted", "Leases granted.", self.leases_granted)?;
        out.counter("leases_refused", "Requests for a lease that were refused.", self.leases_refused)?;
        out.counter("leases_expired", "Leases ended because their host was silent.", self.leases_expired)?;
        out.counter("leases_dropped", "Leases ended by request.", self.leases_dropped)?;
        out.counter(
            "lease_requests",
            "Leases asked for by workers, repetitions included.",
            self.lease_requests,
        )?;
        out.counter(
            "lease_answers_lost",
            "Answers to workers that found the inbox full; the worker asks again.",
            self.inbox_overflows,
        )?;
        out.counter(
            "lease_table_contentions",
            "Times a lock of the lease table was not free at the first try.",
            self.contended,
        )
    }

    fn concerns(&self, out: &mut Families<'_>) -> fmt::Result {
        out.gauges(
            "actor_up",
            "Whether the actor of a concern runs (1) or is being restarted (0).",
            |each| self.concerns.iter().try_for_each(|one| each(&[("concern", one.name)], u64::from(one.up))),
        )?;
        out.gauges("actor_generation", "The number of the actor's current incarnation, from 1.", |each| {
            self.concerns.iter().try_for_each(|one| each(&[("concern", one.name)], one.generation))
        })?;
        out.counters("actor_exits", "Ends of a concern's actor, by kind.", None, |each| {
            self.concerns.iter().try_for_each(|one| {
                Exit::KINDS
                    .iter()
                    .zip(one.exits)
                    .try_for_each(|(kind, exits)| each(&[("concern", one.name), ("kind", kind)], exits))
            })
        })
    }

    fn settings(&self, out: &mut Families<'_>) -> fmt::Result {
        let Tally { applied, unchanged, refused, .. } = &self.reloads;
        out.counters("reloads", "Reloads of the configuration file, by what came of them.", None, |each| {
            let results = [("applied", applied), ("unchanged", unchanged), ("refused", refused)];
            results.iter().try_for_each(|(result, reloads)| each(&[("result", result)], **reloads))
        })?;
        out.gauges("reload_pending", "Settings of the file that wait for a restart (1).", |each| {
            self.pending.iter().try_for_each(|setting| each(&[("setting", setting)], 1))
        })?;
        out.gauge(
            "settings_generation",
            "The number of the settings that hold: one more with each change, from 1.",
            self.generation,
        )
    }

    fn kernel(&self, out: &mut Families<'_>) -> fmt::Result {
        out.counter(
            "kernel_repairs",
            "Times something of ours in the kernel was gone and was put back.",
            self.kernel_repairs,
        )?;
        out.gauge(
            "kernel_problems",
            "What is not as it should be in the kernel, and could not be repaired.",
            self.kernel_problems,
        )?;
        out.gauges("kernel_forwarding", "Whether the kernel forwards packets of this family.", |each| {
            each(&[("family", "ipv4")], u64::from(self.kernel_forwards_v4))?;
            each(&[("family", "ipv6")], u64::from(self.kernel_forwards_v6))
        })?;
        out.gauge("device_up", "Whether the device is up.", u64::from(self.link_up))?;
        out.gauges("device_offload", "Whether the kernel leaves this to the router.", |each| {
            for (name, offload) in Offloads::all().iter_names() {
                let on = self.offloads.contains(offload);
                each(&[("offload", &name.to_ascii_lowercase())], u64::from(on))?;
            }
            Ok(())
        })?;
        let Some(device) = &self.device else { return Ok(()) };
        // For a TUN device the kernel's "transmit" is what it hands to the router.
        let to_router = "to_router";
        let from_router = "from_router";
        out.counters(
            "device_packets",
            "Packets that the kernel counted on the device; a super-packet counts once.",
            None,
            |each| {
                each(&[("direction", to_router)], device.tx_packets)?;
                each(&[("direction", from_router)], device.rx_packets)
            },
        )?;
        out.counters("device", "Bytes that the kernel counted on the device.", Some(&Unit::Bytes), |each| {
            each(&[("direction", to_router)], device.tx_bytes)?;
            each(&[("direction", from_router)], device.rx_bytes)
        })?;
        out.counters(
            "device_dropped_packets",
            "Packets that the kernel dropped on the device: to_router means that they were not read in time.",
            None,
            |each| {
                each(&[("direction", to_router)], device.tx_dropped)?;
                each(&[("direction", from_router)], device.rx_dropped)
            },
        )?;
        out.counters("device_errors", "Errors that the kernel counted on the device.", None, |each| {
            each(&[("direction", to_router)], device.tx_errors)?;
            each(&[("direction", from_router)], device.rx_errors)
        })
    }

    fn state(&self, out: &mut Families<'_>) -> fmt::Result {
        out.gauge(
            "state_kept",
            "Whether sessions, port blocks and leases are kept for the next start.",
            u64::from(self.state.as_ref().is_some_and(|state| state.kept)),
        )?;
        let Some(state) = &self.state else { return Ok(()) };
        out.gauge(
            "state_failing",
            "Whether the state cannot be written just now.",
            u64::from(state.failing),
        )?;
        out.counter(
            "state_write_errors",
            "Failures to write the state; it was tried again.",
            state.write_errors,
        )?;
        if let Some(age) = state.snapshot_age {
            out.seconds(
                "state_snapshot_age",
                "Time since the last snapshot of the state.",
                age.as_secs_f64(),
            )?;
        }
        out.gauge("state_snapshot_bytes", "Size of the last snapshot of the state.", state.snapshot_bytes)?;
        out.gauge("state_journal_bytes", "Size of the journal behind it.", state.journal_bytes)?;
        out.gauge(
            "state_set_aside",
            "Whether this start found state that could not be trusted, and set it aside.",
            u64::from(state.set_aside),
        )?;
        out.gauges("state_restored", "Entries of an earlier run that this start put back.", |each| {
            state.restored.iter().try_for_each(|(entry, count)| each(&[("entry", entry)], *count))
        })?;
        out.gauges(
            "state_dropped",
            "Entries of an earlier run that no longer fit, by the reason.",
            |each| {
                state.dropped.iter().try_for_each(|(entry, reason, count)| {
                    each(&[("entry", entry.as_str()), ("reason", reason)], *count)
                })
            },
        )?;
        out.seconds(
            "state_restore_duration",
            "How long it took this start to read the state and put it back.",
            state.restore_took.as_secs_f64(),
        )
    }

    fn process(&self, out: &mut Families<'_>) -> fmt::Result {
        out.gauge("ready", "Whether /readyz says ready.", u64::from(self.ready))?;
        out.counter(
            "log_records_dropped",
            "Log records lost because the log could not keep up.",
            self.log_dropped,
        )?;
        out.counter(
            "scrape_errors",
            "Scrapes that went without the kernel's counters of the device, since metrics was last restarted.",
            self.scrape_errors,
        )?;
        out.seconds("uptime", "Time since the start, time asleep included.", self.uptime.as_secs_f64())?;
        out.0
            .encode_descriptor("build", "The version that runs.", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }
}

/// Takes the series of one metric: labels and value.
type Each<'e> = dyn FnMut(&[(&str, &str)], u64) -> fmt::Result + 'e;

/// Writes whole metrics, each with its help.
struct Families<'e>(DescriptorEncoder<'e>);

impl Families<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, u64, u64>(&value, None)
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: impl FnOnce(&mut Each<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        series(&mut |labels, value| {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&value, None)
        })
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        series: impl FnOnce(&mut Each<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        series(&mut |labels, value| metric.encode_family(&labels)?.encode_gauge(&value))
    }

    fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?.encode_gauge(&value)
    }
}

#[cfg(test)]
mod tests;
