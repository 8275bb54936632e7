//! A packet that arrives corrupted leaves corrupted: joining it to others would have given it a good checksum.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use netlab::Namespace;

use crate::common::kernel::{counter_v4, counter_v6};
use crate::common::packets::{TCP, UDP, data, datagram, flow};
use crate::common::wire::{Injector, Sniffer};
use crate::common::{Lab, PATIENCE, PLAIN};
use crate::lab::{Ends, Handled, POOLS, Way, assert_arrive, assert_silent, datagrams, start, while_held};

/// Packets of a train, of so many bytes of payload each.
const COUNT: usize = 8;
const LENGTH: usize = 1000;

/// By how much the checksum of the corrupted one is wrong.
const WRONG_BY: u16 = 0x1234;

/// Which one is corrupted, and by how many writes the train leaves: the good ones beside it are joined.
const PLACES: [(usize, u64); 4] = [(0, 2), (1, 3), (4, 3), (7, 2)];

/// Makes the checksum of a packet with plain headers wrong.
fn corrupt(packet: &mut [u8]) {
    let (headers, protocol) = if packet[0] >> 4 == 4 { (20, packet[9]) } else { (40, packet[6]) };
    let at = headers + if protocol == TCP { 16 } else { 6 };
    let checksum = u32::from(u16::from_be_bytes([packet[at], packet[at + 1]])) + u32::from(WRONG_BY);
    let folded = (checksum & 0xffff) + (checksum >> 16);
    packet[at..at + 2].copy_from_slice(&(folded as u16).to_be_bytes());
}

/// What is behind the headers of a packet, its sequence number if it is TCP, and by how much its checksum is wrong.
struct Seen {
    payload: Vec<u8>,
    sequence: u32,
    wrong_by: u16,
}

fn seen(packet: &[u8]) -> Option<Seen> {
    let sliced = SlicedPacket::from_ip(packet).ok()?;
    let (payload, sequence, checksum, right) = match (sliced.net?, sliced.transport?) {
        (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => {
            let right = udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), udp.payload()).ok()?;
            (udp.payload(), 0, udp.checksum(), right)
        }
        (NetSlice::Ipv6(ip), TransportSlice::Udp(udp)) => {
            let right = udp.to_header().calc_checksum_ipv6(&ip.header().to_header(), udp.payload()).ok()?;
            (udp.payload(), 0, udp.checksum(), right)
        }
        (NetSlice::Ipv4(ip), TransportSlice::Tcp(tcp)) => {
            let right = tcp.to_header().calc_checksum_ipv4(&ip.header().to_header(), tcp.payload()).ok()?;
            (tcp.payload(), tcp.sequence_number(), tcp.checksum(), right)
        }
        (NetSlice::Ipv6(ip), TransportSlice::Tcp(tcp)) => {
            let right = tcp.to_header().calc_checksum_ipv6(&ip.header().to_header(), tcp.payload()).ok()?;
            (tcp.payload(), tcp.sequence_number(), tcp.checksum(), right)
        }
        _ => return None,
    };
    // Sums have two zeroes: all is modulo 0xffff.
    let wrong_by = (u32::from(checksum) + 0xffff - u32::from(right)) % 0xffff;
    Some(Seen { payload: payload.to_vec(), sequence, wrong_by: wrong_by as u16 })
}

/// Datagrams that a namespace did not take for their checksum.
fn refused(namespace: &Namespace, way: Way) -> u64 {
    match way {
        Way::Up => counter_v4(namespace, "Udp", "InCsumErrors"),
        Way::Down => counter_v6(namespace, "Udp6InCsumErrors"),
    }
}

fn ends_of(lab: &Lab, way: Way) -> (&Namespace, &Namespace) {
    if way == Way::Up { (lab.client(), &lab.server) } else { (&lab.server, lab.client()) }
}

#[test]
fn one_corrupted_datagram_among_good_ones_arrives_corrupted_and_the_others_intact() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for pool in POOLS {
        let lab = Lab::new();
        let router = start(&lab, &pool);
        let ends = Ends::open(&lab, 4000, 7777);
        for way in Way::BOTH {
            let (near, far) = ends_of(&lab, way);
            let (injector, sniffer) = (Injector::new(near), Sniffer::new(far));
            let (source, destination) = ends.addresses(way);
            for (place, writes) in PLACES {
                let what = format!("{way:?}, number {place}");
                let mut payloads = datagrams([LENGTH; COUNT]);
                let (before, refused_before) = (Handled::so_far(&lab, &router), refused(far, way));
                while_held(&lab, &router, way, COUNT as u64, || {
                    for (number, payload) in payloads.iter().enumerate() {
                        let mut packet = datagram(source, destination, payload);
                        if number == place {
                            corrupt(&mut packet);
                        }
                        injector.send(&packet);
                    }
                });
                let corrupted = payloads.remove(place);
                let found = sniffer.within(PATIENCE, |packet| {
                    let is_ours = flow(packet).is_some_and(|flow| flow.protocol == UDP);
                    seen(packet).filter(|seen| is_ours && seen.payload == corrupted)
                });
                let found = found.unwrap_or_else(|| panic!("{what}: it did not arrive by itself"));
                assert_eq!(found.wrong_by, WRONG_BY, "{what}");
                assert_arrive(ends.receiver(way), &payloads, &what);
                assert_silent(ends.receiver(way), &what);
                assert_eq!(refused(far, way) - refused_before, 1, "{what}: a kernel knows it as corrupted");
                assert_eq!(Handled::so_far(&lab, &router).since(&before).written, writes, "{what}");
            }
        }
        router.end();
    }
}

#[test]
fn one_corrupted_segment_of_tcp_is_not_joined_to_its_neighbours_and_stays_corrupted() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = start(&lab, &PLAIN);
    // The host's address comes by the sockets, and with an address for each host ports are the host's own.
    let ends = Ends::open(&lab, 4000, 7777);
    for way in Way::BOTH {
        let (near, far) = ends_of(&lab, way);
        let (injector, sniffer) = (Injector::new(near), Sniffer::new(far));
        let (source, destination) = ends.addresses(way);
        let payloads = datagrams([LENGTH; COUNT]);
        for (place, writes) in PLACES {
            let what = format!("{way:?}, number {place}");
            while_held(&lab, &router, way, COUNT as u64, || {
                for (number, payload) in payloads.iter().enumerate() {
                    let mut packet = data(source, destination, (number * LENGTH) as u32, payload);
                    if number == place {
                        corrupt(&mut packet);
                    }
                    injector.send(&packet);
                }
            });
            let mut packets = 0;
            let mut arrived = Vec::new();
            while arrived.len() < COUNT * LENGTH {
                // Nobody listens there, and resets come back: they have no payload.
                let read = |packet: &[u8]| {
                    let to = flow(packet).filter(|flow| flow.protocol == TCP)?.destination.port();
                    seen(packet).filter(|seen| to == destination.port() && !seen.payload.is_empty())
                };
                let seen = sniffer.within(PATIENCE, read).unwrap_or_else(|| panic!("{what}: {arrived:?}"));
                assert_eq!(seen.sequence as usize, arrived.len(), "{what}: in order, and none twice");
                if seen.sequence as usize == place * LENGTH {
                    assert_eq!(seen.payload.len(), LENGTH, "{what}: by itself");
                    assert_eq!(seen.wrong_by, WRONG_BY, "{what}");
                }
                arrived.extend(seen.payload);
                packets += 1;
            }
            assert!(arrived == payloads.concat(), "{what}: other bytes");
            assert_eq!(packets, writes, "{what}: the good ones are joined");
        }
    }
    router.end();
}
