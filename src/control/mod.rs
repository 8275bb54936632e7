//! The control socket's language, and the command that speaks it.
//!
//! A unix stream socket. Each request is one line with one JSON object, each answer one line with another:
//!
//! ```text
//! {"id": 1, "command": "list-sessions", "host": "2001:db8::/64", "limit": 10}
//! {"version": 1, "id": 1, "ok": {"sessions": [...], "truncated": false}}
//! {"version": 1, "id": 1, "error": {"kind": "bad_request", "message": "unknown field `hots`, expected ..."}}
//! ```
//!
//! `id` is whatever the client likes, and comes back; `version` may be left out. Requests on one connection are answered in
//! their order.

pub mod client;
mod command;
mod table;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use command::{
    Blocks, Command, DropLease, DropSession, Forward, Leases, Limit, Mapping, Pair, Sessions, State,
};

/// The version of the language.
pub const VERSION: u64 = 1;

/// The longest request, in bytes.
pub const LONGEST_REQUEST: usize = 64 << 10;

/// What kind of error it is, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request says something that means nothing.
    BadRequest,
    /// It is of another version of the language.
    Version,
    /// The peer may not ask.
    Forbidden,
    /// What it names is not there.
    NotFound,
    /// What it wants cannot be, as things are.
    Conflict,
    /// Who would have to do it is not there just now: try again.
    Unavailable,
}

/// Why a request has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind.
    pub kind: ErrorKind,
    /// What was wrong, and what to do.
    pub message: String,
}

impl Failure {
    /// One of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// A line of the router.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The version of the language.
    pub version: u64,
    /// The `id` of the request; null where it had none that could be read.
    pub id: Value,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was done, and this is to be said about it.
    Ok(Value),
    /// It was not done.
    Error(Failure),
}

impl Answer {
    /// The answer to the request with this id.
    pub fn new(id: Value, result: Result<Value, Failure>) -> Self {
        let outcome = match result {
            Ok(value) => Outcome::Ok(value),
            Err(failure) => Outcome::Error(failure),
        };
        Self { version: VERSION, id, outcome }
    }
}

/// Reads a request: its id, and what it wants, or why that cannot be told.
pub fn read_request(line: &str) -> (Value, Result<Command, Failure>) {
    let bad = |message: String| Failure::new(ErrorKind::BadRequest, message);
    let mut request: Map<String, Value> = match serde_json::from_str(line) {
        Ok(Value::Object(request)) => request,
        Ok(_) => {
            let message = "a request is a JSON object, like {\"command\": \"status\"}";
            return (Value::Null, Err(bad(message.to_owned())));
        }
        Err(error) => return (Value::Null, Err(bad(format!("not JSON: {error}; write one object a line")))),
    };
    let id = request.remove("id").unwrap_or(Value::Null);
    match request.remove("version") {
        None => {}
        Some(version) if version == VERSION => {}
        Some(version) => {
            let message = format!("version {version} is not spoken here; this router speaks {VERSION}");
            return (id, Err(Failure::new(ErrorKind::Version, message)));
        }
    }
    if !request.contains_key("command") {
        return (id, Err(bad("the request has no \"command\"".to_owned())));
    }
    (id, serde_json::from_value(Value::Object(request)).map_err(|error| bad(error.to_string())))
}

/// A request, as a line.
pub fn write_request(id: u64, command: &Command) -> serde_json::Result<String> {
    let mut request = serde_json::to_value(command)?;
    if let Value::Object(fields) = &mut request {
        fields.retain(|_, value| !value.is_null());
        fields.insert("id".to_owned(), id.into());
        fields.insert("version".to_owned(), VERSION.into());
    }
    Ok(request.to_string())
}

#[cfg(test)]
mod tests;
