//! What the router logs, as JSON.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;

/// So many records are kept; far more than any test causes.
const KEPT: usize = 50_000;

/// The records so far, and the thread that reads them.
#[derive(Debug)]
pub(crate) struct Log {
    records: Arc<Mutex<Vec<Record>>>,
    reader: Option<JoinHandle<()>>,
}

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) line: String,
    /// The line as JSON; `None` if it is none.
    pub(crate) json: Option<Value>,
}

impl Record {
    /// A field as text, without quotes; empty if there is none.
    pub(crate) fn field(&self, name: &str) -> String {
        match self.json.as_ref().and_then(|json| json.get(name)) {
            None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }

    pub(crate) fn msg(&self) -> String {
        self.field("msg")
    }
}

impl Log {
    pub(crate) fn read(stderr: impl Read + Send + 'static) -> Self {
        let records = Arc::new(Mutex::new(Vec::new()));
        let reader = std::thread::spawn({
            let records = Arc::clone(&records);
            move || {
                for line in BufReader::new(stderr).lines() {
                    let Ok(line) = line else { return };
                    let json = serde_json::from_str(&line).ok();
                    let mut records = records.lock().unwrap();
                    if records.len() < KEPT {
                        records.push(Record { line, json });
                    }
                }
            }
        });
        Self { records, reader: Some(reader) }
    }

    /// All records so far.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap().clone()
    }

    /// The records with this message.
    pub(crate) fn with_msg(&self, msg: &str) -> Vec<Record> {
        self.records().into_iter().filter(|record| record.msg() == msg).collect()
    }

    /// All lines, for the message of a failed test.
    pub(crate) fn text(&self) -> String {
        self.records().into_iter().map(|record| record.line + "\n").collect()
    }

    /// Reads what is left, after the process has ended.
    pub(crate) fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}
