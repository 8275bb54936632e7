//! `docs/rfc-compliance.md` must not name a test that is not there, nor say that RFC 7915 is kept without one.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::project::Project;

const LEDGER: &str = "docs/rfc-compliance.md";

/// How the heading of the section begins in which everything has a test.
const TESTED: &str = "## RFC 7915";
/// What the state of a requirement says that is not kept, and so has no test.
const NOT: &str = "**not**";

/// Where tests are.
const ROOTS: [&str; 3] = ["src", "crates", "tests"];

pub(crate) fn ledger(project: &Project) -> Result<()> {
    let root = project.shell.current_dir();
    let text = fs::read_to_string(root.join(LEDGER)).context(LEDGER)?;
    let named = tests_named_in(&text);
    ensure!(!named.is_empty(), "{LEDGER} names no test at all; has its form changed?");
    ensure!(text.contains(TESTED), "{LEDGER} has no section {TESTED:?}; has its form changed?");
    let untested = untested_in(&text);
    ensure!(untested.is_empty(), "{LEDGER} says this is kept, and names no test: {untested:#?}");
    let mut sources = String::new();
    for folder in ROOTS {
        collect(&root.join(folder), &mut sources)?;
    }
    let missing: Vec<_> = named.iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    ensure!(missing.is_empty(), "{LEDGER} names tests that do not exist: {missing:?}");
    println!("{LEDGER}: {} tests are named, and all of them exist", named.len());
    Ok(())
}

/// The words in backticks in the last column of each row.
fn tests_named_in(text: &str) -> Vec<&str> {
    let mut names: Vec<_> = text.lines().filter_map(row).flat_map(|cells| tests_named_by(&cells)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The rows of [`TESTED`] that name no test and whose state, in the third column, does not say [`NOT`].
fn untested_in(text: &str) -> Vec<&str> {
    text.lines()
        .skip_while(|line| !line.starts_with(TESTED))
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter(|line| {
            // The table's head and the rule below it name no clause.
            row(line).is_some_and(|cells| {
                cells[0].starts_with(|first: char| first.is_ascii_digit())
                    && tests_named_by(&cells).is_empty()
                    && !cells.get(2).is_some_and(|state| state.contains(NOT))
            })
        })
        .collect()
}

/// The cells of a row.
fn row(line: &str) -> Option<Vec<&str>> {
    let cells = line.strip_prefix("| ")?.strip_suffix('|')?;
    Some(cells.split('|').map(str::trim).collect())
}

fn tests_named_by<'a>(cells: &[&'a str]) -> Vec<&'a str> {
    cells.last().map(|last| last.split('`').skip(1).step_by(2).collect()).unwrap_or_default()
}

fn collect(folder: &Path, sources: &mut String) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_the_last_column_alone() {
        let text =
            "| § | what | test |\n| --- | --- | --- |\n| 1 | `key` | `a_test`, `another` |\n| 2 | x | |\n";
        assert_eq!(tests_named_in(text), ["a_test", "another"]);
    }

    #[test]
    fn what_is_kept_of_rfc_7915_has_a_test() {
        let row = |state, test| format!("| 4.1 | what | {state} | `case` | {test} |\n");
        let ledger = |rows: &str| {
            format!(
                "## RFC 6052\n{rows}## RFC 7915: x\n\n| § | what | state | cases | test |\n| --- |\n{rows}## Other\n{rows}"
            )
        };
        for (row, is_tested) in [
            (row("kept", "`a_test`"), true),
            (row("kept, but **not** for 0", "`a_test`"), true),
            (row("**not**", ""), true),
            (row("kept", ""), false),
            (row("not", "a_test"), false),
        ] {
            let text = ledger(&row);
            let untested = untested_in(&text);
            assert_eq!(untested.is_empty(), is_tested, "{row}");
            assert!(untested.len() <= 1, "the other sections are not looked at");
        }
    }
}
