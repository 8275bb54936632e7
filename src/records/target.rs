//! Where records go, in words.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A file, one record a line.
    File(PathBuf),
    /// A syslog daemon, one record a message (RFC 5424).
    Syslog(SyslogTarget),
}

/// How a syslog daemon is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogTarget {
    /// By a Unix datagram socket of this machine: `unix:/dev/log`.
    Unix(PathBuf),
    /// One datagram for each record (RFC 5426): `udp:192.0.2.1:514`. What is lost on the way is lost.
    Udp(String),
    /// Over TCP, with the length before each message (RFC 6587 §3.4.1): `tcp:192.0.2.1:601`.
    Tcp(String),
}

/// Why a text names no syslog daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unix:/dev/log, udp:HOST:PORT or tcp:HOST:PORT is expected")]
pub struct InvalidTarget;

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Syslog(target) => target.fmt(f),
        }
    }
}

impl fmt::Display for SyslogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Udp(host) => write!(f, "udp:{host}"),
            Self::Tcp(host) => write!(f, "tcp:{host}"),
        }
    }
}

impl FromStr for SyslogTarget {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let (scheme, rest) = text.split_once(':').ok_or(InvalidTarget)?;
        // A name or an address with a port, which is not looked up before it is needed.
        let host = || match rest.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse().is_ok_and(|port: u16| port != 0) => {
                let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
                if bare_v6 { Err(InvalidTarget) } else { Ok(rest.to_owned()) }
            }
            _ => Err(InvalidTarget),
        };
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            "udp" => host().map(Self::Udp),
            "tcp" => host().map(Self::Tcp),
            _ => Err(InvalidTarget),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_as_it_is_written() {
        for text in ["unix:/dev/log", "udp:192.0.2.1:514", "tcp:log.example.org:601", "udp:[2001:db8::1]:514"]
        {
            assert_eq!(text.parse::<SyslogTarget>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "/dev/log",
            "unix:",
            "unix:log",
            "udp:192.0.2.1",
            "udp::514",
            "tcp:host:0",
            "tcp:host:99999",
            "tls:host:6514",
            "udp:2001:db8::1:514",
        ] {
            assert_eq!(text.parse::<SyslogTarget>(), Err(InvalidTarget), "{text}");
        }
    }
}
