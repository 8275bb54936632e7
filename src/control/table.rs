//! Answers for people: a list as a table, anything else as names and values.

use std::io::{self, Write};

use serde_json::{Map, Value};

/// Writes an answer: its plain values first, then each list of objects as a table.
pub(super) fn write(answer: &Value, out: &mut impl Write) -> io::Result<()> {
    let Value::Object(fields) = answer else { return writeln!(out, "{}", text(answer)) };
    let (lists, values): (Vec<_>, Vec<_>) = fields.iter().partition(|(_, value)| is_table(value));
    let width = values.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, value) in values {
        if name == "truncated" {
            continue;
        }
        match value {
            Value::Array(items) if !items.is_empty() => {
                for item in items {
                    writeln!(out, "{name:width$}  {}", text(item))?;
                }
            }
            _ => writeln!(out, "{name:width$}  {}", text(value))?,
        }
    }
    for (_, list) in lists {
        let Value::Array(items) = list else { continue };
        table(&items.iter().filter_map(Value::as_object).collect::<Vec<_>>(), out)?;
    }
    if fields.get("truncated") == Some(&Value::Bool(true)) {
        writeln!(out, "... and more: narrow it down, or raise --limit")?;
    }
    Ok(())
}

fn is_table(value: &Value) -> bool {
    matches!(value, Value::Array(items) if items.first().is_some_and(Value::is_object))
}

fn table(rows: &[&Map<String, Value>], out: &mut impl Write) -> io::Result<()> {
    let mut names: Vec<&str> = Vec::new();
    for name in rows.iter().flat_map(|row| row.keys()) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let cell = |row: &Map<String, Value>, name: &str| row.get(name).map_or_else(String::new, text);
    let widths: Vec<_> = names
        .iter()
        .map(|name| rows.iter().map(|row| cell(row, name).chars().count()).max().unwrap_or(0).max(name.len()))
        .collect();
    let mut line = |cells: Vec<String>| {
        let padded: Vec<_> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", padded.join("  ").trim_end())
    };
    line(names.iter().map(|name| name.to_uppercase()).collect())?;
    rows.iter().try_for_each(|row| line(names.iter().map(|name| cell(row, name)).collect()))
}

/// A value on one line, without quotes.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        // What came from elsewhere must not move the cursor.
        Value::String(text) => text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("{name}={}", text(value))).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}
