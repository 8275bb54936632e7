//! Flows that run through a fault.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netlab::{Direction, Server, Topology, Transfer, bulk_transfer};

use crate::lab::{Lab, PATIENCE, eventually, pause, through};

/// The wait between two datagrams.
const PACE: Duration = Duration::from_millis(10);

/// Numbered datagrams to an echo server, one every 10 ms.
pub(crate) struct Echoes {
    counts: Arc<Counts>,
    thread: JoinHandle<Vec<u64>>,
    _server: Server,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    echoed: AtomicU64,
    stop: AtomicBool,
}

impl Echoes {
    /// Starts them, and waits until the flow is established.
    pub(crate) fn start(lab: &Lab) -> Self {
        let server = Server::udp_echo(&lab.topology.server, (Topology::SERVER_V4, 7)).unwrap();
        let counts = Arc::new(Counts::default());
        let thread = std::thread::spawn({
            let (counts, namespace, source) = (Arc::clone(&counts), lab.client().clone(), lab.host(0));
            move || {
                namespace.enter_current_thread().unwrap();
                let socket = UdpSocket::bind((source, 0)).unwrap();
                socket.connect((through(Topology::SERVER_V4), 7)).unwrap();
                send_and_receive(&socket, &counts)
            }
        });
        let echoes = Self { counts, thread, _server: server };
        echoes.go_on();
        echoes
    }

    /// Some more datagrams that are sent from now on come back.
    pub(crate) fn go_on(&self) {
        let sent = self.counts.sent.load(Ordering::SeqCst);
        eventually("the UDP flow goes on", || {
            (self.counts.echoed.load(Ordering::SeqCst) > sent + 3).then_some(())
        });
    }

    /// Ends them. The answer is how many were sent, and which of them were lost.
    pub(crate) fn end(self) -> (u64, Vec<u64>) {
        self.counts.stop.store(true, Ordering::SeqCst);
        let lost = self.thread.join().unwrap();
        (self.counts.sent.load(Ordering::SeqCst), lost)
    }
}

/// Sends and receives until told to stop, and then waits for stragglers. The answer is what did not come back.
fn send_and_receive(socket: &UdpSocket, counts: &Counts) -> Vec<u64> {
    let mut came: Vec<bool> = Vec::new();
    let mut stopped = None;
    loop {
        if counts.stop.load(Ordering::SeqCst) && stopped.is_none() {
            stopped = Some(Instant::now());
        }
        let outstanding = came.iter().any(|came| !came);
        // What is not here two seconds after the last one was sent is lost: the way takes less than a millisecond.
        if stopped.is_some_and(|at| !outstanding || at.elapsed() > Duration::from_secs(2)) {
            let lost = (0..).zip(&came).filter(|(_, came)| !**came);
            return lost.map(|(number, _)| number).collect();
        }
        if stopped.is_none() {
            socket.send(&(came.len() as u64).to_be_bytes()).unwrap();
            came.push(false);
            counts.sent.store(came.len() as u64, Ordering::SeqCst);
        }
        let next = Instant::now() + PACE;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left)).unwrap();
            let mut number = [0; 8];
            match socket.recv(&mut number) {
                Ok(8) => {
                    let number = usize::try_from(u64::from_be_bytes(number)).unwrap();
                    assert!(!std::mem::replace(&mut came[number], true), "datagram {number} came twice");
                    counts.echoed.fetch_add(1, Ordering::SeqCst);
                }
                Ok(length) => panic!("a datagram of {length} bytes"),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => panic!("an ICMP error about the flow: {error}"),
            }
        }
    }
}

/// One TCP connection that is under way for as long as a test wants.
pub(crate) struct Upload {
    done: Arc<AtomicU64>,
    release: Arc<AtomicBool>,
    thread: JoinHandle<Transfer>,
    _server: Server,
}

/// So many bytes go, 64 KiB at a time, and the last of them not before the test allows it. While nobody reads the device,
/// its queue has room for more than one connection sends at this pace.
const BYTES: u64 = 8 << 20;
const LAST: u64 = 1 << 20;
const UPLOAD_PACE: Duration = Duration::from_millis(200);

impl Upload {
    /// Starts it, and waits until it is under way.
    pub(crate) fn start(lab: &Lab) -> Self {
        let server = Server::bulk(&lab.topology.server, (Topology::SERVER_V4, 5001)).unwrap();
        let (done, release) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (namespace, done, release) = (lab.client().clone(), Arc::clone(&done), Arc::clone(&release));
            move || {
                let target = (through(Topology::SERVER_V4), 5001).into();
                bulk_transfer(&namespace, target, Direction::Upload, BYTES, PATIENCE * 4, |bytes| {
                    done.store(bytes, Ordering::SeqCst);
                    let start = Instant::now();
                    while !release.load(Ordering::SeqCst)
                        && (bytes > BYTES - LAST || start.elapsed() < UPLOAD_PACE)
                    {
                        pause(Duration::from_millis(10));
                    }
                })
                .unwrap()
            }
        });
        let upload = Self { done, release, thread, _server: server };
        eventually("the TCP flow begins", || (upload.done() > 0).then_some(()));
        upload
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    /// Lets the rest go. Both ends must have seen the same bytes, and most of them must not be from after the faults.
    pub(crate) fn end(self) {
        assert!(self.done() < BYTES && !self.thread.is_finished(), "it ended before the faults did");
        self.release.store(true, Ordering::SeqCst);
        let transfer = self.thread.join().unwrap();
        assert!(transfer.is_intact(), "{transfer:?}");
        assert_eq!(transfer.bytes, BYTES);
    }
}
