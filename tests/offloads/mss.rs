//! The segment size that a SYN announces (RFC 9293 §3.7.1), as the other side sees it.

use std::net::{IpAddr, SocketAddr};

use etherparse::{SlicedPacket, TcpOptionElement, TransportSlice};
use netlab::{Server, Topology, tcp_exchange};

use crate::common::wire::Sniffer;
use crate::common::{Lab, PATIENCE, PLAIN, Router, through};
use crate::lab::{Ends, Way, without_offloads};

/// A SYN, with or without ACK: what it announces, and whether its checksum was left to the network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Syn {
    acknowledges: bool,
    most: Option<u16>,
}

fn syn(packet: &[u8]) -> Option<Syn> {
    let TransportSlice::Tcp(tcp) = SlicedPacket::from_ip(packet).ok()?.transport? else { return None };
    let most = tcp.options_iterator().find_map(|option| match option {
        Ok(TcpOptionElement::MaximumSegmentSize(most)) => Some(most),
        _ => None,
    });
    tcp.syn().then_some(Syn { acknowledges: tcp.ack(), most })
}

/// Opens a connection, on which bytes pass both ways. The answer is the size that the one who is called is told, and that the
/// caller is told.
fn connect(lab: &Lab, up: bool, target: SocketAddr) -> (u16, u16) {
    let (near, far) = if up { (lab.client(), &lab.server) } else { (&lab.server, lab.client()) };
    let (at_caller, at_called) = (Sniffer::new(near), Sniffer::new(far));
    // Few: what does not fit would tell both hosts how narrow the way is, and they would announce that.
    let sent = vec![0x5a; 500];
    assert!(tcp_exchange(near, None, target, &sent, PATIENCE).unwrap() == sent, "other bytes came back");
    let of = |sniffer: &Sniffer, acknowledges| {
        let wanted = |packet: &[u8]| syn(packet).filter(|syn| syn.acknowledges == acknowledges);
        sniffer.within(PATIENCE, wanted).unwrap().most.unwrap()
    };
    (of(&at_called, false), of(&at_caller, true))
}

#[test]
fn a_syn_announces_no_more_than_it_may_both_ways() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    // The links are narrower at the router's end than their hosts know: they announce 1440 and 1460 bytes.
    lab.router.set_mtu("client0", 1400).unwrap();
    lab.router.set_mtu("server", 1300).unwrap();
    // A SYN whose checksum was left open has it completed, and is not taken if it is wrong.
    without_offloads(&lab);
    let _server = Server::tcp_echo(&lab.server, (Topology::SERVER_V4, 7)).unwrap();
    let _client = Server::tcp_echo(lab.client(), (Topology::CLIENT_V6, 7)).unwrap();
    // What the IPv4 side and the IPv6 side are told.
    for (clamp, to_v4, to_v6) in [
        ("off", 1440, 1460),
        ("1220", 1220, 1220),
        // 1450 lowers only what is more.
        ("1450", 1440, 1450),
        // What comes back to the client has 60 bytes of headers in 1400, and what goes to the server 40 in 1300.
        ("auto", 1340, 1260),
    ] {
        // With offloads a SYN comes with a partial checksum, and without them with a whole one.
        for offloads in ["auto", "off"] {
            let flags = ["--mss-clamp", clamp, "--offloads", offloads];
            let router = Router::start(&lab, &[&PLAIN[..], &flags].concat());
            let what = format!("{flags:?}");
            let up = connect(&lab, true, (through(Topology::SERVER_V4), 7).into());
            assert_eq!(up, (to_v4, to_v6), "{what}, the client calls");
            let IpAddr::V4(host) = leased(&lab) else { panic!("no IPv4 address") };
            let down = connect(&lab, false, (host, 7).into());
            assert_eq!(down, (to_v6, to_v4), "{what}, the server calls");
            router.end();
        }
    }
}

/// The client's address, as the server sees it.
fn leased(lab: &Lab) -> IpAddr {
    let ends = Ends::open(lab, 4000, 7777);
    ends.addresses(Way::Down).1.ip()
}
