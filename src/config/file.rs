//! Reads the configuration file, and reports all that is wrong with it, not just the first thing.

mod keys;

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::text::{DurationText, Text};
use super::{Partial, Place, Placed, Problem, Problems};

/// A file longer than this is not a configuration.
const LONGEST_FILE: u64 = 4 << 20;

/// Reads a file. What could be read comes along with the problems, so that the values can be checked against each other
/// as well.
pub fn read(path: &Path) -> Result<(Partial, Vec<Problem>), Problems> {
    Ok(parse(path, &read_text(path)?))
}

/// The text of a file, if that can be a configuration.
pub fn read_text(path: &Path) -> Result<String, Problems> {
    let unreadable = |source| Problems::Unreadable { path: path.to_owned(), source };
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length > LONGEST_FILE {
        let what = format!("{length} bytes are more than a configuration may have ({LONGEST_FILE})");
        return Err(unreadable(std::io::Error::other(what)));
    }
    fs::read_to_string(path).map_err(unreadable)
}

/// Reads the text of a file. What could be read comes along with the problems.
pub fn parse(path: &Path, text: &str) -> (Partial, Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { path: path.into(), text, problems: Vec::new() };
    for error in errors {
        reader.problem(error.span().unwrap_or_default(), error.message().to_owned());
    }
    let partial = reader.all(table.into_inner());
    reader.problems.sort_by_key(|problem| match problem.place {
        Place::File { line, column, .. } => (line, column),
        Place::Flag(_) => (0, 0),
    });
    (partial, reader.problems)
}

struct Reader<'t> {
    path: Arc<Path>,
    text: &'t str,
    problems: Vec<Problem>,
}

/// A table whose keys are taken out one by one; what is left in the end is unknown.
struct Section<'t> {
    name: &'static str,
    table: DeTable<'t>,
    /// The keys asked for so far, and whether they were there.
    known: Vec<(&'static str, bool)>,
}

impl<'t> Section<'t> {
    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'t>>> {
        let value = self.table.remove(key);
        self.known.push((key, value.is_some()));
        value
    }

    fn had(&self, key: &str) -> bool {
        self.known.iter().any(|(known, there)| *known == key && *there)
    }
}

