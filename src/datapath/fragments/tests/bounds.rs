//! What a stranger can make the buffer take.

use super::*;

/// A fragment behind the first that waits.
fn later(length: usize) -> Piece {
    Piece::new(8, length, true)
}

fn source(at: usize) -> u8 {
    at as u8 + 1
}

#[test]
fn more_fragments_than_one_datagram_may_have_lose_it() {
    let limits = Limits { fragments_per_datagram: 3, ..Limits::DEFAULT };
    for collect in [false, true] {
        let mut buffer = FragmentBuffer::new(limits);
        let mut take = |offset| Piece::new(offset, 8, true).take(&mut buffer, key(1, 1), 0, collect);
        for offset in [8, 16, 24] {
            assert_eq!(take(offset), Taken::Parked);
        }
        assert_eq!(take(16), refused(FragmentRefusal::Duplicate, 1), "no further one");
        assert_eq!(take(32), refused(FragmentRefusal::TooManyFragments, 4));
        assert_eq!(take(0), refused(FragmentRefusal::TooManyFragments, 1));
        buffer.verify(&limits);
    }
    // What passes takes a little memory too.
    let mut buffer = FragmentBuffer::new(limits);
    for offset in [0, 8, 16] {
        assert_eq!(Piece::new(offset, 8, true).pass(&mut buffer, key(1, 1), 0), Taken::Now(PORTS));
    }
    let taken = Piece::new(24, 8, false).pass(&mut buffer, key(1, 1), 0);
    assert_eq!(taken, refused(FragmentRefusal::TooManyFragments, 1));
}

#[test]
fn the_longest_ping_at_the_least_mtu_has_fewer_fragments_than_one_may_have() {
    assert!(65_515_usize.div_ceil(1280 - 48) <= Limits::DEFAULT.fragments_per_datagram);
}

/// One source sends what it likes for a second, by number and by size. The other one's trains come out of order all the while.
#[test]
fn a_flood_of_one_source_takes_its_share_and_harms_nobody_else() {
    let limits = Limits { memory: 1 << 20, datagrams: 512, ..Limits::DEFAULT };
    for length in [8, 1480, 8000] {
        let mut buffer = FragmentBuffer::new(limits);
        let share = (limits.memory - 512 * FragmentBuffer::PER_DATAGRAM) / 8;
        let pieces = train(3000, &[0, 1200, 2400]);
        let flood = later(length);
        let mut sent = 0;
        for round in 0..200 {
            let number = round as u16;
            assert_eq!(pieces[1].pass(&mut buffer, key(2, number), 0), Taken::Parked);
            assert_eq!(pieces[2].collect(&mut buffer, key6(round), 0), Taken::Parked);
            for _ in 0..100 {
                assert_eq!(flood.pass(&mut buffer, key(1, sent as u16), 0), Taken::Parked);
                sent += 1;
            }
            let usage = buffer.usage();
            assert!(usage.datagrams <= 64 + 2, "{usage:?}");
            assert!(usage.memory <= 512 * FragmentBuffer::PER_DATAGRAM + share + 8000, "{usage:?}");
            let released = pieces[0].pass(&mut buffer, key(2, number), 0);
            assert_eq!(released, Taken::Release { ports: PORTS, parked: vec![pieces[1].packet()] });
            assert_eq!(pieces[2].pass(&mut buffer, key(2, number), 0), Taken::Now(PORTS));
            assert_eq!(pieces[1].collect(&mut buffer, key6(round), 0), Taken::Parked);
            assert!(matches!(pieces[0].collect(&mut buffer, key6(round), 0), Taken::Whole(_)));
            buffer.verify(&limits);
        }
        let parked = buffer.usage().packets as u64;
        let expected = Lost { source_share: sent - parked, ..Lost::default() };
        assert_eq!(buffer.expire(at(0)), expected, "each packet is counted");
        assert!(parked > 10);
    }
}

