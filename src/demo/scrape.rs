//! Reads the few figures that the demonstration shows off the router's own metrics page.

/// What the router counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub(super) packets_6to4: u64,
    pub(super) bytes_6to4: u64,
    pub(super) packets_4to6: u64,
    pub(super) bytes_4to6: u64,
    pub(super) dropped: u64,
}

impl Totals {
    /// Sums over all workers and reasons.
    pub(super) fn read(page: &str) -> Self {
        Self {
            packets_6to4: sum(page, "protomask_forwarded_packets_total", "direction=\"6to4\""),
            bytes_6to4: sum(page, "protomask_forwarded_bytes_total", "direction=\"6to4\""),
            packets_4to6: sum(page, "protomask_forwarded_packets_total", "direction=\"4to6\""),
            bytes_4to6: sum(page, "protomask_forwarded_bytes_total", "direction=\"4to6\""),
            dropped: sum(page, "protomask_dropped_packets_total", ""),
        }
    }
}

/// The sum over the lines `NAME{...LABEL...} VALUE`.
fn sum(page: &str, name: &str, label: &str) -> u64 {
    page.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let is_it = labels.is_empty() || labels.starts_with('{');
            (is_it && labels.contains(label)).then(|| value.parse::<u64>().ok())?
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_summed_over_workers_and_reasons_and_kept_apart_by_direction() {
        let page = "# TYPE protomask_forwarded_packets counter\n\
                    protomask_forwarded_packets_total{direction=\"6to4\",worker=\"0\"} 5\n\
                    protomask_forwarded_packets_total{direction=\"6to4\",worker=\"1\"} 6\n\
                    protomask_forwarded_packets_total{direction=\"4to6\",worker=\"0\"} 7\n\
                    protomask_forwarded_packets_total_ever 100\n\
                    protomask_dropped_packets_total{reason=\"a\"} 1\n\
                    protomask_dropped_packets_total{reason=\"b\"} 2\n\
                    # EOF\n";
        let expected = Totals { packets_6to4: 11, packets_4to6: 7, dropped: 3, ..Totals::default() };
        assert_eq!(Totals::read(page), expected);
    }
}
