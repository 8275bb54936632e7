//! The connection between a router and the one that takes over from it: the control socket's, from the request on.
//!
//! ```text
//!  next                                                     running
//!    {"command": "hand-over", "handover": 1}  ──────────▶     ends its concerns, writes the last of the state
//!                              ◀──────────  {"ok": {"handing_over": {...}}}, then the descriptors
//!    sets up, puts the state back
//!    taken, with what it has taken over       ──────────▶     does not go on whatever happens
//!                                             ◀──────────  gone
//!    starts its concerns                                      ends, and leaves everything
//! ```
//!
//! Until the running one has read `taken`, it goes on with everything as it was, if the connection ends or time is up. Until the next one
//! has read `gone`, it must not start.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::descriptors;

/// The version of this way of handing over.
pub(super) const VERSION: u16 = 1;

/// How long the next router may take from the descriptors to `taken`: it puts the state back, a million sessions in some seconds.
const SETTING_UP: Duration = Duration::from_mins(2);

/// How long the running one may take to end its concerns and to write the last of its state.
const ENDING: Duration = Duration::from_secs(30);

/// How long anything else may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A longer line is none.
const LONGEST_LINE: usize = 64 << 10;

/// What is handed over; the descriptors come in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Of whom.
    pub(super) pid: u32,
    /// Queues of the device.
    pub(super) queues: usize,
    /// The listener of metrics.
    pub(super) metrics: bool,
    /// The listener of the control socket.
    pub(super) control: bool,
    /// The lock of the state folder.
    pub(super) lock: bool,
}

impl Manifest {
    fn descriptors(&self) -> usize {
        self.queues + usize::from(self.metrics) + usize::from(self.control) + usize::from(self.lock)
    }
}

/// What the next router says in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    /// The control socket's file is its own now.
    pub(super) control: bool,
}

/// One end of it.
#[derive(Debug)]
pub(super) struct Link(UnixStream);

impl Link {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// A line, as far as it comes in time. It is read byte by byte: descriptors come behind it, and would be lost with bytes too many.
    fn line(&mut self, patience: Duration) -> io::Result<String> {
        let deadline = Instant::now() + patience;
        let mut line = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.0.set_read_timeout(Some(left))?;
            let mut byte = [0];
            match self.0.read(&mut byte) {
                Ok(0) => return Err(io::Error::other("it has closed the connection")),
                Ok(_) if byte == *b"\n" => break,
                Ok(_) if line.len() >= LONGEST_LINE => return Err(io::Error::other("its line is too long")),
                Ok(_) => line.extend(byte),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        }
        String::from_utf8(line).map_err(io::Error::other)
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        self.0.write_all(format!("{line}\n").as_bytes())
    }

    /// Next: asks for it, and waits until the other one has stopped.
    pub(super) fn ask(&mut self) -> io::Result<Manifest> {
        self.say(&format!("{{\"command\":\"hand-over\",\"handover\":{VERSION}}}"))?;
        self.hear()
    }

    fn hear(&mut self) -> io::Result<Manifest> {
        let line = self.line(ENDING)?;
        let answer: serde_json::Value = serde_json::from_str(&line)?;
        if let Some(message) = answer["error"]["message"].as_str() {
            return Err(io::Error::other(message));
        }
        Ok(serde_json::from_value(answer["ok"]["handing_over"].clone())?)
    }

    /// Running: says what there is, and sends it.
    pub(super) fn give(&mut self, manifest: &Manifest, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let answer =
            serde_json::json!({ "version": crate::control::VERSION, "ok": { "handing_over": manifest } });
        self.say(&answer.to_string())?;
        for some in descriptors.chunks(descriptors::MOST) {
            descriptors::send(self.0.as_fd(), None, b"+", some)?;
        }
        Ok(())
    }

