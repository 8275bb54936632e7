//! `protomask ctl` of a laboratory.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::{Lab, PATIENCE};

/// Asks the router by the program itself. The error is what it prints.
pub(crate) fn try_ctl(lab: &Lab, arguments: &[&str]) -> Result<Value, String> {
    let ended = lab.run_to_end(&[&["ctl", "--json"], arguments].concat());
    match ended.code {
        Some(0) => Ok(serde_json::from_str(&ended.stdout).expect("JSON")),
        Some(1) => Err(ended.stderr),
        code => panic!("{arguments:?}: {code:?} {}", ended.stderr),
    }
}

/// The same where it has to work.
pub(crate) fn ctl(lab: &Lab, arguments: &[&str]) -> Value {
    try_ctl(lab, arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
}

/// A list of an answer.
pub(crate) fn list(answer: &Value, name: &str) -> Vec<Value> {
    answer[name].as_array().unwrap_or_else(|| panic!("no list {name} in {answer}")).clone()
}

/// A connection to the default socket.
pub(crate) struct Connection(BufReader<UnixStream>);

impl Connection {
    pub(crate) fn open(lab: &Lab) -> Self {
        // By way of the directory: the path of a socket may have 107 bytes.
        let directory = std::fs::File::open(lab.run_directory().join("protomask")).unwrap();
        let path = format!("/proc/self/fd/{}/nat64.sock", directory.as_raw_fd());
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// The next answer; `None`: the router has closed the connection.
    pub(crate) fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        let length = self.0.read_line(&mut line).unwrap();
        (length > 0).then(|| serde_json::from_str(&line).expect("JSON"))
    }

    pub(crate) fn ask(&mut self, request: &str) -> Value {
        self.send(&format!("{request}\n"));
        self.next().expect("an answer")
    }

    /// For what takes longer than a test waits otherwise: nothing has come for so long.
    pub(crate) fn is_silent(&mut self, time: std::time::Duration) -> bool {
        self.0.get_ref().set_read_timeout(Some(time)).unwrap();
        let silent = self.0.fill_buf().is_err();
        self.0.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }
}
