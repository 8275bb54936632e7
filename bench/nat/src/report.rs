//! The table, and whether the bounds are kept.
#![allow(clippy::print_stdout)]

use std::fmt;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::stats::Summary;

/// One line of the table.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    unit: &'static str,
    #[serde(flatten)]
    summary: Summary,
    /// In the order in which they were measured.
    figures: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Section {
    title: String,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    AtMost,
    AtLeast,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtMost => "at most",
            Self::AtLeast => "at least",
        })
    }
}

/// A promise, and what was measured.
#[derive(Debug, Serialize)]
struct Bound {
    about: String,
    measured: f64,
    limit: Limit,
    promised: f64,
    is_kept: bool,
}

/// All that was measured. Each line is printed as soon as it is there.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    machine: Vec<String>,
    sections: Vec<Section>,
    bounds: Vec<Bound>,
}

impl Report {
    pub(crate) fn note(&mut self, note: String) {
        println!("{note}");
        self.machine.push(note);
    }

    pub(crate) fn section(&mut self, title: impl Into<String>) {
        let title = title.into();
        println!("\n{title}");
        self.sections.push(Section { title, rows: Vec::new() });
    }

    /// A figure per round; the median is returned.
    pub(crate) fn row(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        figures: impl IntoIterator<Item = f64>,
    ) -> Result<f64> {
        let name = name.into();
        let figures: Vec<_> = figures.into_iter().collect();
        let summary =
            Summary::of(figures.iter().copied()).with_context(|| format!("{name}: nothing was measured"))?;
        let Summary { median, min, max, rounds, .. } = summary;
        if rounds == 1 {
            println!("  {name:<58} {} {unit}", number(median));
        } else {
            println!(
                "  {name:<58} {} {unit} ({} to {})",
                number(median),
                number(min).trim(),
                number(max).trim()
            );
        }
        let row = Row { name, unit, summary, figures };
        self.sections.last_mut().context("a row without a section")?.rows.push(row);
        Ok(median)
    }

    pub(crate) fn bound(&mut self, about: impl Into<String>, measured: f64, limit: Limit, promised: f64) {
        let is_kept = match limit {
            Limit::AtMost => measured <= promised,
            Limit::AtLeast => measured >= promised,
        };
        self.bounds.push(Bound { about: about.into(), measured, limit, promised, is_kept });
    }

    /// A promise was made, and everything that was measured is within it.
    pub(crate) fn is_as_promised(&self) -> bool {
        !self.bounds.is_empty() && self.bounds.iter().all(|bound| bound.is_kept)
    }

    pub(crate) fn print_bounds(&self) {
        println!("\nBounds");
        for Bound { about, measured, limit, promised, is_kept } in &self.bounds {
            let kept = if *is_kept { "kept" } else { "NOT KEPT" };
            println!("  {about:<58} {}, {limit} {}: {kept}", number(*measured), number(*promised).trim());
        }
    }
}

/// Three or more figures that mean something.
fn number(value: f64) -> String {
    if value.abs() >= 100_000.0 {
        format!("{value:>10.0}")
    } else if value.abs() >= 100.0 {
        format!("{value:>10.1}")
    } else {
        format!("{value:>10.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_missed_bound_breaks_the_promise() {
        let mut report = Report::default();
        assert!(!report.is_as_promised(), "nothing was promised");
        report.bound("bytes", 160.0, Limit::AtMost, 160.0);
        report.bound("sessions", 500_000.0, Limit::AtLeast, 500_000.0);
        assert!(report.is_as_promised());
        report.bound("steps", 257.0, Limit::AtMost, 256.0);
        assert!(!report.is_as_promised());
    }

    #[test]
    fn a_row_needs_a_figure() {
        let mut report = Report::default();
        report.section("a section");
        assert!(report.row("nothing", "ns", []).is_err());
        assert_eq!(report.row("three", "ns", [3.0, 1.0, 2.0]).ok(), Some(2.0));
    }
}