    /// Next: receives it.
    pub(super) fn receive(&mut self, manifest: &Manifest) -> io::Result<Vec<OwnedFd>> {
        let mut all = Vec::new();
        self.0.set_read_timeout(Some(PATIENCE))?;
        while all.len() < manifest.descriptors() {
            let (length, some) = descriptors::receive(self.0.as_fd(), &mut [0])?;
            if length == 0 || some.is_empty() {
                return Err(io::Error::other("it has not sent all descriptors"));
            }
            all.extend(some);
        }
        if all.len() > manifest.descriptors() {
            return Err(io::Error::other("it has sent more descriptors than it said"));
        }
        Ok(all)
    }

    /// Next: it is set up. From the answer on the other one does not go on.
    pub(super) fn settle(&mut self, taken: Taken) -> io::Result<()> {
        self.say(&serde_json::to_string(&taken)?)?;
        match self.line(PATIENCE)?.as_str() {
            "gone" => Ok(()),
            other => Err(io::Error::other(format!("it has said {other:?}"))),
        }
    }

    /// Running: waits for that. With an error it goes on.
    pub(super) fn wait(&mut self) -> io::Result<Taken> {
        let taken = serde_json::from_str(&self.line(SETTING_UP)?)?;
        self.say("gone")?;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Link, Link) {
        let (one, other) = UnixStream::pair().unwrap();
        (Link::new(one).unwrap(), Link::new(other).unwrap())
    }

    fn manifest(queues: usize) -> Manifest {
        Manifest { pid: 1, queues, metrics: true, control: true, lock: true }
    }

    #[test]
    fn many_descriptors_come_in_their_order_and_the_running_one_ends_with_the_word() {
        let (mut next, mut running) = pair();
        // More than fit one message.
        let files: Vec<_> = (0..203_u32)
            .map(|n| {
                let (read, mut write) = io::pipe().unwrap();
                write.write_all(&n.to_le_bytes()).unwrap();
                read
            })
            .collect();
        let giving = std::thread::spawn(move || {
            let asked = running.line(PATIENCE).unwrap();
            assert_eq!(asked, "{\"command\":\"hand-over\",\"handover\":1}");
            running.give(&manifest(200), &files.iter().map(|file| file.as_fd()).collect::<Vec<_>>()).unwrap();
            running.wait().unwrap()
        });
        let said = next.ask().unwrap();
        assert_eq!(said, manifest(200));
        for (n, descriptor) in next.receive(&said).unwrap().into_iter().enumerate() {
            let mut number = [0; 4];
            std::fs::File::from(descriptor).read_exact(&mut number).unwrap();
            assert_eq!(u32::from_le_bytes(number) as usize, n);
        }
        next.settle(Taken { control: true }).unwrap();
        assert_eq!(giving.join().unwrap(), Taken { control: true });
    }

    #[test]
    fn a_refusal_is_an_error_in_its_words() {
        let (mut next, mut running) = pair();
        running.say("{\"version\":1,\"error\":{\"kind\":\"conflict\",\"message\":\"not now\"}}").unwrap();
        assert_eq!(next.ask().unwrap_err().to_string(), "not now");
    }

    #[test]
    fn an_end_that_goes_away_in_any_state_is_an_error_of_the_other() {
        for step in 0..4 {
            let (mut next, mut running) = pair();
            if step > 0 {
                let null = std::fs::File::open("/dev/null").unwrap();
                let what = if step > 1 { vec![null.as_fd(); 4] } else { Vec::new() };
                running.give(&manifest(1), &what).unwrap();
            }
            if step < 3 {
                drop(running);
                let outcome = next.hear().and_then(|manifest| next.receive(&manifest));
                assert_eq!(outcome.is_ok(), step == 2, "{step}: {outcome:?}");
                assert!(next.settle(Taken { control: false }).is_err(), "nobody says that it is gone");
            } else {
                drop(next);
                assert!(running.wait().is_err());
            }
        }
    }

    #[test]
    fn any_other_word_than_gone_is_none() {
        let (mut next, mut running) = pair();
        running.say("going").unwrap();
        let error = next.settle(Taken { control: false }).unwrap_err();
        assert_eq!(error.to_string(), "it has said \"going\"");
    }
}
