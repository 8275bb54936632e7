//! Small files that are written as a whole: a first line with name, version and checksum (CRC-32), and JSON behind it.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The file of this name and version that says so.
pub(super) fn write(name: &str, version: u16, body: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(body)?;
    let mut file = first_line(name, version, &body).into_bytes();
    file.extend_from_slice(&body);
    Ok(file)
}

/// What a file says; or why it is not to be trusted.
pub(super) fn read<T: DeserializeOwned>(name: &str, version: u16, file: &[u8]) -> Result<T, String> {
    let end = file.iter().position(|byte| *byte == b'\n').ok_or("it ends within its first line")?;
    let (line, body) = file.split_at(end + 1);
    if line != first_line(name, version, body).as_bytes() {
        return Err(why_not(name, version, line));
    }
    serde_json::from_slice(body).map_err(|error| format!("it makes no sense: {error}"))
}

pub(super) fn first_line(name: &str, version: u16, body: &[u8]) -> String {
    format!("{name} {version} {:08x}\n", crc32fast::hash(body))
}

/// What is wrong with a first line that is not the one that belongs to what follows.
fn why_not(name: &str, version: u16, line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let Some(rest) = text.strip_prefix(name) else { return "it is not a file of this program".to_owned() };
    match rest.trim().split_once(' ').and_then(|(version, _)| version.parse::<u16>().ok()) {
        Some(known) if known == version => "its checksum is wrong".to_owned(),
        Some(other) => format!("it is of version {other}, and this program reads {version}"),
        None => "its first line is damaged".to_owned(),
    }
}