/// Hosts of a /64 are one source; IPv4 addresses are each one.
#[test]
fn a_source_is_an_ipv4_address_or_a_64() {
    let limits = Limits { datagrams: 80, ..Limits::DEFAULT };
    let destination = Ipv6Addr::LOCALHOST;
    let v6 = |subnet, host| Key::V6 {
        source: Ipv6Addr::new(0x2001, 0xdb8, 0, subnet, host, 0, 0, host),
        destination,
        identification: 0,
    };
    let mut buffer = FragmentBuffer::new(limits);
    for host in 0..30 {
        assert_eq!(later(8).pass(&mut buffer, v6(1, host), 0), Taken::Parked);
    }
    assert_eq!(buffer.usage().datagrams, 10);
    for subnet in 2..32 {
        assert_eq!(later(8).pass(&mut buffer, v6(subnet, 1), 0), Taken::Parked);
    }
    for host in 1..=30 {
        assert_eq!(later(8).pass(&mut buffer, key(host, 1), 0), Taken::Parked);
    }
    assert_eq!(buffer.usage().datagrams, 70);
    assert_eq!(buffer.expire(at(0)), Lost { source_share: 20, ..Lost::default() });
    buffer.verify(&limits);
}

#[test]
fn of_a_source_that_has_its_share_the_oldest_datagram_goes() {
    let limits = Limits { datagrams: 80, ..Limits::DEFAULT };
    let mut buffer = FragmentBuffer::new(limits);
    let pieces = train(16, &[0, 8]);
    for number in 0..11 {
        assert_eq!(pieces[1].pass(&mut buffer, key(1, number), 0), Taken::Parked);
    }
    // Number 0 has made room for number 10. Its first fragment finds nothing, and lets number 1 go.
    assert_eq!(pieces[0].pass(&mut buffer, key(1, 0), 0), Taken::Now(PORTS));
    assert!(matches!(pieces[0].pass(&mut buffer, key(1, 2), 0), Taken::Release { .. }));
    assert!(matches!(pieces[0].pass(&mut buffer, key(1, 10), 0), Taken::Release { .. }));
    assert_eq!(pieces[0].pass(&mut buffer, key(1, 1), 0), Taken::Now(PORTS));
    assert_eq!(buffer.expire(at(0)), Lost { source_share: 2, ..Lost::default() });
    buffer.verify(&limits);
}

/// It is itself the oldest, and another source's is between the two.
#[test]
fn a_datagram_that_grows_makes_room_among_the_others_of_its_source_alone() {
    let limits = Limits { memory: 200_000, datagrams: 80, ..Limits::DEFAULT };
    let mut buffer = FragmentBuffer::new(limits);
    let pieces = train(24_000, &[0, 8, 8008, 16_008]);
    assert_eq!(pieces[1].pass(&mut buffer, key(1, 1), 0), Taken::Parked);
    assert_eq!(pieces[1].pass(&mut buffer, key(2, 1), 0), Taken::Parked);
    assert_eq!(pieces[1].pass(&mut buffer, key(1, 2), 0), Taken::Parked);
    assert_eq!(buffer.usage().packets, 3);
    assert_eq!(pieces[2].pass(&mut buffer, key(1, 1), 0), Taken::Parked);
    buffer.verify(&limits);
    assert_eq!(buffer.expire(at(0)), Lost { source_share: 1, ..Lost::default() });
    let parked = |places: &[usize]| places.iter().map(|place| pieces[*place].packet()).collect();
    let released = Taken::Release { ports: PORTS, parked: parked(&[1, 2]) };
    assert_eq!(pieces[0].pass(&mut buffer, key(1, 1), 0), released);
    let released = Taken::Release { ports: PORTS, parked: parked(&[1]) };
    assert_eq!(pieces[0].pass(&mut buffer, key(2, 1), 0), released);
    assert_eq!(pieces[0].pass(&mut buffer, key(1, 2), 0), Taken::Now(PORTS));
}

