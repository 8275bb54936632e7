//! Connections: a bounded number, of users who may ask, with bounded lines and times.

use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use slog::{Logger, debug, warn};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};

use super::answers;
use crate::control::{Answer, Command, ErrorKind, Failure, LONGEST_REQUEST, read_request};
use crate::shared::Shared;
use crate::supervision::Birth;

type Lines = Framed<UnixStream, LinesCodec>;

/// How long to wait when the kernel gives no connection (too many open files, for one).
const AFTER_AN_ERROR: Duration = Duration::from_secs(1);

/// What one client, or all of them, may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections at a time; further ones wait in the listener's backlog.
    pub(super) connections: usize,
    /// How long a client may be silent between requests, and how long it may take to read an answer.
    pub(super) patience: Duration,
    /// Lists that are made at a time: until it is text, one of 10,000 entries takes some 20 MiB.
    pub(super) lists: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections: 16, patience: Duration::from_secs(30), lists: 2 }
    }
}

/// What a connection needs.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) shared: Arc<Shared>,
    pub(super) birth: Birth,
    pub(super) bounds: Bounds,
    pub(super) log: Logger,
}

impl Server {
    /// Serves until the runtime ends, or until this incarnation has been replaced.
    pub(super) async fn serve(self, listener: UnixListener) {
        let seats = Arc::new(Semaphore::new(self.bounds.connections));
        let lists = Arc::new(Semaphore::new(self.bounds.lists));
        while let Ok(seat) = Arc::clone(&seats).acquire_owned().await {
            let accepted = listener.accept().await;
            // A connection that a zombie takes ends at once, and its client asks again.
            if !self.birth.is_current() {
                return;
            }
            match accepted {
                Ok((stream, _)) => {
                    let (server, lists) = (self.clone(), Arc::clone(&lists));
                    self.birth.spawn(async move {
                        server.talk(stream, &lists).await;
                        drop(seat);
                    });
                }
                Err(error) => {
                    warn!(self.log, "no connection can be taken just now"; "because" => %error);
                    sleep(AFTER_AN_ERROR).await;
                }
            }
        }
    }

    async fn talk(&self, stream: UnixStream, lists: &Semaphore) {
        let peer = stream.peer_cred();
        let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(LONGEST_REQUEST));
        if let Err(message) = may_ask(peer.ok().as_ref(), nix::unistd::geteuid().as_raw()) {
            warn!(self.log, "refused a control connection"; "because" => &message);
            let failure = Failure::new(ErrorKind::Forbidden, message);
            self.say(&mut lines, &Answer::new(Value::Null, Err(failure))).await;
            return;
        }
        loop {
            // Held until the answer is text, not until it is read.
            let mut turn = None;
            let answer = match timeout(self.bounds.patience, lines.next()).await {
                Ok(Some(Ok(line))) if line.trim().is_empty() => continue,
                Ok(Some(Ok(line))) => {
                    let (id, command) = read_request(&line);
                    let result = match command {
                        Ok(Command::HandOver { handover }) => match self.hand_over(handover, lines) {
                            None => return,
                            Some((failure, back)) => {
                                lines = back;
                                Err(failure)
                            }
                        },
                        Ok(command) => {
                            let is_list = command.is_list();
                            let answer = answers::answer(&self.shared, &self.birth, command, &self.log);
                            let (result, held) = in_turn(lists, is_list, answer).await;
                            turn = held;
                            result
                        }
                        Err(failure) => Err(failure),
                    };
                    Answer::new(id, result)
                }
                Ok(Some(Err(LinesCodecError::MaxLineLengthExceeded))) => {
                    // A stream ends with its first error. The codec knows that the rest of the line is to be passed over.
                    lines = Framed::from_parts(lines.into_parts());
                    let message = format!("a request is one line of at most {LONGEST_REQUEST} bytes");
                    Answer::new(Value::Null, Err(Failure::new(ErrorKind::BadRequest, message)))
                }
                Ok(Some(Err(LinesCodecError::Io(error))))
                    if error.kind() == std::io::ErrorKind::InvalidData =>
                {
                    let message = "a request is UTF-8 text";
                    let failure = Failure::new(ErrorKind::BadRequest, message);
                    self.say(&mut lines, &Answer::new(Value::Null, Err(failure))).await;
                    return;
                }
                Ok(Some(Err(LinesCodecError::Io(error)))) => {
                    debug!(self.log, "a control connection broke"; "because" => %error);
                    return;
                }
                Ok(None) | Err(_) => return,
            };
            let text = text(&answer);
            // It is many times as large as its text.
            drop((answer, turn));
            if !self.birth.is_current() || !self.send(&mut lines, text).await {
                return;
            }
        }
    }

    /// Leaves the connection to whoever hands over, or gives it back with the reason why that cannot be.
    fn hand_over(&self, version: u16, lines: Lines) -> Option<(Failure, Lines)> {
        if let Some(message) = self.shared.handover.refusal(version) {
            return Some((Failure::new(ErrorKind::Conflict, message), lines));
        }
        if !lines.read_buffer().is_empty() {
            let failure = Failure::new(ErrorKind::BadRequest, "nothing may follow the request to hand over");
            return Some((failure, lines));
        }
        match lines.into_inner().into_std() {
            Ok(stream) => {
                warn!(self.log, "another process takes over by request");
                self.shared.handover.put(stream);
            }
            // It sees that the connection ends.
            Err(error) => warn!(self.log, "a connection cannot be handed on"; "because" => %error),
        }
        None
    }

    /// Whether the client has taken the answer.
    async fn say(&self, lines: &mut Lines, answer: &Answer) -> bool {
        self.send(lines, text(answer)).await
    }

    async fn send(&self, lines: &mut Lines, text: Option<String>) -> bool {
        let Some(text) = text else { return false };
        matches!(timeout(self.bounds.patience, lines.send(text)).await, Ok(Ok(())))
    }
}

/// Makes an answer; a list when it is its turn, which comes back with it.
async fn in_turn<T>(
    lists: &Semaphore,
    is_list: bool,
    make: impl Future<Output = T>,
) -> (T, Option<SemaphorePermit<'_>>) {
    let turn = if is_list { lists.acquire().await.ok() } else { None };
    (make.await, turn)
}

/// An answer is made of maps with text for keys: it has a JSON form.
fn text(answer: &Answer) -> Option<String> {
    serde_json::to_string(answer).ok()
}

/// Whether a process with these credentials may ask a router of this user; why not.
fn may_ask(peer: Option<&UCred>, own: u32) -> Result<(), String> {
    match peer.map(UCred::uid) {
        Some(uid) if uid == 0 || uid == own => Ok(()),
        Some(uid) => {
            Err(format!("user {uid} may not control this router; root and its own user ({own}) may"))
        }
        None => Err("the kernel does not say who asks".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    /// How many of 32 answers are being made, or wait to become text, at a time.
    async fn at_a_time(is_list: bool) -> usize {
        let lists = Semaphore::new(Bounds::default().lists);
        let (made, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let answer = || async {
            let make = async {
                most.fetch_max(made.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            };
            let ((), turn) = in_turn(&lists, is_list, make).await;
            tokio::task::yield_now().await;
            made.fetch_sub(1, Ordering::SeqCst);
            drop(turn);
        };
        join_all((0..32).map(|_| answer())).await;
        assert_eq!(made.load(Ordering::SeqCst), 0);
        most.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn two_lists_are_made_at_a_time_and_whatever_else_is_asked_waits_for_none() {
        assert_eq!(at_a_time(true).await, 2);
        assert_eq!(at_a_time(false).await, 32);
    }
}
