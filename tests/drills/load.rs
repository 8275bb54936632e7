//! What runs through the router while it is drilled, and what became of it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netlab::{Namespace, Server, Topology};
use nix::sys::socket::{setsockopt, sockopt};
use sha2::{Digest as _, Sha256};

use crate::lab::{Lab, PATIENCE, pause, through};

/// The wait between two paced datagrams: a thousand a second.
const PACE: Duration = Duration::from_millis(1);
/// What a paced datagram that is not back by then is: lost. The way takes less than a millisecond.
const LATEST: Duration = Duration::from_secs(2);
/// Connections that say nothing but when they are asked.
const IDLE: usize = 16;
/// Room of a socket: for some seconds of paced datagrams.
const ROOM: usize = 8 << 20;
/// How often a host says the same.
const TRIES: usize = 25;
/// Bytes of a transfer that are sent at a time, and the wait between.
const CHUNK: usize = 16 << 10;
const CHUNK_PACE: Duration = Duration::from_millis(5);

const ECHO: u16 = 7;
const TCP_ECHO: u16 = 8;
const UPLOAD: u16 = 9;
const DOWNLOAD: u16 = 10;

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sent: usize,
    pub(crate) reordered: usize,
    pub(crate) twice: usize,
    pub(crate) opened: usize,
    pub(crate) not_opened: usize,
    pub(crate) strangers: usize,
    pub(crate) strangers_lost: usize,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    start: Instant,
    /// By number: 1 when the datagram has come back.
    came: Box<[AtomicU8]>,
    sent: AtomicUsize,
    highest: AtomicUsize,
    reordered: AtomicUsize,
    twice: AtomicUsize,
    /// When the last one came back, and the longest wait for one since [`Load::begin`], in microseconds.
    last: AtomicU64,
    gap: AtomicU64,
    opened: AtomicUsize,
    not_opened: AtomicUsize,
    strangers: AtomicUsize,
    strangers_lost: AtomicUsize,
}

impl Shared {
    fn micros(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// Threads that send and receive. All of it begins before the first drill and ends after the last.
pub(crate) struct Load {
    shared: Arc<Shared>,
    idle: Vec<TcpStream>,
    transfers: Vec<End>,
    threads: Vec<JoinHandle<()>>,
    _servers: Vec<Server>,
}

/// What happens in a stretch of time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    first: usize,
    before: Counts,
}

/// What has happened in it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Happened {
    pub(crate) sent: usize,
    pub(crate) lost: usize,
    pub(crate) reordered: usize,
    pub(crate) twice: usize,
    /// Connections that did not go on, and such as did not come about.
    pub(crate) sessions_lost: usize,
    pub(crate) opened: usize,
    /// The longest wait for a paced datagram.
    pub(crate) gap: Duration,
}

fn spawn(name: &str, namespace: &Namespace, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let namespace = namespace.clone();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            namespace.enter_current_thread().unwrap();
            work();
        })
        .unwrap()
}

fn udp(at: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(at).unwrap();
    // Root may pass the system's bound.
    setsockopt(&socket, sockopt::RcvBufForce, &ROOM).unwrap();
    setsockopt(&socket, sockopt::SndBufForce, &ROOM).unwrap();
    socket
}

