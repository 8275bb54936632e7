//! The buffer with packets that are packets only as far as it looks.

mod bounds;
mod interworking;
mod properties;

use super::*;
use fast_nat::Timestamp;
use interproto::HEADROOM;

/// What the ports of the first fragments are.
const PORTS: Ports = Ports::Pair { source: 40_000, destination: 53 };
const OTHER_PORTS: Ports = Ports::Pair { source: 40_001, destination: 53 };

/// Bytes of headers in front of each payload.
const HEADERS: usize = 24;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// Datagram `n` of source `source`.
fn key(source: u8, n: u16) -> Key {
    Key::V4 {
        source: Ipv4Addr::new(198, 51, 100, source),
        destination: Ipv4Addr::new(203, 0, 113, 1),
        protocol: 17,
        identification: n,
    }
}

fn key6(n: u32) -> Key {
    let source = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    Key::V6 { source, destination: Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 1), identification: n }
}

/// What the payload of a datagram is at this place.
fn byte(at: usize) -> u8 {
    (at / 8 * 7 + at) as u8
}

/// A fragment, and what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    part: FragmentPart,
    storage: Vec<u8>,
}

impl Piece {
    /// `traffic_class` is the second byte of the headers, the others are `headers`.
    fn with(offset: u16, payload: &[u8], more: bool, headers: u8, traffic_class: u8) -> Self {
        let mut storage = vec![headers; HEADROOM + HEADERS];
        storage[HEADROOM + 1] = traffic_class;
        storage.extend_from_slice(payload);
        let payload = HEADROOM + HEADERS..storage.len();
        // Padding of a short frame.
        storage.extend_from_slice(&[0xee; 3]);
        Self { part: FragmentPart { identification: 0, offset, more, headers: HEADERS, payload }, storage }
    }

    fn new(offset: u16, length: usize, more: bool) -> Self {
        let payload: Vec<u8> = (usize::from(offset)..).take(length).map(byte).collect();
        Self::with(offset, &payload, more, offset as u8, 0)
    }

    fn packet(&self) -> Box<[u8]> {
        self.storage[HEADROOM..self.part.payload.end].into()
    }

    fn pass(&self, buffer: &mut FragmentBuffer, key: Key, now: u64) -> Taken {
        let ports = if self.part.offset == 0 { PORTS } else { Ports::None };
        buffer.pass(&key, &self.part, ports, &self.storage, at(now))
    }

    fn take(&self, buffer: &mut FragmentBuffer, key: Key, now: u64, collect: bool) -> Taken {
        if collect { self.collect(buffer, key, now) } else { self.pass(buffer, key, now) }
    }

    fn collect(&self, buffer: &mut FragmentBuffer, key: Key, now: u64) -> Taken {
        buffer.collect(&key, &self.part, &self.storage, at(now))
    }
}

/// The fragments of a datagram of `length` bytes that begin at these places.
fn train(length: usize, starts: &[usize]) -> Vec<Piece> {
    let ends = starts.iter().skip(1).copied().chain([length]);
    let piece = |(start, end): (&usize, usize)| Piece::new(*start as u16, end - start, end < length);
    starts.iter().zip(ends).map(piece).collect()
}

fn refused(reason: FragmentRefusal, packets: usize) -> Taken {
    Taken::Refused { reason, packets }
}

fn buffer() -> FragmentBuffer {
    FragmentBuffer::new(Limits::DEFAULT)
}

#[test]
fn later_fragments_have_the_ports_of_the_first() {
    let mut buffer = buffer();
    let [first, second, third] = &train(30, &[0, 8, 16])[..] else { panic!() };
    assert_eq!(first.pass(&mut buffer, key(1, 1), 0), Taken::Now(PORTS));
    assert_eq!(third.pass(&mut buffer, key(1, 1), 5), Taken::Now(PORTS));
    assert_eq!(buffer.usage().packets, 0, "what passes is not kept");
    assert_eq!(second.pass(&mut buffer, key(1, 1), 9), Taken::Now(PORTS));
}

#[test]
fn what_comes_before_the_first_fragment_is_released_by_it_in_order_of_arrival() {
    let mut buffer = buffer();
    let [first, second, third, fourth] = &train(30, &[0, 8, 16, 24])[..] else { panic!() };
    assert_eq!(fourth.pass(&mut buffer, key(1, 1), 0), Taken::Parked);
    assert_eq!(second.pass(&mut buffer, key(1, 1), 1), Taken::Parked);
    assert_eq!(buffer.usage().packets, 2);
    let parked = vec![fourth.packet(), second.packet()];
    assert_eq!(first.pass(&mut buffer, key(1, 1), 2), Taken::Release { ports: PORTS, parked });
    assert_eq!((buffer.usage().packets, buffer.usage().datagrams), (0, 1));
    assert_eq!(third.pass(&mut buffer, key(1, 1), 3), Taken::Now(PORTS));
}

