//! A record as it is written: one JSON object on a line of its own. The keys are for good; `docs/allocation-records.md`
//! tells them to operators.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

use super::Identity;
use super::queue::{Body, Entry};
use super::record::{Protocol, What};
use super::stamp::Stamp;

/// How each line begins. A line of a syslog daemon has it behind the daemon's own words.
pub const BEGIN: &str = "{\"time\":\"";

/// One line. `None`: the key is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line<'a> {
    /// When it happened.
    pub time: Stamp,
    /// What happened.
    pub event: Event,
    /// Which router: see [`super::RecordsConfig::router`].
    #[serde(borrow)]
    pub router: Cow<'a, str>,
    /// Which run of it: 16 hexadecimal digits, drawn anew at each start.
    #[serde(borrow)]
    pub instance: Cow<'a, str>,
    /// The how many-th record of the instance, from 1: a number that is missing is a record that was lost.
    pub sequence: u64,
    /// The host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Ipv6Addr>,
    /// The subscriber that the host belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriber: Option<Ipv6Net>,
    /// The address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// The lowest port of a block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_port: Option<u16>,
    /// The highest port of a block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_port: Option<u16>,
    /// At the end of something: when it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given: Option<Stamp>,
    /// The protocol of a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The host's port in a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
    /// The address's port in a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The other end of a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<Ipv4Addr>,
    /// The port there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_port: Option<u16>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    pub reason: Option<Cow<'a, str>>,
    /// At the start of the recording: what the plan of deterministic mode is computed from.
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    pub configuration: Option<Cow<'a, str>>,
}

/// What a line tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The router started: whatever an earlier instance of it had given is given no longer.
    RecordingStarted,
    /// The router ended: whatever it had given is given no longer.
    RecordingEnded,
    /// A host got a block of ports.
    BlockGiven,
    /// It gave it back.
    BlockReturned,
    /// A host got an address.
    LeaseGiven,
    /// It gave it back.
    LeaseEnded,
    /// A session began.
    SessionStarted,
    /// A session ended.
    SessionEnded,
    /// What a later version of the program wrote.
    #[serde(other)]
    Other,
}

impl Event {
    /// Its name, as it stands in the line.
    pub fn name(self) -> &'static str {
        match self {
            Self::RecordingStarted => "recording_started",
            Self::RecordingEnded => "recording_ended",
            Self::BlockGiven => "block_given",
            Self::BlockReturned => "block_returned",
            Self::LeaseGiven => "lease_given",
            Self::LeaseEnded => "lease_ended",
            Self::SessionStarted => "session_started",
            Self::SessionEnded => "session_ended",
            Self::Other => "other",
        }
    }
}

impl<'a> Line<'a> {
    fn bare(identity: &'a Identity, time: Stamp, sequence: u64, event: Event) -> Self {
        Self {
            time,
            event,
            router: Cow::Borrowed(&identity.router),
            instance: Cow::Borrowed(&identity.instance),
            sequence,
            host: None,
            subscriber: None,
            address: None,
            first_port: None,
            last_port: None,
            given: None,
            protocol: None,
            host_port: None,
            port: None,
            remote: None,
            remote_port: None,
            reason: None,
            configuration: None,
        }
    }

    /// The line of what waits in the queue.
    pub(super) fn of(entry: &'a Entry, identity: &'a Identity) -> Self {
        let Entry { sequence, time, given, body } = entry;
        let record = match body {
            Body::Record(record) => record,
            Body::Started => {
                let configuration = identity.configuration.as_deref().map(Cow::Borrowed);
                return Self {
                    configuration,
                    ..Self::bare(identity, *time, *sequence, Event::RecordingStarted)
                };
            }
            Body::Ended => return Self::bare(identity, *time, *sequence, Event::RecordingEnded),
        };
        let (event, ports, flow) = match record.what {
            What::BlockGiven { first_port, last_port } => {
                (Event::BlockGiven, Some((first_port, last_port)), None)
            }
            What::BlockReturned { first_port, last_port, .. } => {
                (Event::BlockReturned, Some((first_port, last_port)), None)
            }
            What::LeaseGiven => (Event::LeaseGiven, None, None),
            What::LeaseEnded { .. } => (Event::LeaseEnded, None, None),
            What::SessionStarted(flow) => (Event::SessionStarted, None, Some(flow)),
            What::SessionEnded { flow, .. } => (Event::SessionEnded, None, Some(flow)),
        };
        Self {
            host: Some(record.host),
            subscriber: identity.subscriber(record.host),
            address: Some(record.address),
            first_port: ports.map(|(first, _)| first),
            last_port: ports.map(|(_, last)| last),
            given: *given,
            protocol: flow.map(|flow| flow.protocol),
            host_port: flow.map(|flow| flow.host_port),
            port: flow.map(|flow| flow.port),
            remote: flow.map(|flow| flow.remote),
            remote_port: flow.map(|flow| flow.remote_port),
            reason: (!record.reason.is_empty()).then_some(Cow::Borrowed(record.reason)),
            ..Self::bare(identity, *time, *sequence, event)
        }
    }

    /// Names and values of all keys but time and event, for a form that is not JSON.
    pub(super) fn each(&self, mut tell: impl FnMut(&str, &dyn Display) -> fmt::Result) -> fmt::Result {
        tell("router", &self.router)?;
        tell("instance", &self.instance)?;
        tell("sequence", &self.sequence)?;
        let protocol = self.protocol.map(|protocol| match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
        });
        let values: [(&str, Option<&dyn Display>); 13] = [
            ("host", self.host.as_ref().map(|value| value as _)),
            ("subscriber", self.subscriber.as_ref().map(|value| value as _)),
            ("address", self.address.as_ref().map(|value| value as _)),
            ("first_port", self.first_port.as_ref().map(|value| value as _)),
            ("last_port", self.last_port.as_ref().map(|value| value as _)),
            ("given", self.given.as_ref().map(|value| value as _)),
            ("protocol", protocol.as_ref().map(|value| value as _)),
            ("host_port", self.host_port.as_ref().map(|value| value as _)),
            ("port", self.port.as_ref().map(|value| value as _)),
            ("remote", self.remote.as_ref().map(|value| value as _)),
            ("remote_port", self.remote_port.as_ref().map(|value| value as _)),
            ("reason", self.reason.as_ref().map(|value| value as _)),
            ("configuration", self.configuration.as_ref().map(|value| value as _)),
        ];
        for (name, value) in values {
            if let Some(value) = value {
                tell(name, value)?;
            }
        }
        Ok(())
    }
}
