//! What the kernel has counted of a link (`/proc/net/dev`).

/// Packets since the link is there. A super-packet is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// That the kernel received by it.
    pub(crate) received: u64,
    /// That the kernel dropped instead of sending them by it.
    pub(crate) dropped: u64,
}

impl Link {
    /// Finds one of this name in the table.
    pub(crate) fn find(table: &str, name: &str) -> Option<Self> {
        let figures = table.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))?;
        let figures: Vec<u64> = figures.split_whitespace().filter_map(|figure| figure.parse().ok()).collect();
        Some(Self { received: *figures.get(1)?, dropped: *figures.get(11)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_found_among_others() {
        let table = "Inter-|   Receive |  Transmit\n face |bytes packets\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n\
                     bench0: 100 10 0 0 0 0 0 0 200 20 0 3 0 0 0 0\n";
        assert_eq!(Link::find(table, "bench0"), Some(Link { received: 10, dropped: 3 }));
        assert_eq!(Link::find(table, "bench"), None);
    }
}
