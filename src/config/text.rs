//! Values that a person writes: durations, addresses to listen at, lists.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use easy_tun::Offloads;
use interproto::{TrafficClass, ZeroChecksum};
use ipnet::{Ipv4Net, Ipv6Net};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

use super::{ControlSocket, LEAST_MSS, MssClamp, Prometheus, SyslogTarget};

/// Seconds as a plain number, or a duration like `2h` or `1m 30s`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    match text.trim().parse::<u64>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text.trim())
            .map_err(|error| format!("not a duration ({error}); write seconds or something like 2h or 90s")),
    }
}

/// A duration in a file: a number of seconds, or a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct DurationText(pub(super) Duration);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = DurationText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds, or a duration like \"2h\"")
            }
            fn visit_i64<E: Error>(self, seconds: i64) -> Result<DurationText, E> {
                let seconds =
                    u64::try_from(seconds).map_err(|_| E::custom("a duration cannot be negative"))?;
                Ok(DurationText(Duration::from_secs(seconds)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<DurationText, E> {
                parse_duration(text).map(DurationText).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Anything that is written as a text in a file: networks, prefixes, addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<T>(pub T);

impl<T: FromStr> FromStr for Text<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        text.parse().map(Self)
    }
}

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
    }
}

impl FromStr for Prometheus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let listen = text.parse();
        listen.map(Self::At).map_err(|_| {
            "not an address to listen at; write ADDRESS:PORT, like 127.0.0.1:9464 or [::1]:9464, or off"
                .to_owned()
        })
    }
}

impl FromStr for ControlSocket {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ if text.starts_with('/') => Ok(Self::At(text.into())),
            _ => Err("not a path that begins with /; write one, or off".to_owned()),
        }
    }
}

/// A network, or an address, which is a network of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetOrAddress<N>(pub N);

impl<N: fmt::Display> fmt::Display for NetOrAddress<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for NetOrAddress<Ipv4Net> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = text.parse().or_else(|_| text.parse::<Ipv4Addr>().map(Ipv4Net::from));
        net.map(Self)
            .map_err(|_| "neither an IPv4 network, like 192.0.2.0/28, nor an IPv4 address".to_owned())
    }
}

impl FromStr for NetOrAddress<Ipv6Net> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = text.parse().or_else(|_| text.parse::<Ipv6Addr>().map(Ipv6Net::from));
        net.map(Self)
            .map_err(|_| "neither an IPv6 network, like 2001:db8::/124, nor an IPv6 address".to_owned())
    }
}

impl FromStr for SyslogTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let target = match text.split_once(':') {
            Some(("unix", path)) if path.starts_with('/') => Some(Self::Unix(path.into())),
            Some(("udp", host)) if is_host_and_port(host) => Some(Self::Udp(host.to_owned())),
            Some(("tcp", host)) if is_host_and_port(host) => Some(Self::Tcp(host.to_owned())),
            _ => None,
        };
        target.ok_or_else(|| {
            "write unix:/dev/log, udp:HOST:PORT or tcp:HOST:PORT, like udp:192.0.2.1:514 or tcp:[2001:db8::1]:601"
                .to_owned()
        })
    }
}

/// Whether this is a name or an address, with a port. An IPv6 address is in brackets.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    !host.is_empty() && !is_bare_v6 && port.parse().is_ok_and(|port: u16| port != 0)
}

/// What becomes of the type of service: `copy`, `zero` or `dscp:46`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrafficClassText(pub(super) TrafficClass);

impl FromStr for TrafficClassText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let dscp = text.strip_prefix("dscp:").and_then(|number| number.parse().ok());
        match (text, dscp) {
            ("copy", _) => Ok(Self(TrafficClass::Copy)),
            ("zero", _) => Ok(Self(TrafficClass::Zero)),
            (_, Some(dscp @ 0..=63)) => Ok(Self(TrafficClass::Dscp(dscp))),
            _ => Err("write copy, zero, or dscp:N with N from 0 to 63".to_owned()),
        }
    }
}

/// What becomes of UDP without a checksum: `compute` or `drop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZeroChecksumText(pub(super) ZeroChecksum);

impl FromStr for ZeroChecksumText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "compute" => Ok(Self(ZeroChecksum::Compute)),
            "drop" => Ok(Self(ZeroChecksum::Drop)),
            _ => Err("write compute or drop".to_owned()),
        }
    }
}

/// What the kernel is asked to leave to the router: `auto`, `off`, or names with commas between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffloadsText(pub(super) Offloads);

impl FromStr for OffloadsText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self(Offloads::all())),
            "off" => Ok(Self(Offloads::empty())),
            _ => Offloads::of_names(text.split(',').map(str::trim)).map(Self).map_err(|name| {
                let names = Offloads::names().collect::<Vec<_>>().join(", ");
                format!(
                    "{name:?} is no offload; write auto, off, or some of {names} with commas between them"
                )
            }),
        }
    }
}

impl FromStr for MssClamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            _ => match text.parse() {
                Ok(most @ LEAST_MSS..=u16::MAX) => Ok(Self::Most(most)),
                _ => {
                    Err(format!("write off, auto, or a segment size from {LEAST_MSS} to {} bytes", u16::MAX))
                }
            },
        }
    }
}

impl<'de> Deserialize<'de> for MssClamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = MssClamp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"off\", \"auto\" or a segment size in bytes")
            }
            fn visit_i64<E: Error>(self, most: i64) -> Result<MssClamp, E> {
                self.visit_str(&most.to_string())
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<MssClamp, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}
