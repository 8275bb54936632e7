//! Ports that are computed (RFC 7422): who had one is found without a record.

use std::net::IpAddr;

use ipnet::Ipv6Net;
use netlab::{Server, udp_exchange};

use crate::common::{PATIENCE, Router, through};
use crate::lab::{POOL, SERVER, clients, prepare, shared};

#[test]
fn a_subscribers_ports_are_where_the_configuration_alone_says() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = prepare(&clients(3));
    // Two blocks for each client's network.
    let config = shared(
        "[deterministic]\nhosts = [\"2001:db8:1::/64\", \"2001:db8:2::/64\", \"2001:db8:3::/64\"]\nports_per_subscriber = 256\n",
    );
    let file = lab.file("computed.toml", &config);
    let router = Router::start(&lab, &["--config", &file]);
    let echo = Server::udp_echo(&lab.server, (SERVER, 7)).unwrap();
    for (number, client) in lab.clients.iter().enumerate() {
        // More than one block's worth of ports.
        for port in 0..140_u16 {
            let source = Some((client.addresses[0], 20_000 + 2 * port).into());
            let target = (through(SERVER), 7).into();
            udp_exchange(&client.namespace, source, target, b"hello", PATIENCE).unwrap();
        }
        let peers = echo.peers();
        let subscriber = Ipv6Net::new(client.addresses[0], 64).unwrap().trunc();
        assert_eq!(peers.len(), (number + 1) * 140);
        for peer in peers[number * 140..].iter().step_by(20) {
            assert_eq!(peer.ip(), IpAddr::V4(POOL));
            let at = format!("{POOL}:{}", peer.port());
            let found = lab.run_to_end(&["who-had", &at, "--config", &file]);
            assert_eq!(found.code, Some(0), "{}", found.stderr);
            assert!(found.stdout.contains(&subscriber.to_string()), "{subscriber}: {}", found.stdout);
        }
    }
    let blocks = router.wait_for_metrics("their blocks are counted", |metrics| {
        metrics.sum("protomask_pool_blocks", &["state=\"used\""]) == 6
    });
    assert_eq!(blocks.dropped("port_quota"), 0);
    router.end();
}
