//! The time of day, as evidence needs it: UTC, in milliseconds.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fast_nat::Timestamp;
use serde::de::{Deserializer, Error as _, Visitor};
use serde::ser::{Serialize, Serializer};

/// A moment: milliseconds since 1970-01-01 UTC, without leap seconds. Its text is RFC 3339: `2026-01-31T23:59:59.999Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(u64);

/// The last moment with a year of four digits, which is all that RFC 3339 can write.
const LAST: u64 = 253_402_300_799_999;

impl Stamp {
    /// The moment at this many milliseconds; the last one of the year 9999 where that is earlier.
    pub const fn from_millis(millis: u64) -> Self {
        Self(if millis > LAST { LAST } else { millis })
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time now.
    #[allow(
        clippy::disallowed_methods,
        reason = "evidence is about the time of day; nothing is decided by it"
    )]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self::from_millis(u64::try_from(since.as_millis()).unwrap_or(LAST))
    }

    /// The time of day of a moment of the router's own clock, which counts from the start of the machine. `utc` and
    /// `boot` are one moment on both clocks.
    pub fn of(moment: Timestamp, utc: Self, boot: Timestamp) -> Self {
        if moment >= boot {
            Self::from_millis(utc.0.saturating_add(moment.as_millis() - boot.as_millis()))
        } else {
            Self(utc.0.saturating_sub(boot.as_millis() - moment.as_millis()))
        }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = UNIX_EPOCH.checked_add(Duration::from_millis(self.0)).unwrap_or(UNIX_EPOCH);
        write!(f, "{}", humantime::format_rfc3339_millis(time))
    }
}

impl FromStr for Stamp {
    type Err = humantime::TimestampError;

    /// Reads `2026-01-31T23:59:59.999Z`, with fewer or more digits of the second, and also `2026-01-31 23:59:59`, which
    /// is UTC as well.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = humantime::parse_rfc3339_weak(text)?;
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Ok(Self::from_millis(u64::try_from(since.as_millis()).unwrap_or(LAST)))
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Stamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time like 2026-01-31T23:59:59.999Z")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Stamp, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_written_in_utc_with_milliseconds_and_read_back() {
        let stamp = Stamp::from_millis(1_769_903_999_007);
        assert_eq!(stamp.to_string(), "2026-01-31T23:59:59.007Z");
        assert_eq!("2026-01-31T23:59:59.007Z".parse(), Ok(stamp));
        assert_eq!("2026-01-31T23:59:59.0079Z".parse(), Ok(stamp));
        assert_eq!("2026-01-31 23:59:59".parse(), Ok(Stamp::from_millis(1_769_903_999_000)));
        assert_eq!(Stamp::from_millis(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Stamp::from_millis(0).to_string(), "1970-01-01T00:00:00.000Z");
        for wrong in ["", "yesterday", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00+02:00"] {
            assert!(wrong.parse::<Stamp>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_moment_since_boot_becomes_a_time_of_day() {
        let utc = Stamp::from_millis(1_000_000);
        let boot = Timestamp::from_millis(500);
        assert_eq!(Stamp::of(Timestamp::from_millis(400), utc, boot), Stamp::from_millis(999_900));
        assert_eq!(Stamp::of(Timestamp::from_millis(501), utc, boot), Stamp::from_millis(1_000_001));
        assert_eq!(Stamp::of(Timestamp::from_millis(0), Stamp::from_millis(3), boot), Stamp::from_millis(0));
    }
}