/// A busy pair of hosts uses all 65,536 numbers again within the timeout (RFC 4963).
#[test]
fn a_datagram_that_is_through_leaves_its_identification_to_the_next() {
    let mut buffer = buffer();
    let before = buffer.usage();
    for ports in [PORTS, OTHER_PORTS] {
        let pieces = train(30, &[0, 8, 16]);
        for piece in [&pieces[2], &pieces[0], &pieces[1]] {
            let taken = buffer.pass(&key(1, 1), &piece.part, ports, &piece.storage, at(0));
            match taken {
                Taken::Parked => assert_eq!(piece, &pieces[2]),
                Taken::Release { ports: its, .. } | Taken::Now(its) => assert_eq!(its, ports),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(buffer.usage(), before);
    }
}

#[test]
fn datagrams_are_told_apart_by_every_part_of_their_keys() {
    let Key::V4 { source, destination, protocol, identification } = key(1, 1) else { panic!() };
    let elsewhere = Ipv4Addr::new(203, 0, 113, 2);
    let Key::V6 { source: source6, destination: destination6, .. } = key6(1) else { panic!() };
    let others = [
        Key::V4 { source: elsewhere, destination, protocol, identification },
        Key::V4 { source, destination: elsewhere, protocol, identification },
        Key::V4 { source, destination, protocol: 6, identification },
        Key::V4 { source, destination, protocol, identification: 2 },
        key6(1),
        key6(0x1_0001),
        Key::V6 { source: destination6, destination: destination6, identification: 1 },
        Key::V6 { source: source6, destination: source6, identification: 1 },
    ];
    let mut buffer = buffer();
    let pieces = train(16, &[0, 8]);
    assert_eq!(pieces[0].pass(&mut buffer, key(1, 1), 0), Taken::Now(PORTS));
    for other in others {
        assert_eq!(pieces[1].pass(&mut buffer, other, 0), Taken::Parked, "{other:?}");
    }
    assert_eq!(pieces[1].pass(&mut buffer, key(1, 1), 0), Taken::Now(PORTS));
}

#[test]
fn keys_are_read_from_the_packet() {
    let part = Piece::new(8, 8, false).part;
    let part = FragmentPart { identification: 0xdead_0002, ..part };
    let Key::V4 { source, destination, .. } = key(1, 1) else { panic!() };
    for (protocol, number) in
        [(Protocol::Icmp, 1), (Protocol::Tcp, 6), (Protocol::Udp, 17), (Protocol::Other(50), 50)]
    {
        let tuple = Tuple { source, destination, protocol, ports: Ports::None };
        let expected = Key::V4 { source, destination, protocol: number, identification: 2 };
        assert_eq!(Key::v4(&tuple, &part), expected);
    }
    let Key::V6 { source, destination, .. } = key6(1) else { panic!() };
    let tuple = Tuple { source, destination, protocol: Protocol::Icmp, ports: Ports::None };
    assert_eq!(Key::v6(&tuple, &part), key6(0xdead_0002));
}

#[test]
fn a_message_in_fragments_is_put_together_behind_the_headers_of_the_first() {
    for key in [key(1, 1), key6(1)] {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut buffer = buffer();
            let before = buffer.usage();
            let pieces = train(3001, &[0, 1200, 2400]);
            assert_eq!(pieces[order[0]].collect(&mut buffer, key, 0), Taken::Parked);
            assert_eq!(pieces[order[1]].collect(&mut buffer, key, 0), Taken::Parked);
            let Taken::Whole(Whole { storage, packet }) = pieces[order[2]].collect(&mut buffer, key, 0)
            else {
                panic!("a whole message")
            };
            assert_eq!(packet, HEADROOM..HEADROOM + HEADERS + 3001);
            let expected = Piece::new(0, 3001, false);
            assert_eq!(storage[packet], expected.packet()[..]);
            assert_eq!(buffer.usage(), before);
        }
    }
}

/// Nobody can know, when a later fragment comes, that the first has no checksum.
#[test]
fn a_first_fragment_that_needs_the_others_gets_those_that_would_have_passed() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut buffer = buffer();
        let pieces = train(40, &[0, 16, 32]);
        let mut taken = Vec::new();
        for place in order {
            let piece = &pieces[place];
            taken.push(match place {
                0 => piece.collect(&mut buffer, key(1, 1), 0),
                _ => piece.pass(&mut buffer, key(1, 1), 0),
            });
        }
        assert_eq!(taken[..2], [Taken::Parked, Taken::Parked]);
        let Taken::Whole(Whole { storage, packet }) = &taken[2] else { panic!("{taken:?}") };
        assert_eq!(storage[packet.clone()], Piece::new(0, 40, false).packet()[..]);
    }
}

