//! An answer: who, and what it rests on.

use std::fmt;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::path::Path;

use fast_nat::Deterministic;
use ipnet::Ipv6Net;
use serde::Serialize;

use super::history::{End, Tenure};
use super::when::When;
use crate::config::Settings;
use crate::records::Stamp;

/// Who had an address and a port. Serializes to the object of `--json`, without the keys that are `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The host; not known where a subscriber was computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Ipv6Addr>,
    /// The subscriber that the host belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriber: Option<Ipv6Net>,
    /// The address that was asked for.
    pub address: Ipv4Addr,
    /// The lowest of the ports that were given together.
    pub first_port: u16,
    /// The highest of them.
    pub last_port: u16,
    /// Since when; `None`: for as long as the configuration has been the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Stamp>,
    /// Until when, at the latest; `None`: it has not ended, as far as is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Stamp>,
    /// How it ended: `returned`, `router_ended`, `router_started_anew`, `given_anew`, or `held` if it has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<&'static str>,
    /// Why it was given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The last record before the end, where that is not known; the last one of all, where it has not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_record: Option<Stamp>,
    /// The router that gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<String>,
    /// The run of that router.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// How many records are missing that might have told of an earlier end.
    #[serde(skip_serializing_if = "is_zero")]
    pub missing: u64,
    /// What the answer rests on.
    pub basis: Basis,
    /// The configuration, where it rests on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
}

/// What an answer rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Allocation records.
    Records,
    /// The plan of deterministic mode.
    Deterministic,
    /// A forward, static pair or explicit mapping in the configuration.
    Fixed,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Answer {
    fn of(basis: Basis, address: Ipv4Addr, (first_port, last_port): (u16, u16)) -> Self {
        Self {
            host: None,
            subscriber: None,
            address,
            first_port,
            last_port,
            from: None,
            until: None,
            end: None,
            reason: None,
            last_record: None,
            router: None,
            instance: None,
            missing: 0,
            basis,
            configuration: None,
        }
    }

    /// A host that has the port by configuration.
    pub fn fixed(host: Ipv6Addr, endpoint: SocketAddrV4, settings: &Settings, path: &Path) -> Self {
        let subscriber = Ipv6Net::new(host, settings.quota.subscriber_prefix_len).ok();
        Self {
            host: Some(host),
            subscriber: subscriber.map(|net| net.trunc()),
            configuration: Some(path.display().to_string()),
            ..Self::of(Basis::Fixed, *endpoint.ip(), (endpoint.port(), endpoint.port()))
        }
    }

    /// A subscriber that was computed.
    pub fn computed(plan: &Deterministic, subscriber: Ipv6Net, endpoint: SocketAddrV4, path: &Path) -> Self {
        let ports = plan.block_of(subscriber.network()).map(|(_, ports)| (*ports.start(), *ports.end()));
        Self {
            subscriber: Some(subscriber),
            configuration: Some(path.display().to_string()),
            ..Self::of(
                Basis::Deterministic,
                *endpoint.ip(),
                ports.unwrap_or((endpoint.port(), endpoint.port())),
            )
        }
    }

    /// A host that is in the records.
    pub fn recorded(tenure: Tenure, address: Ipv4Addr) -> Self {
        let until = tenure.end.at();
        let (end, reason, last_record) = match tenure.end {
            End::Returned { reason, .. } => ("returned", reason, None),
            End::RouterEnded(_) => ("router_ended", None, None),
            End::RouterStartedAnew { last, .. } => ("router_started_anew", None, Some(last)),
            End::GivenAnew(_) => ("given_anew", None, None),
            End::Held(last) => ("held", None, Some(last)),
        };
        Self {
            host: Some(tenure.host),
            subscriber: tenure.subscriber,
            from: Some(tenure.from),
            until,
            end: Some(end),
            reason,
            last_record,
            router: Some(tenure.router),
            instance: Some(tenure.instance),
            missing: tenure.missing,
            ..Self::of(Basis::Records, address, tenure.ports.unwrap_or((0, u16::MAX)))
        }
    }

    /// Why the answer may be wrong, if there is a reason.
    pub fn doubt(&self, when: When) -> Option<String> {
        let who = self.host.map_or_else(String::new, |host| host.to_string());
        if self.missing > 0 {
            return Some(format!(
                "{} records are missing behind the one that gave {} to {who}: it may have been given back earlier than this \
                 says, and to somebody else",
                self.missing, self.address
            ));
        }
        let last = self.last_record.filter(|last| when.last > *last)?;
        (self.end == Some("router_started_anew")).then(|| {
            format!(
                "the router that gave {} to {who} ended without a word, after {last}: it may have ended before {when}",
                self.address
            )
        })
    }

    /// As one JSON object on a line.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }
}

/// One line of `key=value`; `until=-` where it has not ended, `from=-` where nobody knows.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_dash =
            |value: Option<&dyn fmt::Display>| value.map_or_else(|| "-".to_owned(), ToString::to_string);
        write!(f, "host={}", or_dash(self.host.as_ref().map(|value| value as _)))?;
        write!(f, " subscriber={}", or_dash(self.subscriber.as_ref().map(|value| value as _)))?;
        write!(f, " from={}", or_dash(self.from.as_ref().map(|value| value as _)))?;
        write!(f, " until={}", or_dash(self.until.as_ref().map(|value| value as _)))?;
        write!(f, " address={} ports={}-{}", self.address, self.first_port, self.last_port)?;
        if let Some(end) = self.end {
            write!(f, " end={end}")?;
        }
        if let Some(reason) = &self.reason {
            write!(f, " reason={reason}")?;
        }
        if let Some(router) = &self.router {
            write!(f, " router={router}")?;
        }
        if self.missing > 0 {
            write!(f, " missing={}", self.missing)?;
        }
        match self.basis {
            Basis::Records => f.write_str(" basis=records"),
            Basis::Deterministic => f.write_str(" basis=deterministic"),
            Basis::Fixed => f.write_str(" basis=fixed"),
        }?;
        self.configuration.as_ref().map_or(Ok(()), |path| write!(f, " configuration={path}"))
    }
}
