//! Lines: each is written with one call, so that lines of several processes on one stderr do not mix, and a text from
//! elsewhere cannot end a line or steer a terminal.

use std::cell::RefCell;
use std::io::{self, Write};

use slog::{Level, OwnedKVList, Record};
use slog_term::{Decorator, RecordDecorator};

use super::format::Sink;

/// Gathers a line and writes it at the flush.
pub(super) struct Line {
    sink: Box<dyn Write + Send>,
    line: Vec<u8>,
}

impl Line {
    pub(super) fn new(sink: Box<dyn Write + Send>) -> Self {
        Self { sink, line: Vec::with_capacity(512) }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// The line is gone afterwards, whether it could be written or not.
    fn flush(&mut self) -> io::Result<()> {
        let written = self.sink.write_all(&self.line).and_then(|()| self.sink.flush());
        self.line.clear();
        written
    }
}

/// Terminal lines, in colours or without.
pub(super) struct LineDecorator {
    line: RefCell<Line>,
    colours: bool,
}

impl LineDecorator {
    pub(super) fn new(sink: Sink) -> Self {
        Self { line: RefCell::new(Line::new(sink.out)), colours: sink.colours }
    }
}

impl Decorator for LineDecorator {
    fn with_record<F>(&self, record: &Record<'_>, _: &OwnedKVList, write: F) -> io::Result<()>
    where
        F: FnOnce(&mut dyn RecordDecorator) -> io::Result<()>,
    {
        let mut line = self.line.borrow_mut();
        line.line.clear();
        write(&mut LineOf { line: &mut line, level: record.level(), colours: self.colours, own: true })
    }
}

/// The line of one record.
struct LineOf<'l> {
    line: &'l mut Line,
    level: Level,
    colours: bool,
    /// What comes now is the formatter's own text, and not somebody's message or value.
    own: bool,
}

impl LineOf<'_> {
    fn style(&mut self, code: &str, own: bool) {
        self.own = own;
        if self.colours {
            self.line.line.extend_from_slice(b"\x1b[");
            self.line.line.extend_from_slice(code.as_bytes());
            self.line.line.push(b'm');
        }
    }
}

impl Write for LineOf<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.own {
            return self.line.write(bytes);
        }
        for &byte in bytes {
            if byte.is_ascii_control() {
                self.line.line.extend(std::ascii::escape_default(byte));
            } else {
                self.line.line.push(byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.line.flush()
    }
}

impl RecordDecorator for LineOf<'_> {
    fn reset(&mut self) -> io::Result<()> {
        self.style("0", true);
        Ok(())
    }

    fn start_timestamp(&mut self) -> io::Result<()> {
        self.style("2", true);
        Ok(())
    }

    fn start_level(&mut self) -> io::Result<()> {
        let code = match self.level {
            Level::Critical => "0;1;35",
            Level::Error => "0;1;31",
            Level::Warning => "0;33",
            Level::Info => "0;32",
            Level::Debug => "0;36",
            Level::Trace => "0;34",
        };
        self.style(code, true);
        Ok(())
    }

    fn start_msg(&mut self) -> io::Result<()> {
        self.style("0;1", false);
        Ok(())
    }

    fn start_key(&mut self) -> io::Result<()> {
        self.style("0;2", false);
        Ok(())
    }

    fn start_value(&mut self) -> io::Result<()> {
        self.style("0", false);
        Ok(())
    }
}
