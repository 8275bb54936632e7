//! Checks of timers: what RFCs want at least.

use std::time::Duration;

use fast_nat::nat64::Timers;
use humantime::format_duration;

use super::super::partial::PartialTimers;
use super::super::{FragmentSettings, Placed};
use super::{Check, is_true};

impl Check<'_> {
    /// The timers of sessions and that of fragments, and a sentence for each that is shorter than its RFC says.
    pub(in super::super) fn timers(&mut self, given: PartialTimers) -> (Timers, Duration, Vec<String>) {
        let PartialTimers {
            tcp_established,
            tcp_transitory,
            tcp_incoming_syn,
            udp,
            icmp,
            port_rest,
            tcp_port_rest,
            fragment,
            block_idle,
            below_rfc,
        } = given;
        let default = Timers::DEFAULT;
        let (second, minute) = (Duration::from_secs(1), Duration::from_mins(1));
        let (hour, day) = (minute * 60, minute * 60 * 24);
        let mut read = Reader { check: self, may_be_below: is_true(below_rfc.as_ref()), below: Vec::new() };
        let timers = Timers {
            tcp_established: read.timer(
                "tcp_established",
                tcp_established.as_ref(),
                default.tcp_established,
                (second, day * 30),
                Some((minute * 124, "RFC 5382 REQ-5")),
            ),
            tcp_transitory: read.timer(
                "tcp_transitory",
                tcp_transitory.as_ref(),
                default.tcp_transitory,
                (second, day),
                Some((minute * 4, "RFC 5382 REQ-5")),
            ),
            tcp_incoming_syn: read.timer(
                "tcp_incoming_syn",
                tcp_incoming_syn.as_ref(),
                default.tcp_incoming_syn,
                (second, minute * 10),
                Some((second * 6, "RFC 6146 §4")),
            ),
            udp: read.timer(
                "udp",
                udp.as_ref(),
                default.udp,
                (second, day),
                Some((minute * 2, "RFC 4787 REQ-5")),
            ),
            icmp: read.timer(
                "icmp",
                icmp.as_ref(),
                default.icmp,
                (second, day),
                Some((minute, "RFC 5508 REQ-2")),
            ),
            port_rest: read.timer(
                "port_rest",
                port_rest.as_ref(),
                default.port_rest,
                (Duration::ZERO, day),
                Some((minute * 2, "RFC 6888 REQ-8")),
            ),
            tcp_port_rest: read.timer(
                "tcp_port_rest",
                tcp_port_rest.as_ref(),
                default.tcp_port_rest,
                (Duration::ZERO, day),
                None,
            ),
            block_idle: read.timer(
                "block_idle",
                block_idle.as_ref(),
                default.block_idle,
                (Duration::ZERO, hour * 24 * 30),
                None,
            ),
        };
        let fragment = read.timer(
            "fragment",
            fragment.as_ref(),
            FragmentSettings::default().timeout,
            (second, minute * 2),
            Some((second * 2, "RFC 6146 §4")),
        );
        let below = read.below;
        (timers, fragment, below)
    }
}

/// What reads timers.
struct Reader<'c, 'p> {
    check: &'c mut Check<'p>,
    may_be_below: bool,
    below: Vec<String>,
}

impl Reader<'_, '_> {
    fn timer(
        &mut self,
        name: &'static str,
        given: Option<&Placed<Duration>>,
        default: Duration,
        bounds: (Duration, Duration),
        rfc: Option<(Duration, &'static str)>,
    ) -> Duration {
        let name = format!("timers.{name}");
        let value = self.check.lasts_between(given, default, bounds, &name);
        if let (Some(placed), Some((least, rfc))) = (given, rfc)
            && value < least
        {
            let [value, least] = [value, least].map(format_duration);
            let sentence = format!("{name}: {value} is less than the {least} of {rfc}");
            if self.may_be_below {
                self.below.push(sentence);
            } else {
                self.check.wrong(placed, format!("{sentence}; timers.below_rfc = true allows it"));
            }
        }
        value
    }
}
