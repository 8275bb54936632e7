//! Reads the configuration file, and reports all that is wrong with it, not just the first thing.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::text::{DurationText, Text};
use super::{Partial, Place, Placed, PoolSettings, Problem, Problems, StaticPair};

/// A file longer than this is not a configuration.
const LONGEST_FILE: u64 = 4 << 20;

/// Reads a file. What could be read comes along with the problems, so that the values can be checked against each other
/// as well.
pub fn read(path: &Path) -> Result<(Partial, Vec<Problem>), Problems> {
    let unreadable = |source| Problems::Unreadable { path: path.to_owned(), source };
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length > LONGEST_FILE {
        let what = format!("{length} bytes are more than a configuration may have ({LONGEST_FILE})");
        return Err(unreadable(std::io::Error::other(what)));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    Ok(parse(path, &text))
}

/// Reads the text of a file.
pub(super) fn parse(path: &Path, text: &str) -> (Partial, Vec<Problem>) {
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
    fn all(&mut self, table: DeTable<'t>) -> Partial {
        let mut top = Section { name: "", table, known: Vec::new() };
        let mut partial = Partial {
            interface: self.value(&mut top, "interface"),
            translation_prefix: self.text_value(&mut top, "translation_prefix"),
            reservation_timeout: self.duration(&mut top, "reservation_timeout"),
            address_rest: self.duration(&mut top, "address_rest"),
            max_leases_per_subnet: self.value(&mut top, "max_leases_per_subnet"),
            num_queues: self.value(&mut top, "num_queues"),
            mtu: self.value(&mut top, "mtu"),
            allow_from: self.list::<Ipv6Net>(&mut top, "allow_from"),
            deny_to: self.list::<Ipv4Net>(&mut top, "deny_to"),
            allow_non_global: self.value(&mut top, "allow_non_global"),
            icmp_source_v4: self.text_value(&mut top, "icmp_source_v4"),
            icmp_source_v6: self.text_value(&mut top, "icmp_source_v6"),
            icmp_errors_per_second: self.value(&mut top, "icmp_errors_per_second"),
            icmp_router_pool: self.text_value(&mut top, "icmp_router_pool"),
            enable_forwarding: self.value(&mut top, "enable_forwarding"),
            on_exit: self.value(&mut top, "on_exit"),
            prometheus: self.text_value(&mut top, "prometheus"),
            ..Partial::default()
        };
        if let Some(mut log) = self.section(&mut top, "log") {
            partial.log_format = self.value(&mut log, "format");
            partial.log_level = self.value(&mut log, "level");
            self.unknown(&log);
        }
        if let Some(mut translation) = self.section(&mut top, "translation") {
            partial.lowest_ipv6_mtu = self.value(&mut translation, "lowest_ipv6_mtu");
            partial.traffic_class = self.text_value(&mut translation, "traffic_class");
            partial.udp_zero_checksum = self.text_value(&mut translation, "udp_zero_checksum");
            self.unknown(&translation);
        }
        if let Some(mut hold) = self.section(&mut top, "hold") {
            partial.hold_packets_per_host = self.value(&mut hold, "packets_per_host");
            partial.hold_hosts = self.value(&mut hold, "hosts");
            partial.hold_timeout = self.duration(&mut hold, "timeout");
            self.unknown(&hold);
        }
        let mut pools = Vec::new();
        for (span, mut section) in self.sections(&mut top, "pool") {
            let net: Option<Placed<Ipv4Net>> = self.text_value(&mut section, "prefix");
            let masquerade = self.value(&mut section, "masquerade").is_some_and(|placed| placed.value);
            if let Some(Placed { value: net, place }) = self.required(net, &section, "prefix", span) {
                pools.push(Placed { value: PoolSettings { net, masquerade }, place });
            }
            self.unknown(&section);
        }
        partial.pools = (!pools.is_empty()).then_some(pools);
        for (span, mut section) in self.sections(&mut top, "static") {
            let address = self.text_value(&mut section, "address");
            let host = self.text_value(&mut section, "host");
            let address = self.required(address, &section, "address", span.clone());
            let host = self.required(host, &section, "host", span);
            if let (Some(address), Some(host)) = (address, host) {
                let value = StaticPair { address: address.value, host: host.value };
                partial.static_pairs.push(Placed { value, place: address.place });
            }
            self.unknown(&section);
        }
        self.unknown(&top);
        partial
    }

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
        self.value::<Text<T>>(section, key).map(|Placed { value, place }| Placed { value: value.0, place })
    }

    fn duration(
        &mut self,
        section: &mut Section<'t>,
        key: &'static str,
    ) -> Option<Placed<std::time::Duration>> {
        let placed = self.value::<DurationText>(section, key);
        placed.map(|Placed { value, place }| Placed { value: value.0, place })
    }

    fn list<T>(&mut self, section: &mut Section<'t>, key: &'static str) -> Option<Vec<Placed<T>>>
    where
        Text<T>: DeserializeOwned,
    {
        let value = section.take(key)?;
        let span = value.span();
        let DeValue::Array(items) = value.into_inner() else {
            self.problem(span, format!("{key}: a list is expected, like {key} = [\"...\", \"...\"]"));
            return None;
        };
        let read = items.into_iter().filter_map(|item| self.read::<Text<T>>(key, item));
        Some(read.map(|Placed { value, place }| Placed { value: value.0, place }).collect())
    }

    fn section(&mut self, parent: &mut Section<'t>, key: &'static str) -> Option<Section<'t>> {
        let value = parent.take(key)?;
        let span = value.span();
        let DeValue::Table(table) = value.into_inner() else {
            self.problem(span, format!("{key}: a table is expected; write [{key}]"));
            return None;
        };
        Some(Section { name: key, table, known: Vec::new() })
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