impl Load {
    /// Starts everything, for at most so long. New connections and strangers come at this pace.
    pub(crate) fn start(lab: &Lab, longest: Duration, hosts: u16, pace: Duration) -> Self {
        let datagrams = longest.as_millis() as usize;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            start: Instant::now(),
            came: (0..datagrams).map(|_| AtomicU8::new(0)).collect(),
            sent: AtomicUsize::new(0),
            highest: AtomicUsize::new(0),
            reordered: AtomicUsize::new(0),
            twice: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            gap: AtomicU64::new(0),
            opened: AtomicUsize::new(0),
            not_opened: AtomicUsize::new(0),
            strangers: AtomicUsize::new(0),
            strangers_lost: AtomicUsize::new(0),
        });
        // As many as come in ten seconds: a machine that is busy with something else must not lose any.
        let interface = &lab.shared.interface;
        let set = ["link", "set", "dev", interface, "txqueuelen", "20000"];
        assert!(lab.topology.router.command("ip").args(set).status().unwrap().success());
        let server = &lab.topology.server;
        let servers = vec![Server::tcp_echo(server, (Topology::SERVER_V4, TCP_ECHO)).unwrap()];
        let mut threads = echoes(&shared, lab);
        let mut transfers = Vec::new();
        for (port, is_upload) in [(UPLOAD, true), (DOWNLOAD, false)] {
            transfers.extend(transfer(&shared, lab, port, is_upload));
        }
        let idle = (0..IDLE).map(|_| idle(lab)).collect();
        threads.push(connections(&shared, lab, pace));
        threads.push(strangers(&shared, lab, hosts, pace));
        let load = Self { shared, idle, transfers, threads, _servers: servers };
        // The first host has its ports, and the flows are under way.
        crate::lab::eventually("the flows are under way", || {
            let counts = load.counts();
            (counts.sent > 200 && counts.opened > 2 && counts.strangers > 2).then_some(())
        });
        load
    }

    pub(crate) fn counts(&self) -> Counts {
        let get = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        let Shared { sent, reordered, twice, opened, not_opened, strangers, strangers_lost, .. } =
            &*self.shared;
        Counts {
            sent: get(sent),
            reordered: get(reordered),
            twice: get(twice),
            opened: get(opened),
            not_opened: get(not_opened),
            strangers: get(strangers),
            strangers_lost: get(strangers_lost),
        }
    }

    /// Begins a stretch of time.
    pub(crate) fn begin(&self) -> Stretch {
        self.shared.gap.store(0, Ordering::SeqCst);
        Stretch { first: self.counts().sent, before: self.counts() }
    }

    /// The longest wait for a paced datagram since the stretch began; the one that goes on counts, too.
    pub(crate) fn gap(&self) -> Duration {
        let waited = self.shared.micros().saturating_sub(self.shared.last.load(Ordering::SeqCst));
        Duration::from_micros(self.shared.gap.load(Ordering::SeqCst).max(waited))
    }

    /// Waits until a datagram has come back since then.
    pub(crate) fn goes_on_since(&self, moment: Instant) {
        let moment = moment.saturating_duration_since(self.shared.start).as_micros() as u64;
        crate::lab::eventually("forwarding is back", || {
            (self.shared.last.load(Ordering::SeqCst) > moment).then_some(())
        });
    }

    /// Whether datagrams come back that are sent from now on.
    pub(crate) fn goes_on(&self) {
        let sent = self.counts().sent;
        crate::lab::eventually("forwarding is back", || {
            (self.shared.highest.load(Ordering::SeqCst) > sent + 20).then_some(())
        });
    }

    /// Ends a stretch: what was sent in it comes back or is lost, and each connection that was there must answer.
    pub(crate) fn end(&mut self, stretch: Stretch) -> Happened {
        let gap = self.gap();
        let last = self.counts().sent;
        let came = |number: &usize| self.shared.came[*number].load(Ordering::SeqCst) != 0;
        let waiting = Instant::now();
        while waiting.elapsed() < LATEST && !(stretch.first..last).all(|number| came(&number)) {
            pause(Duration::from_millis(2));
        }
        let lost = (stretch.first..last).filter(|number| !came(number)).count();
        let silent = self.idle.iter_mut().filter_map(|stream| ask(stream).err()).count();
        let over = self.transfers.iter().filter(|thread| thread.is_finished()).count();
        let counts = self.counts();
        let (refused, unanswered) = (
            counts.not_opened - stretch.before.not_opened,
            counts.strangers_lost - stretch.before.strangers_lost,
        );
        if silent + over + refused + unanswered > 0 {
            println!("lost: {silent} silent, {over} transfers, {refused} not opened, {unanswered} strangers");
        }
        Happened {
            sent: last - stretch.first,
            lost,
            reordered: counts.reordered - stretch.before.reordered,
            twice: counts.twice - stretch.before.twice,
            sessions_lost: silent + over + refused + unanswered,
            opened: counts.opened + counts.strangers - stretch.before.opened - stretch.before.strangers,
            gap,
        }
    }

    /// Ends all of it. Both transfers must have brought every byte, in order.
    pub(crate) fn stop(self) -> Counts {
        let counts = self.counts();
        self.shared.stop.store(true, Ordering::SeqCst);
        let ends: Vec<_> = self.transfers.into_iter().map(|thread| thread.join().unwrap()).collect();
        for ends in ends.chunks(2) {
            let [sent, received] = ends else { panic!("two ends of a transfer") };
            let (sent, received) = (sent.as_ref().unwrap(), received.as_ref().unwrap());
            assert_eq!(sent, received, "a transfer");
            assert!(sent.0 > 0);
        }
        for thread in self.threads {
            thread.join().unwrap();
        }
        counts
    }
}