/// The same of the whole buffer, whose oldest datagram it is, and whose others are of other sources.
#[test]
fn a_datagram_that_grows_makes_room_in_a_full_buffer() {
    let limits = Limits { memory: 40_000, datagrams: 10, shares: 2, ..Limits::DEFAULT };
    let mut buffer = FragmentBuffer::new(limits);
    let pieces = train(24_000, &[0, 8, 8008, 16_008]);
    for source in 1..=4 {
        assert_eq!(pieces[1].pass(&mut buffer, key(source, 1), 0), Taken::Parked);
    }
    assert_eq!(pieces[2].pass(&mut buffer, key(1, 1), 0), Taken::Parked);
    buffer.verify(&limits);
    assert_eq!(buffer.expire(at(0)), Lost { buffer_full: 1, ..Lost::default() });
    assert_eq!(pieces[0].pass(&mut buffer, key(2, 1), 0), Taken::Now(PORTS), "the second is gone");
    for source in [1, 3, 4] {
        assert!(matches!(pieces[0].pass(&mut buffer, key(source, 1), 0), Taken::Release { .. }));
    }
}

#[test]
fn a_bound_can_be_used_to_the_last_byte() {
    let mut all = buffer();
    let tables = all.usage().memory;
    assert_eq!(later(8000).pass(&mut all, key(1, 1), 0), Taken::Parked);
    let memory = FragmentBuffer::PER_DATAGRAM + all.usage().memory - tables;
    for (memory, taken) in [(memory, Taken::Parked), (memory - 1, refused(FragmentRefusal::SourceShare, 1))] {
        let limits = Limits { memory, datagrams: 1, shares: 1, ..Limits::DEFAULT };
        let mut buffer = FragmentBuffer::new(limits);
        assert_eq!(later(8000).pass(&mut buffer, key(1, 1), 0), taken);
        buffer.verify(&limits);
    }
}

/// As [`Limits::DEFAULT`] says.
#[test]
fn a_source_may_have_13_of_the_longest_pings_on_their_way() {
    let mut buffer = buffer();
    let starts: Vec<_> = (0..65_515).step_by(1232).collect();
    let pieces = train(65_515, &starts);
    for piece in &pieces[1..] {
        for number in 0..13 {
            assert_eq!(piece.collect(&mut buffer, key(1, number), 0), Taken::Parked);
        }
        buffer.verify(&Limits::DEFAULT);
    }
    for number in 0..13 {
        assert!(matches!(pieces[0].collect(&mut buffer, key(1, number), 0), Taken::Whole(_)), "{number}");
    }
}

/// Forged fragments of ever new sources: none of them has too much, and all together they fill the buffer. A train whose
/// fragments come one soon after the other gets through.
#[test]
fn a_flood_of_many_sources_pushes_out_the_oldest() {
    let limits = Limits { memory: 1 << 20, datagrams: 512, ..Limits::DEFAULT };
    for length in [8, 8000] {
        let mut buffer = FragmentBuffer::new(limits);
        let pieces = train(3000, &[0, 1200, 2400]);
        let mut sent = 0_u32;
        let forged = later(length);
        let mut flood = |buffer: &mut FragmentBuffer, count| {
            for _ in 0..count {
                sent += 1;
                let Key::V4 { destination, .. } = key(1, 1) else { panic!() };
                let source = Ipv4Addr::from(0x0a00_0000 + sent);
                let key = Key::V4 { source, destination, protocol: 17, identification: 1 };
                assert_eq!(forged.pass(buffer, key, 0), Taken::Parked);
            }
        };
        flood(&mut buffer, 2000);
        for number in 0..50 {
            assert_eq!(pieces[2].pass(&mut buffer, key(1, number), 0), Taken::Parked);
            flood(&mut buffer, 20);
            let parked = vec![pieces[2].packet()];
            assert_eq!(
                pieces[0].pass(&mut buffer, key(1, number), 0),
                Taken::Release { ports: PORTS, parked }
            );
            flood(&mut buffer, 20);
            assert_eq!(pieces[1].pass(&mut buffer, key(1, number), 0), Taken::Now(PORTS));
            buffer.verify(&limits);
        }
        let usage = buffer.usage();
        let expected = Lost { buffer_full: u64::from(sent) - usage.packets as u64, ..Lost::default() };
        assert_eq!(buffer.expire(at(0)), expected);
        assert_eq!(usage.datagrams, if length == 8 { 511 } else { usage.packets });
    }
}

