//! Ports that are forwarded from the shared address.

use std::net::SocketAddr;

use netlab::{Server, TopologyOptions, http_get, udp_exchange};

use crate::common::{PATIENCE, through};
use crate::lab::{CLIENT, OTHER, POOL, SERVER, hear, start, udp};

#[test]
fn a_forwarded_port_is_reached_from_ipv4_and_the_host_sees_who_asks() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let forwards = format!(
        "[[forward]]\nprotocol = \"tcp\"\naddress = \"{POOL}\"\nport = 80\nhost = \"{CLIENT}\"\nhost_port = 8080\n\
         [[forward]]\nprotocol = \"udp\"\naddress = \"{POOL}\"\nport = 5300\nhost = \"{CLIENT}\"\n"
    );
    let (lab, router) = start(&TopologyOptions::default(), &forwards);
    let page = Server::http(lab.client(), (CLIENT, 8080), "served over IPv6").unwrap();
    let echo = Server::udp_echo(lab.client(), (CLIENT, 5300)).unwrap();

    // Before the host has sent anything.
    let answer = http_get(&lab.server, (POOL, 80).into(), "/", PATIENCE).unwrap();
    assert_eq!(answer.text(), "served over IPv6");
    assert_eq!(page.peers()[0].ip(), through(SERVER));
    for (source, payload) in [((SERVER, 1111), "one"), ((OTHER, 2222), "other")] {
        let source = SocketAddr::from(source);
        let echoed =
            udp_exchange(&lab.server, Some(source), (POOL, 5300).into(), payload.as_bytes(), PATIENCE)
                .unwrap();
        assert_eq!(echoed, payload.as_bytes());
    }
    assert_eq!(echo.peers(), [(through(SERVER), 1111).into(), (through(OTHER), 2222).into()]);
    drop(echo);

    // What the host sends from that port comes from the forwarded one.
    let listener = udp(&lab.server, (SERVER, 53));
    let host = udp(lab.client(), (CLIENT, 5300));
    host.send_to(b"from the service", (through(SERVER), 53)).unwrap();
    assert_eq!(hear(&listener), ("from the service".to_owned(), (POOL, 5300).into()));
    let metrics = router.metrics();
    assert_eq!(metrics.all_dropped(), 0, "{metrics:?}");
    router.end();
}