/// The server of paced datagrams, their sender and their receiver.
fn echoes(shared: &Arc<Shared>, lab: &Lab) -> Vec<JoinHandle<()>> {
    let tick = Some(Duration::from_millis(200));
    let over = Arc::clone(shared);
    let server = spawn("drill-echo", &lab.topology.server, move || {
        let socket = udp((Topology::SERVER_V4, ECHO).into());
        socket.set_read_timeout(tick).unwrap();
        let mut buffer = vec![0; 65_536];
        while !over.is_over() {
            if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                // Its sender may be gone.
                let _ = socket.send_to(&buffer[..length], peer);
            }
        }
    });
    let (hand_over, socket) = std::sync::mpsc::sync_channel(1);
    let source = lab.host(0);
    let sending = Arc::clone(shared);
    let sender = spawn("drill-paced", lab.client(), move || {
        let socket = udp((source, 0).into());
        socket.connect((through(Topology::SERVER_V4), ECHO)).unwrap();
        socket.set_read_timeout(tick).unwrap();
        hand_over.send(socket.try_clone().unwrap()).unwrap();
        let mut next = Instant::now();
        for number in 0..sending.came.len() {
            if sending.is_over() {
                return;
            }
            next += PACE;
            pause(next.saturating_duration_since(Instant::now()));
            let mut datagram = [0; 64];
            datagram[..8].copy_from_slice(&(number as u64).to_be_bytes());
            sending.sent.store(number + 1, Ordering::SeqCst);
            // An ICMP error about an earlier one: that one is lost, and counted.
            let _ = socket.send(&datagram);
        }
        panic!("the load is over before its time");
    });
    let receiving = Arc::clone(shared);
    let receiver = spawn("drill-receiver", lab.client(), move || {
        let socket = socket.recv().unwrap();
        let mut buffer = vec![0; 65_536];
        while !receiving.is_over() {
            let Ok(64) = socket.recv(&mut buffer) else { continue };
            let number = u64::from_be_bytes(buffer[..8].try_into().unwrap()) as usize;
            let now = receiving.micros();
            let last = receiving.last.swap(now, Ordering::SeqCst);
            if last > 0 {
                receiving.gap.fetch_max(now.saturating_sub(last), Ordering::SeqCst);
            }
            if receiving.came[number].swap(1, Ordering::SeqCst) != 0 {
                receiving.twice.fetch_add(1, Ordering::SeqCst);
            }
            if receiving.highest.fetch_max(number, Ordering::SeqCst) > number {
                receiving.reordered.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    vec![server, sender, receiver]
}

/// One end of a transfer: how many bytes there were, and their digest.
type End = JoinHandle<Result<(u64, [u8; 32]), String>>;

/// A connection over which bytes go one way: its two ends, the sender first.
fn transfer(shared: &Arc<Shared>, lab: &Lab, port: u16, is_upload: bool) -> [End; 2] {
    let (at_server, at_client) = (lab.topology.server.clone(), lab.client().clone());
    let (listening, listens) = std::sync::mpsc::sync_channel(1);
    let work = move |is_sender: bool, shared: Arc<Shared>, stream: TcpStream| {
        stream.set_read_timeout(Some(PATIENCE * 2)).unwrap();
        stream.set_write_timeout(Some(PATIENCE * 2)).unwrap();
        let done = if is_sender { send(&shared, &stream) } else { receive(&stream) };
        done.map_err(|error| format!("port {port}: {error}"))
    };
    let over = Arc::clone(shared);
    let server = std::thread::spawn(move || {
        at_server.enter_current_thread().unwrap();
        let listener = TcpListener::bind((Topology::SERVER_V4, port)).unwrap();
        listening.send(()).unwrap();
        work(!is_upload, over, listener.accept().unwrap().0)
    });
    listens.recv().unwrap();
    let over = Arc::clone(shared);
    let client = std::thread::spawn(move || {
        at_client.enter_current_thread().unwrap();
        let stream = TcpStream::connect((through(Topology::SERVER_V4), port)).unwrap();
        work(is_upload, over, stream)
    });
    if is_upload { [client, server] } else { [server, client] }
}

fn send(shared: &Shared, mut stream: &TcpStream) -> std::io::Result<(u64, [u8; 32])> {
    let mut digest = Sha256::new();
    let mut bytes = 0_u64;
    let mut chunk: Vec<u8> = (0..CHUNK).map(|n| (n * n / 7) as u8).collect();
    while !shared.is_over() {
        // No two chunks are alike.
        chunk[..8].copy_from_slice(&bytes.to_be_bytes());
        stream.write_all(&chunk)?;
        digest.update(&chunk);
        bytes += CHUNK as u64;
        pause(CHUNK_PACE);
    }
    stream.shutdown(Shutdown::Write)?;
    Ok((bytes, digest.finalize().into()))
}

fn receive(mut stream: &TcpStream) -> std::io::Result<(u64, [u8; 32])> {
    let mut digest = Sha256::new();
    let mut bytes = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok((bytes, digest.finalize().into())),
            length => {
                digest.update(&buffer[..length]);
                bytes += length as u64;
            }
        }
    }
}

/// A connection to the echo server that was asked once.
fn idle(lab: &Lab) -> TcpStream {
    lab.client().run(|| {
        let mut stream = TcpStream::connect((through(Topology::SERVER_V4), TCP_ECHO)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        ask(&mut stream).unwrap();
        stream
    })
}

fn ask(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut answer = [0; 5];
    stream.write_all(b"alive")?;
    stream.read_exact(&mut answer)?;
    if &answer == b"alive" { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

/// New TCP connections, one after the other, each of which is used.
fn connections(shared: &Arc<Shared>, lab: &Lab, pace: Duration) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    spawn("drill-new", lab.client(), move || {
        let target = SocketAddr::from((through(Topology::SERVER_V4), TCP_ECHO));
        while !shared.is_over() {
            let done = TcpStream::connect_timeout(&target, PATIENCE).and_then(|mut stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                ask(&mut stream)
            });
            let count = if done.is_ok() { &shared.opened } else { &shared.not_opened };
            count.fetch_add(1, Ordering::SeqCst);
            pause(pace * 2);
        }
    })
}

/// Hosts that say something and are silent then, so that addresses, ports and blocks are given and come back all the time. Every fifth
/// datagram is in fragments.
fn strangers(shared: &Arc<Shared>, lab: &Lab, hosts: u16, pace: Duration) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    let hosts: Vec<Ipv6Addr> = (1..usize::from(hosts)).map(|host| lab.host(host)).collect();
    spawn("drill-strangers", lab.client(), move || {
        for (number, host) in (0_u64..).zip(hosts.iter().cycle()) {
            if shared.is_over() {
                return;
            }
            let socket = UdpSocket::bind((*host, 0)).unwrap();
            socket.connect((through(Topology::SERVER_V4), ECHO)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let datagram = vec![number as u8; if number % 5 == 0 { 3000 } else { 100 }];
            let mut buffer = vec![0; 65_536];
            // What a worker has in hand is lost with it, and somebody who means it says it again: more often than a drill is repeated, since
            // who says it may be who the fault strikes.
            let mut errors = Vec::new();
            let is_answered = (0..TRIES).any(|_| {
                let answer = socket.send(&datagram).and_then(|_| socket.recv(&mut buffer));
                errors.extend(answer.as_ref().err().map(ToString::to_string));
                answer.is_ok_and(|length| buffer[..length] == datagram)
            });
            if !is_answered {
                println!("{host} is not answered: {errors:?}");
            }
            let count = if is_answered { &shared.strangers } else { &shared.strangers_lost };
            count.fetch_add(1, Ordering::SeqCst);
            pause(pace);
        }
    })
}