/// IPv6 only: what a later fragment says that it carries is no part of the key (RFC 8200 §4.5).
#[test]
fn a_later_fragment_that_claims_to_be_icmp_does_not_join_what_passes() {
    let mut buffer = buffer();
    let pieces = train(24, &[0, 8, 16]);
    assert_eq!(pieces[0].pass(&mut buffer, key6(1), 0), Taken::Now(PORTS));
    assert_eq!(pieces[1].collect(&mut buffer, key6(1), 0), refused(FragmentRefusal::Malformed, 1));
    assert_eq!(pieces[1].pass(&mut buffer, key6(1), 0), Taken::Now(PORTS), "it is none of the datagram's");
    assert_eq!(pieces[2].pass(&mut buffer, key6(1), 0), Taken::Now(PORTS));
    // The other way round the first one decides what the whole is.
    assert_eq!(pieces[2].collect(&mut buffer, key6(2), 0), Taken::Parked);
    assert_eq!(pieces[0].pass(&mut buffer, key6(2), 0), Taken::Parked);
    assert!(matches!(pieces[1].pass(&mut buffer, key6(2), 0), Taken::Whole(_)));
}

/// RFC 5722 §4.
#[test]
fn an_overlap_loses_the_whole_datagram_and_what_still_comes_of_it() {
    let bad = [(8, 16), (16, 8), (8, 8), (0, 32), (24, 16), (16, 24), (24, 24), (16, 32)];
    for (offset, length) in bad {
        for collect in [false, true] {
            let mut buffer = buffer();
            let empty = buffer.usage();
            // From 8 to 40, by 16 bytes.
            for piece in &[Piece::new(8, 16, true), Piece::new(24, 16, true)] {
                assert_eq!(piece.take(&mut buffer, key(1, 1), 0, collect), Taken::Parked);
            }
            let bad = Piece::new(offset, length, true);
            if (offset, length) == (8, 16) || (offset, length) == (24, 16) {
                assert_eq!(
                    bad.take(&mut buffer, key(1, 1), 1, collect),
                    refused(FragmentRefusal::Duplicate, 1)
                );
                continue;
            }
            assert_eq!(
                bad.take(&mut buffer, key(1, 1), 1, collect),
                refused(FragmentRefusal::Overlap, 3),
                "{bad:?}"
            );
            assert_eq!(buffer.usage(), Usage { datagrams: 1, ..empty }, "only its place is taken");
            for later in [Piece::new(0, 8, true), Piece::new(40, 8, false), Piece::new(8, 16, true)] {
                assert_eq!(
                    later.take(&mut buffer, key(1, 1), 1999, collect),
                    refused(FragmentRefusal::Overlap, 1)
                );
            }
            assert_eq!(
                Piece::new(8, 16, true).take(&mut buffer, key(1, 1), 2000, collect),
                Taken::Parked,
                "another one"
            );
        }
    }
}

#[test]
fn what_has_passed_can_be_overlapped_too() {
    let mut buffer = buffer();
    assert_eq!(Piece::new(0, 16, true).pass(&mut buffer, key(1, 1), 0), Taken::Now(PORTS));
    let overlapping = Piece::new(8, 16, true).pass(&mut buffer, key(1, 1), 0);
    assert_eq!(overlapping, refused(FragmentRefusal::Overlap, 1));
    let later = Piece::new(24, 16, false).pass(&mut buffer, key(1, 1), 0);
    assert_eq!(later, refused(FragmentRefusal::Overlap, 1));
}

#[test]
fn fragments_that_contradict_each_other_about_the_end_lose_the_datagram() {
    let contradictions = [
        // Two ends, the second one later, earlier, and at the same place as a fragment with others behind it.
        (Piece::new(16, 8, false), Piece::new(32, 8, false)),
        (Piece::new(16, 8, false), Piece::new(8, 8, false)),
        (Piece::new(16, 8, false), Piece::new(16, 8, true)),
        (Piece::new(16, 8, true), Piece::new(16, 8, false)),
        // Something behind the end.
        (Piece::new(16, 8, false), Piece::new(24, 8, true)),
        (Piece::new(24, 8, true), Piece::new(16, 8, false)),
        (Piece::new(24, 8, true), Piece::new(16, 7, false)),
    ];
    for (one, other) in contradictions {
        let mut buffer = buffer();
        assert_eq!(one.pass(&mut buffer, key(1, 1), 0), Taken::Parked);
        assert_eq!(other.pass(&mut buffer, key(1, 1), 0), refused(FragmentRefusal::Overlap, 2), "{other:?}");
    }
}

