//! Super-packets and partial checksums: one packet here, several on the wire.

use etherparse::TcpOptionElement;

use super::*;

const PAYLOAD: usize = 100;
/// The last segment is shorter.
const ALL: usize = 4 * PAYLOAD + 30;
const SEGMENTS: u64 = 5;

/// Five datagrams of a host as one packet, the way a kernel hands them over, and what it says about it.
fn super_packet(source: Ipv6Addr, destination: Ipv6Addr) -> (Vec<u8>, VirtioNetHdr) {
    let mut packet = Vec::new();
    PacketBuilder::ipv6(source.octets(), destination.octets(), 64)
        .udp(1000, 2000)
        .write(&mut packet, &[7; ALL])
        .unwrap();
    let said = VirtioNetHdr {
        flags: VirtioNetHdr::NEEDS_CSUM,
        gso_type: VirtioNetHdr::GSO_UDP_L4,
        hdr_len: 48,
        gso_size: PAYLOAD as u16,
        csum_start: 40,
        csum_offset: 6,
    };
    (packet, said)
}

/// What a family has counted: packets and their bytes.
fn counted(traffic: &crate::datapath::Traffic) -> (u64, u64) {
    (traffic.packets.get(), traffic.bytes.get())
}

#[test]
fn a_super_packet_is_translated_whole_and_counts_as_what_it_is_on_the_wire() {
    let mut lab = Lab::new();
    let (packet, said) = super_packet(HOST, lab.peer());
    let (verdict, out) = lab.process_offloaded(&packet, &said, at(1));
    assert_eq!((verdict, out.len()), (Verdict::Forward, 1));
    assert_eq!(out[0].len(), 20 + 8 + ALL);
    let bytes = |header: u64| SEGMENTS * header + ALL as u64;
    assert_eq!(counted(&lab.counters.received_v6), (SEGMENTS, bytes(48)));
    assert_eq!(counted(&lab.counters.forwarded_6to4), (SEGMENTS, bytes(28)));
}

#[test]
fn the_session_of_a_super_packet_counts_its_segments() {
    let mut lab = shared::lab();
    let (packet, said) = super_packet(HOST, shared::remote());
    lab.process_offloaded(&packet, &said, at(1));
    let session = lab.tables.nat.sessions().next().unwrap();
    assert_eq!((session.packets[0], session.bytes[0]), (SEGMENTS, SEGMENTS * 48 + ALL as u64));
}

#[test]
fn a_super_packet_that_is_refused_counts_as_its_segments_and_is_answered_once() {
    let mut lab = Lab::new();
    lab.rules.deny_to = std::iter::once("198.51.100.0/24".parse::<ipnet::Ipv4Net>().unwrap()).collect();
    let (packet, said) = super_packet(HOST, lab.peer());
    let (verdict, out) = lab.process_offloaded(&packet, &said, at(1));
    let reason = Refusal::DestinationDenied.into();
    assert_eq!(verdict, Verdict::Drop(reason));
    assert_eq!(lab.counters.drops(reason), SEGMENTS);
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].len(), 40 + 8 + 48 + PAYLOAD, "the error quotes one segment");
}

#[test]
fn a_new_hosts_super_packet_waits_and_is_still_one_afterwards() {
    let mut lab = Lab::new();
    let stranger = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
    let (packet, offload) = super_packet(stranger, lab.peer());
    let (verdict, _) = lab.process_offloaded(&packet, &offload, at(1));
    assert_eq!(verdict, Verdict::Hold(held(stranger)));
    lab.tables.leases.insert(stranger, Ipv4Addr::new(203, 0, 113, 9), LeaseKind::Dynamic, at(2)).unwrap();
    let parcel = Parcel { packet: packet.into(), offload, ports: None };
    let (verdict, out) = lab.process_again(&parcel, at(3));
    assert_eq!((verdict, out.len()), (Verdict::Forward, 1));
    assert_eq!(lab.counters.received_v6.packets.get(), SEGMENTS, "received once");
    assert_eq!(lab.counters.forwarded_6to4.packets.get(), SEGMENTS);
}

#[test]
fn a_super_packet_that_is_refused_after_its_wait_counts_as_its_segments() {
    let mut lab = Lab::new();
    let (packet, offload) = super_packet(HOST, lab.peer());
    lab.process(&udp_v6(HOST, lab.peer()), at(1));
    lab.rules.deny_to = std::iter::once("198.51.100.0/24".parse::<ipnet::Ipv4Net>().unwrap()).collect();
    lab.process_again(&Parcel { packet: packet.into(), offload, ports: None }, at(2));
    assert_eq!(lab.counters.drops(Refusal::DestinationDenied.into()), SEGMENTS);
}

