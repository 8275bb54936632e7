//! `docs/rfc-compliance.md` must not name a test that is not there.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::project::Project;

const LEDGER: &str = "docs/rfc-compliance.md";

/// Where tests are.
const ROOTS: [&str; 3] = ["src", "crates", "tests"];

pub(crate) fn ledger(project: &Project) -> Result<()> {
    let root = project.shell.current_dir();
    let text = fs::read_to_string(root.join(LEDGER)).context(LEDGER)?;
    let named = tests_named_in(&text);
    ensure!(!named.is_empty(), "{LEDGER} names no test at all; has its form changed?");
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
    let rows = text.lines().filter(|line| line.starts_with("| ") && line.ends_with('|'));
    let last = rows.filter_map(|row| row.trim_end_matches('|').rsplit('|').next());
    let mut names: Vec<_> = last.flat_map(|column| column.split('`').skip(1).step_by(2)).collect();
    names.sort_unstable();
    names.dedup();
    names
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
}
