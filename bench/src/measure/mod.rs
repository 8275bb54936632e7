//! One measurement: a load for some seconds, what came through, and what it cost.

mod iperf;
mod usage;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::lab::Lab;
use crate::process::Process;
use usage::Usage;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Load {
    /// One TCP connection from the IPv6-only client to the IPv4-only server.
    Upload,
    /// One TCP connection, with the data from the server to the client.
    Download,
    /// Small datagrams from the client to the server, as fast as iperf3 can.
    Flood,
    /// Small datagrams at [`Load::PACE`].
    Paced,
}

impl Load {
    pub(crate) const ALL: [Self; 4] = [Self::Upload, Self::Download, Self::Flood, Self::Paced];
    /// The payload of a small datagram, in bytes.
    pub(crate) const PAYLOAD: u64 = 64;
    /// Small datagrams per second where not as many as possible are sent.
    pub(crate) const PACE: u64 = 20_000;
}

/// What one measurement found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// Received payload, in Gbit/s.
    pub(crate) gbit_per_second: f64,
    /// TCP segments sent again.
    pub(crate) retransmits: Option<f64>,
    /// Datagrams per second that the client sent.
    pub(crate) sent_per_second: Option<f64>,
    /// Datagrams per second that the server received.
    pub(crate) received_per_second: Option<f64>,
    /// Datagrams that did not arrive, in percent of those sent.
    pub(crate) loss_percent: Option<f64>,
    /// For how many seconds the client sent datagrams.
    pub(crate) datagram_seconds: Option<f64>,
    /// Packets that the translator wrote, of all kinds and in both directions.
    pub(crate) translated: u64,
    /// Packets that found the translator's device full.
    pub(crate) device_full: u64,
    /// Packets that the translator took and did not pass on.
    pub(crate) not_passed_on: u64,
    /// Processor time of the translator's process per packet that it wrote, in microseconds.
    pub(crate) cpu_us_per_packet: f64,
    /// Processor time of the translator's process, in seconds.
    pub(crate) cpu_seconds: f64,
}

/// Measures a translator that runs.
pub(crate) fn measure(lab: &Lab, process: &Process, load: Load, seconds: u32) -> Result<Sample> {
    let before = Usage::of(process.id())?;
    let result = iperf::iperf(lab, load, seconds)?;
    let spent = Usage::of(process.id())?.since(before);
    if spent.written == 0 {
        bail!("the packets went another way: the translator wrote none");
    }
    let per_second = |count: fn(&iperf::Datagrams) -> f64| {
        result.datagrams.filter(|datagrams| datagrams.seconds > 0.0).map(|d| count(&d) / d.seconds)
    };
    Ok(Sample {
        gbit_per_second: result.bits_per_second / 1e9,
        retransmits: result.retransmits,
        sent_per_second: per_second(|datagrams| datagrams.sent),
        received_per_second: per_second(|datagrams| datagrams.sent - datagrams.lost),
        loss_percent: result
            .datagrams
            .filter(|datagrams| datagrams.sent > 0.0)
            .map(|datagrams| 100.0 * datagrams.lost / datagrams.sent),
        datagram_seconds: result.datagrams.map(|datagrams| datagrams.seconds),
        translated: spent.written,
        device_full: spent.missed,
        not_passed_on: spent.read.saturating_sub(spent.written),
        cpu_us_per_packet: spent.cpu.as_secs_f64() * 1e6 / spent.written as f64,
        cpu_seconds: spent.cpu.as_secs_f64(),
    })
}
