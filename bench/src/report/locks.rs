//! What is told of locks below the table.

use crate::contenders::Locks;
use crate::course::Record;

/// How often a lock of this contender's tables was not free; `None` if it does not say.
pub(crate) fn locks(record: &Record) -> Option<String> {
    let told = |locks: Locks| {
        let part = locks.of_ten_thousand()?;
        Some(format!("{part:.2} of 10,000 packets ({} of {})", locks.contended, locks.packets))
    };
    let places =
        [("while new connections arrived", record.locks_at_connections), ("in the whole run", record.locks)];
    let parts: Vec<_> =
        places.into_iter().filter_map(|(place, locks)| Some(format!("{} {place}", told(locks?)?))).collect();
    (!parts.is_empty()).then(|| format!("{}: locks that were not free: {}", record.name, parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contenders::Role;
    use crate::course::tests::record;

    #[test]
    fn both_figures_are_told_where_both_are_known() {
        let mut one = record("this router", Role::Sessions, &[]);
        assert_eq!(locks(&one), None);
        one.locks = Some(Locks { contended: 3, packets: 200_000 });
        assert_eq!(
            locks(&one).as_deref(),
            Some(
                "this router: locks that were not free: 0.15 of 10,000 packets (3 of 200000) in the whole run"
            )
        );
        one.locks_at_connections = Some(Locks { contended: 2, packets: 40_000 });
        assert!(locks(&one).is_some_and(|line| {
            line.contains("0.50 of 10,000 packets (2 of 40000) while new connections arrived, 0.15 of")
        }));
    }
}