#[test]
fn a_held_super_packet_that_gets_no_address_counts_as_its_segments() {
    let mut lab = Lab::new();
    let (packet, offload) = super_packet(HOST, lab.peer());
    let ((), out) = lab.with_router(&packet, at(1), |router, storage, range, out| {
        router.refuse(storage, range, &offload, Refusal::PoolExhausted, out);
    });
    assert_eq!(lab.counters.drops(Refusal::PoolExhausted.into()), SEGMENTS);
    assert_eq!(out.len(), 1);
}

#[test]
fn a_super_packet_that_is_lost_with_its_worker_counts_as_its_segments_received_and_dropped() {
    let mut lab = Lab::new();
    let (packet, offload) = super_packet(HOST, lab.peer());
    let bytes = SEGMENTS * 48 + ALL as u64;
    let superseded = Refusal::Superseded.into();
    lab.with_router(&packet, at(1), |router, storage, range, _| {
        lost(router.counters, storage, &range, &offload);
    });
    assert_eq!(counted(&lab.counters.received_v6), (SEGMENTS, bytes));
    assert_eq!(lab.counters.drops(superseded), SEGMENTS);
    lab.with_router(&packet, at(1), |router, storage, range, _| {
        parcel_lost(router.counters, storage, &range, &offload);
    });
    assert_eq!(counted(&lab.counters.received_v6), (SEGMENTS, bytes), "it has been received before");
    assert_eq!(lab.counters.drops(superseded), 2 * SEGMENTS);
}

#[test]
fn what_is_not_as_the_kernel_says_is_one_packet_that_is_dropped() {
    let mut lab = Lab::new();
    let (packet, said) = super_packet(HOST, lab.peer());
    let said = VirtioNetHdr { csum_offset: 16, ..said };
    let (verdict, out) = lab.process_offloaded(&packet, &said, at(1));
    assert_eq!((verdict, out.len()), (Verdict::Drop(interproto::DropReason::BadOffload.into()), 0));
    assert_eq!(counted(&lab.counters.received_v6), (1, packet.len() as u64));
    assert_eq!(lab.counters.drops(interproto::DropReason::BadOffload.into()), 1);
}

#[test]
fn the_segments_of_packets_without_df_have_identifications_that_no_other_packet_has() {
    let mut lab = Lab::new();
    let (packet, said) = super_packet(HOST, lab.peer());
    let mut given = std::collections::HashSet::new();
    for _ in 0..100 {
        let (_, out) = lab.process_offloaded(&packet, &said, at(1));
        let first = u16::from_be_bytes([out[0][4], out[0][5]]);
        assert_eq!(out[0][6] & 0x40, 0, "short segments leave without DF");
        for segment in 0..SEGMENTS as u16 {
            assert!(given.insert(first.wrapping_add(segment)));
        }
    }
}

#[test]
fn identifications_are_taken_for_packets_that_leave_without_df_and_for_no_others() {
    let mut lab = Lab::new();
    let sent = |length: usize, hop_limit| {
        let mut packet = Vec::new();
        PacketBuilder::ipv6(HOST.octets(), lab.rules.prefix(0).embed(PEER).octets(), hop_limit)
            .udp(1000, 2000)
            .write(&mut packet, &vec![7; length])
            .unwrap();
        packet
    };
    let [short, long, lost] = [sent(100, 64), sent(1300, 64), sent(100, 1)];
    let first = lab.identifications.range(1);
    for packet in [&long, &lost, &short, &long, &lost] {
        lab.process(packet, at(1));
    }
    assert_eq!(lab.counters.forwarded_6to4.packets.get(), 3);
    assert_eq!(lab.identifications.range(1), first.wrapping_add(2), "one was taken meanwhile");
}

/// A TCP super-packet of a shared host, with these flags.
fn tcp_super_packet(flags: u8, ecn: bool) -> (Vec<u8>, VirtioNetHdr) {
    let mut packet = Vec::new();
    PacketBuilder::ipv6(HOST.octets(), shared::remote().octets(), 64)
        .tcp(40_000, 443, 2, 1000)
        .write(&mut packet, &[7; ALL])
        .unwrap();
    packet[53] = flags;
    let gso_type = VirtioNetHdr::GSO_TCPV6 | if ecn { VirtioNetHdr::GSO_ECN } else { 0 };
    let said = VirtioNetHdr {
        flags: VirtioNetHdr::NEEDS_CSUM,
        gso_type,
        hdr_len: 60,
        gso_size: PAYLOAD as u16,
        csum_start: 40,
        csum_offset: 16,
    };
    (packet, said)
}