/// RFC 8200 §4.5 lets exact duplicates be told from overlaps.
#[test]
fn a_duplicate_goes_nowhere_and_loses_nothing() {
    let mut buffer = buffer();
    let duplicate = refused(FragmentRefusal::Duplicate, 1);
    let pieces = train(20, &[0, 8, 16]);
    for place in [2, 0] {
        let taken = pieces[place].pass(&mut buffer, key(1, 1), 0);
        assert!(!matches!(taken, Taken::Refused { .. }));
        assert_eq!(pieces[place].pass(&mut buffer, key(1, 1), 0), duplicate);
        assert_eq!(pieces[place].collect(&mut buffer, key(1, 2), 0), Taken::Parked);
        assert_eq!(pieces[place].collect(&mut buffer, key(1, 2), 0), duplicate);
    }
    // Another content changes nothing: the first one counts.
    let forged = Piece::with(0, &[9; 8], true, 9, 0);
    assert_eq!(forged.collect(&mut buffer, key(1, 2), 0), duplicate);
    assert_eq!(pieces[1].pass(&mut buffer, key(1, 1), 0), Taken::Now(PORTS));
    let Taken::Whole(Whole { storage, packet }) = pieces[1].collect(&mut buffer, key(1, 2), 0) else {
        panic!("a whole message")
    };
    assert_eq!(storage[packet], Piece::new(0, 20, false).packet()[..]);
}

#[test]
fn what_can_be_no_part_of_a_datagram_is_refused_and_harms_none() {
    let part =
        |offset, headers, payload| FragmentPart { identification: 0, offset, more: true, headers, payload };
    let storage = vec![0; 200];
    #[allow(clippy::reversed_empty_ranges, reason = "whatever a caller says, nothing panics")]
    let backwards = 100..60;
    let malformed = [
        Piece::new(8, 0, true),
        Piece::new(8, 0, false),
        Piece::new(8, 7, true),
        Piece::new(4, 8, true),
        Piece::new(65_528, 8, false),
        Piece { part: part(8, 20, 100..201), storage: storage.clone() },
        Piece { part: part(8, 101, 100..108), storage: storage.clone() },
        Piece { part: part(8, 20, backwards), storage: storage.clone() },
        Piece { part: part(8, 20, usize::MAX - 7..usize::MAX), storage },
    ];
    let mut buffer = buffer();
    for piece in malformed {
        let refused = refused(FragmentRefusal::Malformed, 1);
        assert_eq!(piece.pass(&mut buffer, key(1, 1), 0), refused, "{piece:?}");
        assert_eq!(piece.collect(&mut buffer, key(1, 1), 0), refused, "{piece:?}");
    }
    assert_eq!(buffer.usage().datagrams, 0);
}

#[test]
fn the_longest_datagram_is_put_together() {
    let mut buffer = buffer();
    let starts: Vec<_> = (0..65_535).step_by(1232).collect();
    let mut pieces = train(65_535, &starts);
    let last = pieces.pop().unwrap();
    for piece in pieces {
        assert_eq!(piece.collect(&mut buffer, key6(1), 0), Taken::Parked);
    }
    let Taken::Whole(Whole { storage, packet }) = last.collect(&mut buffer, key6(1), 0) else {
        panic!("a whole message")
    };
    assert_eq!(storage[packet], Piece::new(0, 65_535, false).packet()[..]);
}

#[test]
fn the_time_of_a_datagram_counts_from_the_fragment_that_came_first() {
    let mut buffer = buffer();
    let [first, second, third, fourth] = &train(30, &[0, 8, 16, 24])[..] else { panic!() };
    assert_eq!(second.pass(&mut buffer, key(1, 1), 1000), Taken::Parked);
    assert_eq!(third.pass(&mut buffer, key(1, 1), 2999), Taken::Parked);
    assert_eq!(buffer.expire(at(2999)), Lost::default());
    assert_eq!(buffer.expire(at(3000)), Lost { timed_out: 2, ..Lost::default() });
    assert_eq!(buffer.expire(at(3000)), Lost::default(), "it is said once");
    // The ports are known for as long.
    assert_eq!(first.pass(&mut buffer, key(1, 1), 4000), Taken::Now(PORTS));
    assert_eq!(second.pass(&mut buffer, key(1, 1), 5999), Taken::Now(PORTS));
    assert_eq!(fourth.pass(&mut buffer, key(1, 1), 6000), Taken::Parked);
    assert_eq!(buffer.expire(at(7999)), Lost::default(), "what has passed is not lost");
}

