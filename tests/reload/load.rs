//! A hundred reloads while connections carry data and datagrams come at a pace.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netlab::{Direction, Server, Topology, bulk_transfer};

use crate::common::{PATIENCE, pause, through};
use crate::lab::{Reloading, TOP, pool};

/// Bytes of each transfer, each way.
const BYTES: u64 = 4 << 20;
/// The pause between two datagrams of a flow.
const PACE: Duration = Duration::from_millis(10);
/// A datagram that has not come back by then is lost.
const LATE: Duration = Duration::from_secs(5);

/// A host that mappings lead to. Those that speak here share an address from the beginning to the end.
const STRANGER: &str = "2001:db8:1::ffff";

/// Sends numbered datagrams at a pace until it is told to stop; says how many were sent and how many came back. The source port must
/// stay what it was from the first to the last.
fn paced(socket: &UdpSocket, stop: &AtomicBool) -> (u32, u32) {
    let target = SocketAddr::from((through(Topology::SERVER_V4), 7));
    socket.set_read_timeout(Some(LATE)).unwrap();
    let (mut sent, mut came) = (0_u32, 0_u32);
    while !stop.load(Ordering::Relaxed) {
        socket.send_to(&sent.to_be_bytes(), target).unwrap();
        sent += 1;
        let mut buffer = [0; 4];
        while let Ok(length) = socket.recv(&mut buffer) {
            assert_eq!(length, 4);
            if buffer == (sent - 1).to_be_bytes() {
                came += 1;
                break;
            }
        }
        pause(PACE);
    }
    (sent, came)
}

#[test]
fn a_hundred_reloads_under_load_break_no_flow() {
    const RELOADS: usize = 100;
    if !netlab::kernel_tests_possible() {
        return;
    }
    let base = format!("{}{}", pool("203.0.113.1/32"), pool("203.0.113.2/32"));
    let mut at = Reloading::start(2, &format!("{TOP}{base}"));
    let bulk = Server::bulk(&at.lab.server, (Topology::SERVER_V4, 5001)).unwrap();
    let hosts = [at.host(0), at.host(1)];
    // What each reload brings, in turn: it takes back what the one before has brought.
    let variants = [
        format!("translation_prefix = [\"64:ff9b:1::/96\", \"64:ff9b:2::/96\"]\n{base}"),
        format!("deny_to = [\"192.0.2.0/24\"]\nallow_from = [\"2001:db8::/32\"]\n{TOP}{base}"),
        format!("{TOP}{base}{}[quota]\nsessions = 1000\n", pool("203.0.113.3/32")),
        format!(
            "{TOP}{base}[[forward]]\nprotocol = \"udp\"\naddress = \"203.0.113.1\"\nport = 53\nhost = \"{STRANGER}\"\n"
        ),
        format!("{TOP}{base}[[static]]\naddress = \"203.0.113.99\"\nhost = \"{STRANGER}\"\n"),
        // One of the pools in use is drained.
        format!("{TOP}{}", pool("203.0.113.2/32")),
        format!("{TOP}{base}[timers]\nudp = \"6m\"\n"),
        "colour = 1\n".to_owned(),
    ];
    let sockets = hosts.map(|host| at.lab.client().run(|| UdpSocket::bind((host, 0)).unwrap()));
    let stop = AtomicBool::new(false);
    let client = at.lab.client().clone();
    let target = SocketAddr::from((through(Topology::SERVER_V4), 5001));
    std::thread::scope(|scope| {
        let flows = sockets.each_ref().map(|socket| scope.spawn(|| paced(socket, &stop)));
        let transfers = [Direction::Upload, Direction::Download].map(|direction| {
            let (client, stop) = (&client, &stop);
            scope.spawn(move || {
                let mut whole = 0;
                while !stop.load(Ordering::Relaxed) {
                    let report = bulk_transfer(client, target, direction, BYTES, PATIENCE * 4, |_| {})
                        .unwrap_or_else(|error| panic!("after {whole} transfers: {error}"));
                    assert!(report.is_intact(), "{report:?}");
                    whole += 1;
                }
                whole
            })
        });
        let start = Instant::now();
        let (mut taken, mut refused) = (0, 0);
        for number in 0..RELOADS {
            match at.reload(&variants[number % variants.len()]) {
                "applied" => taken += 1,
                "refused" => refused += 1,
                other => panic!("{other}"),
            }
        }
        println!("{RELOADS} reloads in {:?}", start.elapsed());
        stop.store(true, Ordering::Relaxed);
        let transfers = transfers.map(|transfer| transfer.join().unwrap());
        let flows = flows.map(|flow| flow.join().unwrap());
        println!("whole transfers {transfers:?}; datagrams sent and come back {flows:?}");
        assert_eq!((taken, refused), (RELOADS - RELOADS / 8, RELOADS / 8));
        assert!(transfers.iter().all(|whole| *whole > 0), "{transfers:?}");
        assert!(flows.iter().all(|(sent, came)| *sent > 0 && sent == came), "{flows:?}");
    });
    // Each flow has had one address and port from its first datagram to its last.
    let mut seen = at.echo.peers();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), hosts.len(), "{seen:?}");
    drop(bulk);
    let metrics = at.router.metrics();
    assert_eq!(metrics.sum("protomask_actor_exits_total", &[]), 0);
    at.router.end();
}
