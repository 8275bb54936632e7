//! Two IPv6-only hosts that reach each other by the shared address.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown};

use netlab::Server;

use crate::common::packets::{Flow, UDP, icmp_error};
use crate::common::wire::Sniffer;
use crate::common::{PATIENCE, through};
use crate::lab::{POOL, clients, connect, hear, start, udp};

#[test]
fn hosts_reach_each_other_by_the_shared_address_and_errors_come_back_right() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let forwards: String = [("tcp", 80, 8080), ("udp", 81, 8081), ("udp", 82, 8082)]
        .map(|(protocol, port, host_port)| {
            format!(
                "[[forward]]\nprotocol = \"{protocol}\"\naddress = \"{POOL}\"\nport = {port}\n\
                 host = \"2001:db8:2::2\"\nhost_port = {host_port}\n"
            )
        })
        .concat();
    let (lab, router) = start(&clients(2), &forwards);
    let (near, far) = (&lab.clients[0], &lab.clients[1]);

    // TCP: each sees the other one's public address.
    let echo = Server::tcp_echo(&far.namespace, (far.addresses[0], 8080)).unwrap();
    let mut stream = connect(&near.namespace, (near.addresses[0], 4000), (through(POOL), 80));
    let sent = "through the router and back; ".repeat(10_000);
    let mut echoed = String::new();
    std::thread::scope(|scope| {
        let mut writer = stream.try_clone().unwrap();
        let sent = sent.as_bytes();
        scope.spawn(move || {
            writer.write_all(sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        stream.read_to_string(&mut echoed).unwrap();
    });
    assert!(echoed == sent, "{} of {} bytes came back, or others", echoed.len(), sent.len());
    assert_eq!(echo.peers()[0].ip(), IpAddr::V6(through(POOL)));

    // UDP, both ways.
    let (asks, answers) =
        (udp(&near.namespace, (near.addresses[0], 4000)), udp(&far.namespace, (far.addresses[0], 8081)));
    asks.send_to(b"question", (through(POOL), 81)).unwrap();
    let (text, from) = hear(&answers);
    assert_eq!((&text[..], from.ip()), ("question", IpAddr::V6(through(POOL))));
    answers.send_to(b"answer", from).unwrap();
    assert_eq!(hear(&asks), ("answer".to_owned(), (through(POOL), 81).into()));

    // An ICMP error: nobody listens behind the third port.
    let at_near = Sniffer::new(&near.namespace);
    asks.connect((through(POOL), 82)).unwrap();
    asks.send(b"anybody?").unwrap();
    // The kernel gives an error to a socket only if the packet inside it has the socket's addresses and ports.
    let refused = asks.recv(&mut [0; 16]).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ECONNREFUSED), "{refused}");
    let seen = at_near.within(PATIENCE, icmp_error).unwrap();
    let about = Flow {
        protocol: UDP,
        source: (near.addresses[0], 4000).into(),
        destination: (through(POOL), 82).into(),
    };
    assert_eq!((seen.kind, seen.about), ((1, 4), about));
    assert_eq!((seen.from, seen.to), (through(POOL).into(), near.addresses[0].into()));
    let metrics = router.metrics();
    assert_eq!(metrics.all_dropped(), 0, "{metrics:?}");
    router.end();
}
