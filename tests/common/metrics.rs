//! The router's metrics, as values.

use std::fmt;

/// One scrape.
#[derive(Clone)]
pub(crate) struct Metrics {
    samples: Vec<Sample>,
}

/// What is not zero, for the message of a failed test.
impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Sample { name, labels, value } in self.samples.iter().filter(|sample| sample.value != 0) {
            write!(f, "\n{}{{{labels}}} {value}", name.trim_start_matches("protomask_"))?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    /// `key="value",...`
    labels: String,
    value: u64,
}

impl Metrics {
    /// Reads an `OpenMetrics` page.
    pub(crate) fn parse(page: &str) -> Self {
        assert_eq!(page.lines().last(), Some("# EOF"), "the page is not whole:\n{page}");
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        Self {
            samples: lines
                .map(|line| Sample::parse(line).unwrap_or_else(|| panic!("no sample: {line}")))
                .collect(),
        }
    }

    /// The sum over all samples of this name that have all of these labels, like `reason="no_binding"`. The name must be
    /// there at least once.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> u64 {
        let named: Vec<_> = self.samples.iter().filter(|sample| sample.name == name).collect();
        assert!(!named.is_empty(), "there is no {name}; there are: {}", self.names().join(", "));
        let matches =
            |sample: &&&Sample| labels.iter().all(|label| sample.labels.split(',').any(|own| own == *label));
        named.iter().filter(matches).map(|sample| sample.value).sum()
    }

    /// Packets that were not forwarded for this reason.
    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        self.sum("protomask_dropped_packets_total", &[&format!("reason=\"{reason}\"")])
    }

    /// Packets that were not forwarded, whatever the reason.
    pub(crate) fn all_dropped(&self) -> u64 {
        self.sum("protomask_dropped_packets_total", &[])
    }

    /// Sessions of a protocol (`tcp`, `udp`, `icmp`) that there are now.
    pub(crate) fn sessions(&self, protocol: &str) -> u64 {
        self.sum("protomask_sessions", &[&format!("protocol=\"{protocol}\"")])
    }

    /// Port blocks that hosts hold now.
    pub(crate) fn blocks(&self) -> u64 {
        self.sum("protomask_port_blocks", &[])
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.samples.iter().map(|sample| sample.name.as_str()).collect();
        names.dedup();
        names
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        let value: f64 = value.parse().ok()?;
        Some(Self { name: name.to_owned(), labels: labels.to_owned(), value: whole(value) })
    }
}

/// Counts are whole; of a time, the whole seconds are enough here.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, or cut on purpose")]
fn whole(value: f64) -> u64 {
    value as u64
}