/// A router with an established connection, and what is left of the session after a super-packet with these flags.
fn after(flags: u8, ecn: bool) -> (Lab, fast_nat::nat64::SessionView) {
    let mut lab = shared::established();
    let (packet, said) = tcp_super_packet(flags, ecn);
    let (verdict, out) = lab.process_offloaded(&packet, &said, at(3));
    assert_eq!((verdict, out.len()), (Verdict::Forward, 1));
    assert_eq!(out[0][33], flags, "each flag is there, for the kernel to give it to the right segment");
    let mut sessions = lab.tables.nat.sessions();
    let session = sessions.next().unwrap();
    assert!(sessions.next().is_none());
    drop(sessions);
    (lab, session)
}

/// No kernel makes one, but a machine behind a virtual card may: a reset counts once, whatever it is cut into.
#[test]
fn a_reset_in_a_super_packet_ends_its_session_once() {
    use fast_nat::nat64::SessionState;
    let (_, session) = after(0x10, false);
    assert_eq!(session.state, SessionState::Established);
    let packets = session.packets[0];
    for flags in [0x14, 0x04] {
        let (lab, session) = after(flags, false);
        assert_eq!((session.state, session.packets[0]), (SessionState::Trans, packets), "{flags:#x}");
        // Only for as long as a host may need to say that it is there all the same (RFC 6146 section 3.5.2.2).
        let later = |seconds: u64| {
            while lab.tables.nat.expire(at(seconds * 1000), 256) {}
            lab.tables.nat.session(session.reference).is_some()
        };
        assert!(later(240) && !later(245), "{flags:#x}");
        assert_eq!(lab.tables.nat.session_count(), 0);
    }
}

#[test]
fn what_a_super_packet_says_of_congestion_changes_nothing_for_its_session() {
    use fast_nat::nat64::SessionState;
    // CWR, and ECE.
    for (flags, ecn) in [(0x90, true), (0x90, false), (0x50, false), (0xd0, true)] {
        let (_, session) = after(flags, ecn);
        assert_eq!(session.state, SessionState::Established, "{flags:#x}");
    }
}

/// The segment size that a SYN announces.
fn mss(packet: &[u8]) -> u16 {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
    assert!(tcp.syn());
    match tcp.options_iterator().next() {
        Some(Ok(TcpOptionElement::MaximumSegmentSize(size))) => size,
        other => panic!("no segment size: {other:?}"),
    }
}

#[test]
fn the_segment_size_of_a_syn_is_lowered_where_that_is_asked_for_each_way_by_its_own_limit() {
    let announces = TcpOptionElement::MaximumSegmentSize(1460);
    let (mut out_v6, mut out_v4) = (Vec::new(), Vec::new());
    let mut lab = Lab::new();
    PacketBuilder::ipv6(HOST.octets(), lab.peer().octets(), 64)
        .tcp(1000, 80, 1, 1000)
        .syn()
        .options(std::slice::from_ref(&announces))
        .unwrap()
        .write(&mut out_v6, &[])
        .unwrap();
    PacketBuilder::ipv4(PEER.octets(), ADDRESS.octets(), 64)
        .tcp(80, 1000, 1, 1000)
        .syn()
        .ack(2)
        .options(&[announces])
        .unwrap()
        .write(&mut out_v4, &[])
        .unwrap();
    let sizes = |lab: &mut Lab| {
        let [v6, v4] = [&out_v6, &out_v4].map(|packet| lab.process(packet, at(1)).1.remove(0));
        for packet in [&v6, &v4] {
            assert!(checksum_is_right(packet));
        }
        (mss(&v6), mss(&v4))
    };
    assert_eq!(sizes(&mut lab), (1460, 1460));
    lab.rules.mss_clamp = Some(crate::datapath::MssLimits { to_v4: 1340, to_v6: 1360 });
    assert_eq!(sizes(&mut lab), (1340, 1360));
    lab.rules.mss_clamp = Some(crate::datapath::MssLimits { to_v4: 9000, to_v6: 9000 });
    assert_eq!(sizes(&mut lab), (1460, 1460), "it is never raised");
}
