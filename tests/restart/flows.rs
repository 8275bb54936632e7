//! Flows that never stop while routers come and go.

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use netlab::Topology;

use crate::common::{Lab, PATIENCE, eventually, pause, through};

/// Numbered datagrams of a host, some hundreds a second.
pub(crate) struct Paced {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<(HashSet<u64>, HashSet<SocketAddr>)>,
    seen: Arc<AtomicU64>,
}

impl Paced {
    pub(crate) fn start(lab: &Lab) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(AtomicU64::new(0));
        let listener = lab.server.run(|| UdpSocket::bind((Topology::SERVER_V4, 6000)).unwrap());
        listener.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let socket = lab.client().run(|| UdpSocket::bind((Topology::CLIENT_V6, 6001)).unwrap());
        let sender = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut number = 0_u64;
                while !stop.load(Ordering::SeqCst) {
                    number += 1;
                    socket.send_to(&number.to_le_bytes(), (through(Topology::SERVER_V4), 6000)).unwrap();
                    pause(Duration::from_millis(4));
                }
                number
            }
        });
        let receiver = std::thread::spawn({
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            move || {
                let (mut numbers, mut sources) = (HashSet::new(), HashSet::new());
                let mut buffer = [0; 8];
                loop {
                    match listener.recv_from(&mut buffer) {
                        Ok((_, from)) => {
                            numbers.insert(u64::from_le_bytes(buffer));
                            sources.insert(from);
                            seen.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(_) if stop.load(Ordering::SeqCst) => return (numbers, sources),
                        Err(_) => {}
                    }
                }
            }
        });
        let paced = Self { stop, sender, receiver, seen };
        paced.moves();
        paced
    }

    /// Waits until more has come.
    pub(crate) fn moves(&self) {
        let before = self.seen.load(Ordering::SeqCst);
        eventually("more datagrams", PATIENCE, || {
            (self.seen.load(Ordering::SeqCst) > before + 20).then_some(())
        });
    }

    /// How many were sent, and how many of them never came. All that came had one source.
    pub(crate) fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::SeqCst);
        let sent = self.sender.join().unwrap();
        let (numbers, sources) = self.receiver.join().unwrap();
        assert_eq!(sources.len(), 1, "no mapping moves: {sources:?}");
        println!("{sent} datagrams sent, {} lost", sent - numbers.len() as u64);
        (sent, sent - numbers.len() as u64)
    }
}