#[test]
fn a_datagram_that_is_longer_than_the_share_of_its_source_is_lost() {
    let limits = Limits { memory: 100_000, datagrams: 10, ..Limits::DEFAULT };
    let pieces = train(65_535, &[0, 8, 8008, 16_008, 24_008, 32_008, 40_008, 48_008, 56_008]);
    let mut buffer = FragmentBuffer::new(limits);
    assert_eq!(pieces[1].pass(&mut buffer, key(1, 1), 0), Taken::Parked);
    let lost = refused(FragmentRefusal::SourceShare, 2);
    assert_eq!(pieces[2].pass(&mut buffer, key(1, 1), 0), lost);
    let lost = refused(FragmentRefusal::SourceShare, 1);
    assert_eq!(pieces[0].pass(&mut buffer, key(1, 1), 0), lost, "all of it");
    buffer.verify(&limits);
    // The only source there may be has room for all of it.
    let mut buffer = FragmentBuffer::new(Limits { shares: 1, ..limits });
    for piece in &pieces[1..] {
        assert_eq!(piece.pass(&mut buffer, key(1, 1), 0), Taken::Parked);
    }
    assert!(matches!(pieces[0].pass(&mut buffer, key(1, 1), 0), Taken::Release { .. }));
}

#[test]
fn a_buffer_without_room_refuses_everything() {
    let nothing = [
        Limits { memory: 0, ..Limits::DEFAULT },
        Limits { datagrams: 0, ..Limits::DEFAULT },
        Limits { memory: FragmentBuffer::PER_DATAGRAM, ..Limits::DEFAULT },
    ];
    for limits in nothing {
        let mut buffer = FragmentBuffer::new(limits);
        let full = refused(FragmentRefusal::BufferFull, 1);
        for piece in &train(16, &[0, 8]) {
            assert_eq!(piece.pass(&mut buffer, key(1, 1), 0), full);
            assert_eq!(piece.collect(&mut buffer, key(1, 1), 0), full);
        }
        assert_eq!(buffer.usage().datagrams, 0);
    }
}

#[test]
fn any_limits_are_limits() {
    for memory in [1, 1000, 2 * FragmentBuffer::PER_DATAGRAM, 10_000] {
        for datagrams in [1, 2, 1000, usize::MAX] {
            for shares in [0, 1, 2, usize::MAX] {
                for fragments_per_datagram in [0, 1, usize::MAX] {
                    let limits =
                        Limits { memory, datagrams, shares, fragments_per_datagram, timeout: Duration::ZERO };
                    let mut buffer = FragmentBuffer::new(limits);
                    for (at, piece) in train(160, &[0, 8, 16, 80]).iter().enumerate() {
                        let _ = piece.collect(&mut buffer, key(source(at), 1), 0);
                        let _ = piece.pass(&mut buffer, key(1, 1), 0);
                        buffer.verify(&limits);
                    }
                }
            }
        }
    }
}

#[test]
fn a_full_buffer_has_the_memory_that_it_may_have() {
    let mut buffer = buffer();
    let tables = buffer.usage().memory;
    let piece = later(4000);
    assert!(tables < Limits::DEFAULT.memory / 8, "{tables} bytes of bookkeeping");
    for n in 0..20_000_u16 {
        let _ = piece.pass(&mut buffer, key(source(usize::from(n) % 200), n), 0);
    }
    buffer.verify(&Limits::DEFAULT);
    let usage = buffer.usage();
    assert!(usage.memory > Limits::DEFAULT.memory - 4200, "all of it is used: {usage:?}");
    assert!(usage.packets > 1700, "{usage:?}");
}
