//! Ranges of ports, as a person writes them.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Ports from `first` to `last`, both included. `first` is at least 1, and not above `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// All but the ports below 1024, which are kept for hosts that use such ports themselves (RFC 4787 REQ-3).
    pub const UNPRIVILEGED: Self = Self { first: 1024, last: u16::MAX };

    /// The range, unless it is empty or holds port 0, which no packet may come from (RFC 768, RFC 9293 §3.1).
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first > 0 && first <= last).then_some(Self { first, last })
    }

    /// The lowest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// How many ports these are: 1 to 65535.
    pub fn count(self) -> u32 {
        u32::from(self.last - self.first) + 1
    }

    /// Whether a port is one of them.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// The first ports of the whole blocks of `size` ports inside. A block begins at a multiple of its size.
    pub fn blocks(self, size: u16) -> impl Iterator<Item = u16> {
        let (size, end) = (u32::from(size.max(1)), u32::from(self.last) + 1);
        let first = u32::from(self.first).next_multiple_of(size);
        (first..end).step_by(size as usize).filter(move |first| first + size <= end).map(|first| first as u16)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.trim().parse::<u16>();
        match (number(first), number(last)) {
            (Ok(first), Ok(last)) => Self::new(first, last).ok_or_else(|| {
                format!("{text:?} holds no ports, or port 0; write the lower port first, from 1 on")
            }),
            _ => Err(format!("{text:?} is no range of ports; write one like \"1024-65535\", or one port")),
        }
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = PortRange;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port, or a range of ports like \"8000-8010\"")
            }
            fn visit_i64<E: Error>(self, port: i64) -> Result<PortRange, E> {
                let port = u16::try_from(port).ok().and_then(|port| PortRange::new(port, port));
                port.ok_or_else(|| E::custom("a port is a number from 1 to 65535"))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<PortRange, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_it_is_written() {
        for (text, written) in
            [("1024-65535", "1024-65535"), ("5060", "5060"), ("80 - 90", "80-90"), ("7-7", "7")]
        {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), written);
        }
        for wrong in ["", "-", "0", "0-9", "9-8", "1-65536", "-5", "1-2-3", "http"] {
            assert!(wrong.parse::<PortRange>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn blocks_begin_at_multiples_of_their_size_and_lie_wholly_inside() {
        let blocks = |text: &str, size| text.parse::<PortRange>().unwrap().blocks(size).collect::<Vec<_>>();
        assert_eq!(blocks("1024-1279", 128), [1024, 1152]);
        assert_eq!(blocks("1025-1408", 128), [1152, 1280]);
        assert_eq!(blocks("65408-65535", 128), [65408]);
        assert_eq!(blocks("1-127", 128), [0_u16; 0]);
        assert_eq!(blocks("1-65535", 4096).len(), 15);
    }
}