impl<'t> Reader<'t> {
    fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Place::File { path: Arc::clone(&self.path), line, column }
    }

    fn problem(&mut self, span: Range<usize>, message: String) {
        let place = self.place(&span);
        self.problems.push(Problem { place, message });
    }

    fn read<T: DeserializeOwned>(&mut self, key: &str, value: Spanned<DeValue<'t>>) -> Option<Placed<T>> {
        let span = value.span();
        let place = self.place(&span);
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(Placed { value, place }),
            Err(error) => {
                self.problem(error.span().unwrap_or(span), format!("{key}: {}", error.message()));
                None
            }
        }
    }

    fn value<T: DeserializeOwned>(
        &mut self,
        section: &mut Section<'t>,
        key: &'static str,
    ) -> Option<Placed<T>> {
        let value = section.take(key)?;
        self.read(key, value)
    }

    fn text_value<T>(&mut self, section: &mut Section<'t>, key: &'static str) -> Option<Placed<T>>
    where
        Text<T>: DeserializeOwned,
    {
        self.value::<Text<T>>(section, key).map(|placed| placed.map(|text| text.0))
    }

    fn duration(
        &mut self,
        section: &mut Section<'t>,
        key: &'static str,
    ) -> Option<Placed<std::time::Duration>> {
        self.value::<DurationText>(section, key).map(|placed| placed.map(|text| text.0))
    }

    fn read_text<T>(&mut self, key: &str, value: Spanned<DeValue<'t>>) -> Option<Placed<T>>
    where
        Text<T>: DeserializeOwned,
    {
        self.read::<Text<T>>(key, value).map(|placed| placed.map(|text| text.0))
    }

    fn list<T>(&mut self, section: &mut Section<'t>, key: &'static str) -> Option<Vec<Placed<T>>>
    where
        Text<T>: DeserializeOwned,
    {
        self.placed_list(section, key, Self::read_text::<T>).map(|placed| placed.value)
    }

    /// A list, and where it begins.
    fn placed_list<T>(
        &mut self,
        section: &mut Section<'t>,
        key: &'static str,
        read: impl Fn(&mut Self, &str, Spanned<DeValue<'t>>) -> Option<Placed<T>>,
    ) -> Option<Placed<Vec<Placed<T>>>> {
        let value = section.take(key)?;
        let span = value.span();
        let DeValue::Array(items) = value.into_inner() else {
            self.problem(span, format!("{key}: a list is expected, like {key} = [\"...\", \"...\"]"));
            return None;
        };
        let is_empty = items.is_empty();
        let value: Vec<_> = items.into_iter().filter_map(|item| read(self, key, item)).collect();
        // Where nothing could be read, that has been said; it is not an empty list.
        (is_empty || !value.is_empty()).then(|| Placed { value, place: self.place(&span) })
    }

    /// One text, or a list that is not empty.
    fn one_or_more<T>(&mut self, section: &mut Section<'t>, key: &'static str) -> Option<Vec<Placed<T>>>
    where
        Text<T>: DeserializeOwned,
    {
        if !matches!(section.table.get(key).map(Spanned::get_ref), Some(DeValue::Array(_))) {
            return self.text_value(section, key).map(|placed| vec![placed]);
        }
        let span = section.table.get(key).map(Spanned::span).unwrap_or_default();
        if matches!(section.table.get(key).map(Spanned::get_ref), Some(DeValue::Array(items)) if items.is_empty())
        {
            self.problem(span, format!("{key}: the list is empty; leave the line out for the default"));
        }
        self.list(section, key)
    }

    fn section(&mut self, parent: &mut Section<'t>, key: &'static str) -> Option<Section<'t>> {
        self.placed_section(parent, key).map(|(_, section)| section)
    }

    /// A table, and where it begins.
    fn placed_section(
        &mut self,
        parent: &mut Section<'t>,
        key: &'static str,
    ) -> Option<(Place, Section<'t>)> {
        let value = parent.take(key)?;
        let span = value.span();
        let DeValue::Table(table) = value.into_inner() else {
            self.problem(span, format!("{key}: a table is expected; write [{key}]"));
            return None;
        };
        Some((self.place(&span), Section { name: key, table, known: Vec::new() }))
    }

    fn sections(&mut self, parent: &mut Section<'t>, key: &'static str) -> Vec<(Range<usize>, Section<'t>)> {
        let Some(value) = parent.take(key) else { return Vec::new() };
        let span = value.span();
        let DeValue::Array(items) = value.into_inner() else {
            self.problem(span, format!("{key}: a list of tables is expected; write [[{key}]] for each"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items {
            let span = item.span();
            match item.into_inner() {
                DeValue::Table(table) => {
                    sections.push((span, Section { name: key, table, known: Vec::new() }));
                }
                _ => self.problem(span, format!("{key}: a table is expected; write [[{key}]]")),
            }
        }
        sections
    }

    /// A value that its section cannot do without. One that was given and is wrong has been reported already.
    fn required<T>(
        &mut self,
        value: Option<Placed<T>>,
        section: &Section<'t>,
        key: &'static str,
        span: Range<usize>,
    ) -> Option<Placed<T>> {
        if value.is_none() && !section.had(key) {
            self.problem(span, format!("{} needs {key}", section.name));
        }
        value
    }

    fn unknown(&mut self, section: &Section<'t>) {
        for key in section.table.keys() {
            let within =
                if section.name.is_empty() { String::new() } else { format!(" in {}", section.name) };
            let known: Vec<_> = section.known.iter().map(|(known, _)| *known).collect();
            let message = format!("unknown key {}{within}; known here: {}", key.get_ref(), known.join(", "));
            self.problem(key.span(), message);
        }
    }
}
