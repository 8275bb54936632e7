//! One run of iperf3 between client and server.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Load;
use crate::lab::{Lab, PATIENCE, SERVER};
use crate::process::{Process, run};
use crate::requirements::program;

/// How much longer than its measurement a run may take: an overload takes the control connection's packets too.
const SLACK: Duration = Duration::from_secs(8);
/// The socket buffers for small packets, in bytes, where the system allows so much: the translator is to be measured, not
/// the pauses of the receiver.
const SOCKET_BUFFER: u64 = 2 << 20;

/// What iperf3 reports.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Outcome {
    /// Received payload, in bits per second.
    pub(super) bits_per_second: f64,
    /// TCP segments sent again.
    pub(super) retransmits: Option<f64>,
    /// Datagrams sent and lost, and for how many seconds they were sent.
    pub(super) datagrams: Option<Datagrams>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Datagrams {
    pub(super) sent: f64,
    pub(super) lost: f64,
    pub(super) seconds: f64,
}

/// Puts the load on the way between client and server for so many seconds.
pub(super) fn iperf(lab: &Lab, load: Load, seconds: u32) -> Result<Outcome> {
    let mut server = lab.server().command(program("iperf3"));
    server.args([
        "--server",
        "--one-off",
        "--forceflush",
        "--bind",
        &netlab::Topology::SERVER_V4.to_string(),
    ]);
    let mut server = Process::start(&mut server)?;
    if !server.wait_for(PATIENCE, |output| output.stdout.contains("listening")) {
        bail!("the iperf3 server does not listen: {}", server.output().last_line());
    }
    let mut client = lab.client().command(program("iperf3"));
    client.args(["--client", &SERVER.to_string(), "--json", "--connect-timeout", "3000"]);
    client.args(["--time", &seconds.to_string()]).args(arguments(load));
    let output = run(&mut client, Duration::from_secs(seconds.into()) + SLACK);
    server.stop()?;
    parse(&output?.stdout)
}

fn arguments(load: Load) -> Vec<String> {
    let datagrams = |rate: u64| {
        let rate = (rate * 8 * Load::PAYLOAD).to_string();
        let length = Load::PAYLOAD.to_string();
        let buffer = SOCKET_BUFFER.min(largest_buffer()).to_string();
        ["--udp", "--length", &length, "--bitrate", &rate, "--window", &buffer].map(str::to_owned).to_vec()
    };
    match load {
        Load::Upload => Vec::new(),
        Load::Download => vec!["--reverse".to_owned()],
        // To iperf3, a rate of 0 is as fast as it can.
        Load::Flood => datagrams(0),
        Load::Paced => datagrams(Load::PACE),
    }
}

/// iperf3 gives up where it gets less than it asks for.
fn largest_buffer() -> u64 {
    ["rmem_max", "wmem_max"]
        .iter()
        .filter_map(|name| fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok()?.trim().parse().ok())
        .min()
        .unwrap_or(SOCKET_BUFFER)
}

fn parse(text: &str) -> Result<Outcome> {
    let report: Value = serde_json::from_str(text).context("iperf3's report is no JSON")?;
    if let Some(error) = report["error"].as_str() {
        bail!("iperf3: {error}");
    }
    let (sent, received) = (&report["end"]["sum_sent"], &report["end"]["sum_received"]);
    let number = |from: &Value, key: &str| from[key].as_f64();
    // Of datagrams, `packets` counts those that were sent or lost, on either side.
    let datagrams = number(received, "lost_packets").and_then(|lost| {
        Some(Datagrams { sent: number(sent, "packets")?, lost, seconds: number(sent, "seconds")? })
    });
    Ok(Outcome {
        bits_per_second: number(received, "bits_per_second").context("iperf3 reports no rate")?,
        retransmits: number(sent, "retransmits"),
        datagrams,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_and_segments_are_told_apart() {
        let udp = r#"{"end": {"sum_sent": {"packets": 100, "seconds": 2.0},
                     "sum_received": {"bits_per_second": 5.0, "packets": 100, "lost_packets": 25}}}"#;
        let datagrams = Some(Datagrams { sent: 100.0, lost: 25.0, seconds: 2.0 });
        assert_eq!(parse(udp).unwrap(), Outcome { bits_per_second: 5.0, retransmits: None, datagrams });
        let tcp = r#"{"end": {"sum_sent": {"retransmits": 3}, "sum_received": {"bits_per_second": 5.0}}}"#;
        assert_eq!(
            parse(tcp).unwrap(),
            Outcome { bits_per_second: 5.0, retransmits: Some(3.0), datagrams: None }
        );
    }

    #[test]
    fn an_error_inside_the_report_is_an_error() {
        let error = parse(r#"{"end": {}, "error": "control socket has closed unexpectedly"}"#).unwrap_err();
        assert!(error.to_string().contains("control socket"), "{error}");
    }
}