#[test]
fn what_is_over_is_over_without_anybody_asking() {
    let mut buffer = buffer();
    let pieces = train(24, &[0, 8, 16]);
    assert_eq!(pieces[0].collect(&mut buffer, key(1, 1), 0), Taken::Parked);
    assert_eq!(pieces[1].collect(&mut buffer, key(1, 2), 1), Taken::Parked);
    assert_eq!(pieces[1].collect(&mut buffer, key(1, 1), 2000), Taken::Parked);
    assert_eq!((buffer.usage().datagrams, buffer.usage().packets), (2, 2));
    assert_eq!(buffer.expire(at(2001)), Lost { timed_out: 2, ..Lost::default() });
}

#[test]
fn the_next_one_to_be_over_says_when_to_wake() {
    let mut buffer = buffer();
    assert_eq!(buffer.wake_after(at(0)), None);
    let piece = Piece::new(8, 8, true);
    assert_eq!(piece.pass(&mut buffer, key(1, 1), 100), Taken::Parked);
    assert_eq!(piece.pass(&mut buffer, key(1, 2), 300), Taken::Parked);
    assert_eq!(buffer.wake_after(at(400)), Some(Duration::from_millis(1700)));
    assert_eq!(buffer.wake_after(at(5000)), Some(Duration::ZERO));
    buffer.expire(at(2100));
    assert_eq!(buffer.wake_after(at(2100)), Some(Duration::from_millis(200)));
}

#[test]
fn a_worker_that_read_its_clock_earlier_turns_nothing_back() {
    let mut buffer = buffer();
    let [first, second] = &train(16, &[0, 8])[..] else { panic!() };
    assert_eq!(second.pass(&mut buffer, key(1, 1), 1000), Taken::Parked);
    assert_eq!(second.pass(&mut buffer, key(1, 2), 900), Taken::Parked);
    buffer.verify(&Limits::DEFAULT);
    assert_eq!(buffer.wake_after(at(1000)), Some(Duration::from_secs(2)));
    assert_eq!(buffer.expire(at(2950)), Lost::default());
    assert!(matches!(first.pass(&mut buffer, key(1, 2), 2900), Taken::Release { .. }));
    assert_eq!(buffer.expire(at(3000)), Lost { timed_out: 1, ..Lost::default() });
}

/// RFC 3168 §5.3: congestion must not be lost, and not be told to who could not be told.
#[test]
fn congestion_that_one_fragment_met_is_told_by_the_whole_datagram() {
    let (not_ect, ect1, ect0, ce) = (0, 1, 2, 3);
    let cases = [
        ([not_ect, not_ect], Some(not_ect)),
        ([ect0, ect0], Some(ect0)),
        ([ect0, ect1], Some(ect0)),
        ([ect1, ce], Some(ce)),
        ([not_ect, ect0], Some(not_ect)),
        ([ect0, ce], Some(ce)),
        ([ce, ect1], Some(ce)),
        ([ce, ce], Some(ce)),
        ([not_ect, ce], None),
        ([ce, not_ect], None),
    ];
    for (key, shift) in [(key(1, 1), 0), (key6(1), 4)] {
        for ([one, other], expected) in cases {
            let mut buffer = buffer();
            // All other bits of the byte stay what they are in the first.
            let rest = 0b1010_1010 & !(0b11 << shift);
            let first = Piece::with(0, &[1; 8], true, 0, rest | one << shift);
            let second = Piece::with(8, &[2; 8], false, 0, other << shift);
            assert_eq!(second.collect(&mut buffer, key, 0), Taken::Parked);
            match (first.collect(&mut buffer, key, 0), expected) {
                (Taken::Whole(Whole { storage, packet }), Some(expected)) => {
                    assert_eq!(storage[packet.start + 1], rest | expected << shift);
                }
                (taken, None) => assert_eq!(taken, refused(FragmentRefusal::MixedEcn, 2)),
                other => panic!("{other:?}"),
            }
            assert_eq!((buffer.usage().datagrams, buffer.usage().packets), (0, 0));
        }
    }
}

#[test]
fn every_refusal_has_a_word_of_its_own() {
    let words: std::collections::HashSet<_> =
        FragmentRefusal::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(words.len(), 8);
    assert!(words.iter().all(|word| word.starts_with("fragment_")));
}
