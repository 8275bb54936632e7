//! One run of iperf3 between client and server, for TCP.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::lab::{Lab, PATIENCE};
use crate::loads::Way;
use crate::process::{Process, run};
use crate::requirements::program;

/// How much longer than its measurement a run may take: an overload takes the control connection's packets too.
const SLACK: Duration = Duration::from_secs(8);
/// The port of iperf3's server.
const PORT: u16 = 5201;

/// What iperf3 reports.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Outcome {
    /// Received payload of all connections, in bits per second.
    pub(super) bits_per_second: f64,
    /// TCP segments sent again.
    pub(super) retransmits: Option<f64>,
}

/// Sends as fast as TCP does, over so many connections, for so many seconds.
pub(super) fn iperf(lab: &Lab, flows: u8, way: Way, seconds: u32) -> Result<Outcome> {
    let ends = lab.ends(PORT);
    let mut server = lab.server().command(program("iperf3"));
    server.args(["--server", "--one-off", "--forceflush", "--bind", &ends.bound.ip().to_string()]);
    let mut server = Process::start(&mut server)?;
    if !server.wait_for(PATIENCE, |output| output.stdout.contains("listening")) {
        bail!("the iperf3 server does not listen: {}", server.output().last_line());
    }
    let mut client = lab.client().command(program("iperf3"));
    client.args(["--client", &ends.seen.ip().to_string(), "--json", "--connect-timeout", "3000"]);
    client.args(["--time", &seconds.to_string(), "--parallel", &flows.to_string()]);
    if way == Way::Down {
        client.arg("--reverse");
    }
    let output = run(&mut client, Duration::from_secs(seconds.into()) + SLACK);
    server.stop()?;
    parse(&output?.stdout)
}

fn parse(text: &str) -> Result<Outcome> {
    let report: Value = serde_json::from_str(text).context("iperf3's report is no JSON")?;
    if let Some(error) = report["error"].as_str() {
        bail!("iperf3: {error}");
    }
    let (sent, received) = (&report["end"]["sum_sent"], &report["end"]["sum_received"]);
    Ok(Outcome {
        bits_per_second: received["bits_per_second"].as_f64().context("iperf3 reports no rate")?,
        retransmits: sent["retransmits"].as_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_what_was_received() {
        let tcp = r#"{"end": {"sum_sent": {"bits_per_second": 9.0, "retransmits": 3}, "sum_received": {"bits_per_second": 5.0}}}"#;
        assert_eq!(parse(tcp).unwrap(), Outcome { bits_per_second: 5.0, retransmits: Some(3.0) });
        assert!(parse(r#"{"end": {}}"#).is_err());
    }

    #[test]
    fn an_error_inside_the_report_is_an_error() {
        let error = parse(r#"{"end": {}, "error": "control socket has closed unexpectedly"}"#).unwrap_err();
        assert!(error.to_string().contains("control socket"), "{error}");
    }
}
