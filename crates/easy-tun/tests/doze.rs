//! Threads that wait in the reads of a real device, and are woken there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use easy_tun::{Device, DeviceBuilder, QueueHandle};
use ipnet::Ipv4Net;
use netlab::{Namespace, kernel_tests_possible};
use nix::sys::signal::{SigSet, Signal};

/// Ten times what any of this takes on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);
const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Where an IPv4 packet without options has its UDP payload.
const PAYLOAD: usize = 28;

/// A device in a new namespace, up, and silent: no IPv6 chatter of the kernel's own; and a socket whose datagrams go into it.
struct Lab {
    namespace: Namespace,
    device: Device,
    socket: UdpSocket,
}

impl Lab {
    fn new() -> Self {
        let namespace = Namespace::new("doze").unwrap();
        namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
        let device = namespace.run(|| DeviceBuilder::new("tun0").build()).unwrap();
        namespace.add_address("tun0", Ipv4Net::new_assert(HERE, 24)).unwrap();
        namespace.up("tun0").unwrap();
        let socket = namespace.run(|| UdpSocket::bind((HERE, 0)).unwrap());
        socket.connect((THERE, 7)).unwrap();
        Self { namespace, device, socket }
    }

    fn queue(&self) -> Arc<QueueHandle> {
        Arc::clone(self.device.queue(0).unwrap())
    }

    fn send(&self, number: u64) {
        self.socket.send(&number.to_be_bytes()).unwrap();
    }
}

/// What a sleeper and those who ring for it share.
#[derive(Default)]
struct Board {
    /// What was rung for last.
    rung: AtomicU64,
    /// What the sleeper has heard.
    heard: AtomicU64,
    /// Datagrams that it has read.
    read: AtomicU64,
}

/// Rung for at the end.
const END: u64 = u64::MAX;

/// Does as a worker does: looks for what was rung for, sleeps in a read, and looks again. Datagrams must come in order.
fn sleeper(queue: Arc<QueueHandle>, board: Arc<Board>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        let mut doze = None;
        loop {
            let rung = board.rung.load(Ordering::SeqCst);
            board.heard.store(rung, Ordering::SeqCst);
            if rung == END {
                return;
            }
            if doze.is_none() {
                doze = queue.doze(|| board.rung.load(Ordering::SeqCst) != rung).unwrap();
            }
            let Some(asleep) = &doze else { continue };
            match asleep.read(&mut buffer).unwrap() {
                Some(length) => {
                    assert_eq!(length, PAYLOAD + 8);
                    let number = u64::from_be_bytes(buffer[PAYLOAD..length].try_into().unwrap());
                    assert_eq!(number, board.read.fetch_add(1, Ordering::SeqCst), "no datagram is lost");
                }
                None => doze = None,
            }
        }
    })
}

/// Spins until it is so: these waits are for microseconds.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::yield_now();
    }
}

fn is_nonblocking(queue: &QueueHandle) -> bool {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    OFlag::from_bits_truncate(fcntl(queue, FcntlArg::F_GETFL).unwrap()).contains(OFlag::O_NONBLOCK)
}

/// Rings so many times, each time when the last ring was heard and at another moment of what the sleeper does.
fn ring(queue: &QueueHandle, board: &Board, rings: u64) {
    for _ in 0..rings {
        let number = board.rung.load(Ordering::SeqCst) + 1;
        board.rung.store(number, Ordering::SeqCst);
        queue.wake();
        until(&format!("ring {number} is heard"), || board.heard.load(Ordering::SeqCst) == number);
        for _ in 0..number * 7919 % 2048 {
            std::hint::spin_loop();
        }
    }
}

fn end(queue: &QueueHandle, board: &Board, sleeper: JoinHandle<()>) {
    board.rung.store(END, Ordering::SeqCst);
    queue.wake();
    until("the sleeper ends", || sleeper.is_finished());
    sleeper.join().unwrap();
    assert!(is_nonblocking(queue));
}

#[test]
fn a_ring_is_heard_at_any_moment() {
    if !kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let (queue, board) = (lab.queue(), Arc::new(Board::default()));
    let sleeper = sleeper(Arc::clone(&queue), Arc::clone(&board));
    ring(&queue, &board, 20_000);
    end(&queue, &board, sleeper);
}

#[test]
fn rings_and_packets_at_the_same_time_are_all_heard_and_read() {
    const RINGS: u64 = 20_000;
    /// The device's queue holds 500.
    const UNREAD: u64 = 200;

    if !kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let (queue, board) = (lab.queue(), Arc::new(Board::default()));
    let sleeper = sleeper(Arc::clone(&queue), Arc::clone(&board));
    let ringer = std::thread::spawn({
        let (queue, board) = (Arc::clone(&queue), Arc::clone(&board));
        move || ring(&queue, &board, RINGS)
    });
    let mut sent = 0;
    while !ringer.is_finished() {
        until("the sleeper reads", || sent - board.read.load(Ordering::SeqCst) < UNREAD);
        lab.send(sent);
        sent += 1;
        // Now and then it falls asleep.
        if sent % 16 == 0 {
            until("all is read", || board.read.load(Ordering::SeqCst) == sent);
        }
    }
    ringer.join().unwrap();
    until("all is read", || board.read.load(Ordering::SeqCst) == sent);
    assert!(sent > RINGS / 100, "{sent} datagrams prove nothing");
    end(&queue, &board, sleeper);
}

