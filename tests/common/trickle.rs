//! A transfer that never stops while routers come and go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use netlab::{Direction, Server, Topology, Transfer, bulk_transfer};

use super::{Lab, PATIENCE, eventually, pause, through};

/// A transfer over TCP that trickles until it is to end.
pub(crate) struct Trickle {
    done: Arc<AtomicU64>,
    released: Arc<AtomicBool>,
    thread: JoinHandle<Transfer>,
    _server: Server,
}

const BYTES: u64 = 40_000_000;

impl Trickle {
    pub(crate) fn start(lab: &Lab, direction: Direction, port: u16) -> Self {
        let server = Server::bulk(&lab.server, (Topology::SERVER_V4, port)).unwrap();
        let (done, released) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (done, released, client) = (Arc::clone(&done), Arc::clone(&released), lab.client().clone());
            move || {
                let target = SocketAddr::from((through(Topology::SERVER_V4), port));
                let progress = |bytes| {
                    done.store(bytes, Ordering::SeqCst);
                    if !released.load(Ordering::SeqCst) {
                        // Never to its end before it is told to.
                        pause(Duration::from_millis(if bytes < BYTES / 2 { 10 } else { 200 }));
                    }
                };
                bulk_transfer(&client, target, direction, BYTES, 8 * PATIENCE, progress).unwrap()
            }
        });
        let trickle = Self { done, released, thread, _server: server };
        trickle.moves();
        trickle
    }

    /// Waits until more of it has come.
    pub(crate) fn moves(&self) {
        let before = self.done.load(Ordering::SeqCst);
        let more = || (self.done.load(Ordering::SeqCst) > before).then_some(());
        eventually("more of the transfer", PATIENCE, more);
    }

    /// Lets it go on to its end; it is intact.
    pub(crate) fn end(self) {
        assert!(self.done.load(Ordering::SeqCst) < BYTES, "it has seen all of it");
        self.released.store(true, Ordering::SeqCst);
        let transfer = self.thread.join().unwrap();
        assert!(transfer.is_intact() && transfer.bytes == BYTES, "{transfer:?}");
    }
}
