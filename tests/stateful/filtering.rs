//! Who may reach a host through its mapping, and what those are told who may not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use netlab::{Namespace, TopologyOptions};

use crate::common::packets::{Flow, IcmpError, TCP, UDP, ack, flow, icmp_error, syn};
use crate::common::wire::{Injector, Sniffer};
use crate::common::{PATIENCE, SHORT, through};
use crate::lab::{CLIENT, OTHER, POOL, SERVER, hear, start, udp};

/// The ICMP error about a packet that the server has sent from one of its addresses to this one.
fn error_about(
    sniffer: &Sniffer,
    limit: Duration,
    protocol: u8,
    source: SocketAddr,
    destination: SocketAddr,
) -> Option<IcmpError> {
    let about = Flow { protocol, source, destination };
    sniffer.within(limit, |packet| icmp_error(packet).filter(|error| error.about == about))
}

/// Lets the host speak to the server from this socket's port, and tells where it is seen.
fn map(server: &Namespace, host: &std::net::UdpSocket) -> SocketAddr {
    let listener = udp(server, (SERVER, 9));
    host.send_to(b"hello", (through(SERVER), 9)).unwrap();
    let (text, public) = hear(&listener);
    assert_eq!(text, "hello");
    public
}

#[test]
fn endpoint_independent_filtering_lets_a_third_party_in() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (lab, router) =
        start(&TopologyOptions::default(), "[sessions]\nfiltering = \"endpoint-independent\"\n");
    let host = udp(lab.client(), (CLIENT, 4000));
    let public = map(&lab.server, &host);
    let stranger = udp(&lab.server, (OTHER, 1234));
    stranger.send_to(b"you do not know me", public).unwrap();
    assert_eq!(hear(&host), ("you do not know me".to_owned(), (through(OTHER), 1234).into()));
    host.send_to(b"now I do", (through(OTHER), 1234)).unwrap();
    assert_eq!(hear(&stranger), ("now I do".to_owned(), public));
    router.end();
}

/// Both ways to treat a third party under address-dependent filtering; the answer is what it was told.
fn third_party(answered: bool) -> Option<IcmpError> {
    let sessions = format!("[sessions]\nfiltering = \"address-dependent\"\nanswer_filtered = {answered}\n");
    let (lab, router) = start(&TopologyOptions::default(), &sessions);
    let host = udp(lab.client(), (CLIENT, 4000));
    let public = map(&lab.server, &host);
    let at_server = Sniffer::new(&lab.server);
    let stranger = udp(&lab.server, (OTHER, 1234));
    stranger.send_to(b"you do not know me", public).unwrap();
    let limit = if answered { PATIENCE } else { SHORT };
    let told = error_about(&at_server, limit, UDP, (OTHER, 1234).into(), public);
    router.wait_for_dropped("filtered", 1);

    // Whom the host has sent something may send from any port.
    let elsewhere = udp(&lab.server, (OTHER, 9999));
    host.send_to(b"now I do", (through(OTHER), 9999)).unwrap();
    assert_eq!(hear(&elsewhere), ("now I do".to_owned(), public));
    stranger.send_to(b"and now", public).unwrap();
    let heard = hear(&host);
    assert_eq!(
        heard,
        ("and now".to_owned(), (through(OTHER), 1234).into()),
        "what was filtered has not come"
    );
    router.end();
    told
}

#[test]
fn address_dependent_filtering_keeps_a_third_party_out_until_the_host_has_sent_to_it() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let told = third_party(true).expect("the stranger is told");
    // RFC 6146 §3.5.1.2 and RFC 1812 §5.2.7.1: communication administratively prohibited.
    assert_eq!(told.kind, (3, 13));
    assert_eq!(third_party(false), None, "silence was asked for");
}

#[test]
fn packets_to_ports_that_nobody_has_are_answered_and_a_syn_after_its_time() {
    const WAIT: Duration = Duration::from_secs(1);
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (lab, router) =
        start(&TopologyOptions::default(), "[timers]\nbelow_rfc = true\ntcp_incoming_syn = \"1s\"\n");
    let host = udp(lab.client(), (CLIENT, 4000));
    let public = map(&lab.server, &host);
    let at_server = Sniffer::new(&lab.server);
    let nobodys = SocketAddr::from((POOL, public.port() ^ 0x4000));

    let stranger = udp(&lab.server, (SERVER, 1234));
    stranger.send_to(b"anybody?", nobodys).unwrap();
    let told = error_about(&at_server, PATIENCE, UDP, (SERVER, 1234).into(), nobodys).unwrap();
    // RFC 6146 §3.5.1.2: host unreachable.
    assert_eq!(told.kind, (3, 1));

    // RFC 6146 §3.5.2.2: a SYN is kept for a while, and then port unreachable is the answer.
    let injector = Injector::new(&lab.server);
    let sent = Instant::now();
    injector.send(&syn((SERVER, 1234).into(), nobodys));
    let told = error_about(&at_server, PATIENCE, TCP, (SERVER, 1234).into(), nobodys).unwrap();
    let took = sent.elapsed();
    assert_eq!(told.kind, (3, 3));
    assert!(took >= WAIT, "{took:?}");

    // The same as the kernel of a client sees it.
    let start = Instant::now();
    let refused = netlab::tcp_connect(&lab.server, None, nobodys, PATIENCE).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ECONNREFUSED), "{refused}");
    assert!(start.elapsed() >= WAIT, "{:?}", start.elapsed());

    // A segment that opens nothing and belongs to nothing is no reason to say anything.
    let from_nobody = |packet: &[u8]| {
        let reset = flow(packet).filter(|flow| flow.source == nobodys);
        icmp_error(packet).map(|error| error.about).or(reset)
    };
    at_server.so_far(from_nobody);
    injector.send(&ack((SERVER, 4321).into(), nobodys));
    router.wait_for_dropped("no_session", 1);
    assert_eq!(at_server.within(SHORT, from_nobody), None);
    router.end();
}