#[test]
fn a_packet_ends_the_sleep_and_the_queue_waits_for_nobody_afterwards() {
    if !kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let (queue, board) = (lab.queue(), Arc::new(Board::default()));
    let sleeper = sleeper(Arc::clone(&queue), Arc::clone(&board));
    for number in 0..100 {
        until("it dozes", || !is_nonblocking(&queue));
        lab.send(number);
        until("the datagram is read", || board.read.load(Ordering::SeqCst) == number + 1);
    }
    end(&queue, &board, sleeper);
    assert_eq!(queue.try_read(&mut [0; 1500]).unwrap(), None);
}

#[test]
fn whoever_dozes_reads_more_without_waiting_for_it() {
    if !kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let queue = lab.queue();
    let doze = queue.doze(|| false).unwrap().expect("nobody else dozes");
    for number in 0..3 {
        lab.send(number);
    }
    let mut buffer = [0; 1500];
    assert_eq!(doze.read(&mut buffer).unwrap(), Some(PAYLOAD + 8));
    for number in 1_u64..3 {
        assert_eq!(doze.read_more(&mut buffer).unwrap(), Some(PAYLOAD + 8));
        assert_eq!(buffer[PAYLOAD..PAYLOAD + 8], number.to_be_bytes());
    }
    assert_eq!(doze.read_more(&mut buffer).unwrap(), None);
    assert!(!is_nonblocking(&queue), "it may still sleep");
}

#[test]
fn one_thread_dozes_at_a_time_and_none_that_is_told_to_stay_awake() {
    if !kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let queue = lab.queue();
    assert!(queue.doze(|| true).unwrap().is_none());
    assert!(is_nonblocking(&queue));
    let first = queue.doze(|| false).unwrap().expect("nobody else dozes");
    assert!(!is_nonblocking(&queue));
    assert!(queue.doze(|| false).unwrap().is_none(), "there is one already");
    queue.wake();
    assert!(is_nonblocking(&queue), "whoever was woken stays awake");
    assert!(queue.doze(|| false).unwrap().is_none(), "and has not given up its place");
    assert_eq!(first.read(&mut [0; 1500]).unwrap(), None);
    drop(first);
    let second = queue.doze(|| false).unwrap().expect("the place is free");
    lab.send(7);
    assert_eq!(second.read(&mut [0; 1500]).unwrap(), Some(PAYLOAD + 8));
    drop(second);
    assert!(
        is_nonblocking(&queue),
        "whoever gives up its place without having been woken leaves the queue as it was"
    );
}

#[test]
fn a_ring_that_comes_while_it_is_asked_whether_it_may_sleep_wakes_it() {
    if !kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let queue = lab.queue();
    let waiting = std::thread::spawn({
        let queue = Arc::clone(&queue);
        move || {
            let ringer = Arc::clone(&queue);
            let doze = queue.doze(|| {
                std::thread::spawn(move || ringer.wake());
                // Time to ring, for a ringer that would not have to wait until the answer counts.
                linger(Duration::from_millis(200));
                false
            });
            doze.unwrap().expect("nobody else dozes").read(&mut [0; 1500]).unwrap()
        }
    });
    until("it is woken", || waiting.is_finished());
    assert_eq!(waiting.join().unwrap(), None);
}

#[allow(clippy::disallowed_methods, reason = "nobody has to tell a test to stop")]
fn linger(time: Duration) {
    std::thread::sleep(time);
}

#[test]
fn a_thread_that_was_started_with_the_signal_blocked_is_woken_all_the_same() {
    if !kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let (queue, board) = (lab.queue(), Arc::new(Board::default()));
    // A thread has the mask of the one that starts it.
    SigSet::from(Signal::SIGURG).thread_block().unwrap();
    let sleeper = sleeper(Arc::clone(&queue), Arc::clone(&board));
    ring(&queue, &board, 1000);
    end(&queue, &board, sleeper);
}

#[test]
fn a_thread_that_dozes_is_told_when_the_device_is_deleted() {
    if !kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let queue = lab.queue();
    let waiting = std::thread::spawn({
        let queue = Arc::clone(&queue);
        move || {
            let doze = queue.doze(|| false).unwrap().expect("nobody else dozes");
            doze.read(&mut [0; 1500]).unwrap()
        }
    });
    until("it dozes", || !is_nonblocking(&queue));
    lab.namespace.delete_link("tun0").unwrap();
    until("it is told", || waiting.is_finished());
    assert_eq!(waiting.join().unwrap(), None);
    let error = queue.try_read(&mut [0; 1500]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADFD));
}
