//! The table in Markdown.

use std::fmt::Write as _;

use super::rows::{Row, ratio, rows};
use crate::contenders::Role;
use crate::course::Record;
use crate::loads::Load;

/// Medians, ranges, and the median of the ratios to the first column, round by round. What the load alone costs is no
/// column: it has been subtracted.
pub(crate) fn table(records: &[Record], loads: &[Load]) -> String {
    let columns: Vec<_> = records.iter().filter(|record| record.role != Role::Direct).collect();
    let mut text = String::from("| |");
    for record in &columns {
        let _ = write!(text, " {} |", record.name);
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(columns.len()));
    let mut above = vec![String::new(); columns.len()];
    for row in rows(loads) {
        let _ = write!(text, "| {} |", row.title);
        for (column, record) in columns.iter().enumerate() {
            let cell = cell(record, &row, columns.first().copied().filter(|_| column > 0));
            let again = cell.starts_with("failed") && cell == above[column];
            let _ = write!(text, " {} |", if again { "failed, as above" } else { &cell });
            above[column] = cell;
        }
        text.push('\n');
    }
    text
}

fn cell(record: &Record, row: &Row, base: Option<&Record>) -> String {
    let Some(found) = row.summary(record) else {
        return match record.failure_of(row.load) {
            Some(reason) => format!("failed: {}", reason.replace(['|', '\n'], " ")),
            None => "–".to_owned(),
        };
    };
    let decimals = row.decimals;
    let told = if row.is_mean { found.mean } else { found.median };
    let mut text = format!("**{told:.decimals$}**");
    if found.rounds > 1 {
        let _ = write!(text, " ({:.decimals$}–{:.decimals$})", found.min, found.max);
    }
    if let Some(ratio) =
        base.filter(|_| row.has_ratio).and_then(|base| ratio(record, base, row.load, row.figure))
    {
        let _ = write!(text, " ×{:.2}", ratio.median);
    }
    let missing =
        record.measurements.iter().filter(|other| other.load == row.load && other.sample.is_none()).count();
    if missing > 0 {
        let reason = record.failure_of(row.load).unwrap_or_default().replace(['|', '\n'], " ");
        let _ = write!(text, ", failed {missing} times: {reason}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::course::tests::record;
    use crate::loads::Way;
    use crate::measure::Figure;

    const LOAD: Load = Load::Tcp { flows: 1, way: Way::Up };

    #[test]
    fn a_cell_has_median_range_and_ratio() {
        let ours =
            record("this router", Role::Sessions, &[(LOAD, Figure::GbitPerSecond, &[10.0, 12.0, 11.0])]);
        let other = record("tayga", Role::Other, &[(LOAD, Figure::GbitPerSecond, &[5.0, 6.0, 5.5])]);
        let text = table(&[ours, other], &[LOAD]);
        let line = text.lines().nth(2).unwrap();
        let expected = "| TCP, one flow, client to server, Gbit/s | **11.00** (10.00–12.00) | **5.50** (5.00–6.00) ×0.50 |";
        assert_eq!(line, expected);
    }

    #[test]
    fn waiting_is_told_by_its_mean() {
        let one =
            record("this router", Role::Sessions, &[(Load::Idle, Figure::IdlePercent, &[0.0, 0.0, 0.6])]);
        let text = table(&[one], &[Load::Idle]);
        assert!(text.contains("after the start (mean) | **0.200** (0.000–0.600) |"), "{text}");
    }

    #[test]
    fn who_failed_has_the_reason_and_who_is_not_asked_a_dash() {
        let mut failed = record("tayga", Role::Other, &[]);
        failed.failure = Some("it | broke".to_owned());
        let direct = record("direct", Role::Direct, &[]);
        let text = table(&[failed, record("bare", Role::Bare, &[]), direct], &[LOAD]);
        assert!(text.ends_with("| failed: it   broke | – |\n"), "{text}");
    }
}
