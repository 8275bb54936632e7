//! Laws, and a second buffer that shares nothing with the first but its contract.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};

/// How the fragments of a datagram come to the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// All of them pass.
    Passed,
    /// All of them are collected.
    Collected,
    /// The first one is collected, and the others would pass.
    WithoutChecksum,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![Kind::Passed, Kind::Collected, Kind::WithoutChecksum])
}

fn take(buffer: &mut FragmentBuffer, key: &Key, kind: Kind, piece: &Piece, ports: Ports, now: u64) -> Taken {
    let is_first = piece.part.offset == 0;
    match kind {
        Kind::Collected => buffer.collect(key, &piece.part, &piece.storage, at(now)),
        Kind::WithoutChecksum if is_first => buffer.collect(key, &piece.part, &piece.storage, at(now)),
        _ => {
            let ports = if is_first { ports } else { Ports::None };
            buffer.pass(key, &piece.part, ports, &piece.storage, at(now))
        }
    }
}

/// A datagram of another content than all others, cut at some places.
fn datagram(n: usize, length: usize, cuts: &[usize]) -> Vec<Piece> {
    let payload: Vec<u8> = (0..length).map(|at| byte(at) ^ (n * 37) as u8).collect();
    let mut ends: Vec<_> =
        cuts.iter().map(|cut| cut * 8).filter(|cut| (1..length).contains(cut)).chain([length]).collect();
    ends.sort_unstable();
    ends.dedup();
    let starts = [0].into_iter().chain(ends.clone());
    let piece = |(number, (start, end)): (usize, (usize, &usize))| {
        let headers = (n * 16 + number) as u8;
        Piece::with(start as u16, &payload[start..*end], *end < length, headers, 0)
    };
    starts.zip(&ends).enumerate().map(piece).collect()
}

proptest! {
    /// Whatever the order, and whatever comes in between.
    #[test]
    fn every_packet_comes_out_once_and_in_its_place(
        (datagrams, order) in
            prop::collection::vec((1_usize..2000, prop::collection::vec(0_usize..250, 1..12), kind()), 1..6)
            .prop_map(|datagrams| -> Vec<_> {
                let cut = |(n, (length, cuts, kind)): (usize, (usize, Vec<usize>, Kind))| {
                    (datagram(n, length, &cuts), kind)
                };
                datagrams.into_iter().enumerate().map(cut).collect()
            })
            .prop_flat_map(|datagrams| {
                let all: Vec<_> = datagrams.iter().enumerate()
                    .flat_map(|(n, (pieces, _))| (0..pieces.len()).map(move |piece| (n, piece)))
                    .collect();
                (Just(datagrams), Just(all).prop_shuffle())
            })
    ) {
        let mut buffer = buffer();
        let mut arrived: Vec<Vec<&Piece>> = vec![Vec::new(); datagrams.len()];
        let mut is_out = vec![false; datagrams.len()];
        for (now, (n, number)) in order.into_iter().enumerate() {
            let (pieces, kind) = &datagrams[n];
            let piece = &pieces[number];
            let ports = Ports::Pair { source: n as u16, destination: 53 };
            let key = if n.is_multiple_of(2) { key(1, n as u16) } else { key6(n as u32) };
            let taken = take(&mut buffer, &key, *kind, piece, ports, now as u64);
            arrived[n].push(piece);
            let before = &arrived[n][..arrived[n].len() - 1];
            let first_came = before.iter().any(|piece| piece.part.offset == 0);
            let is_all = arrived[n].len() == pieces.len();
            let expected = match kind {
                Kind::Passed if first_came => Taken::Now(ports),
                Kind::Passed if piece.part.offset > 0 => Taken::Parked,
                Kind::Passed if before.is_empty() => Taken::Now(ports),
                Kind::Passed => {
                    Taken::Release { ports, parked: before.iter().map(|piece| piece.packet()).collect() }
                }
                Kind::Collected | Kind::WithoutChecksum if !is_all => Taken::Parked,
                Kind::Collected | Kind::WithoutChecksum => {
                    let mut storage = vec![0; HEADROOM];
                    storage.extend_from_slice(&pieces[0].packet()[..HEADERS]);
                    for piece in pieces {
                        storage.extend_from_slice(&piece.packet()[HEADERS..]);
                    }
                    let packet = HEADROOM..storage.len();
                    Taken::Whole(Whole { storage: storage.into(), packet })
                }
            };
            prop_assert_eq!(taken, expected);
            is_out[n] = is_all;
            let open = arrived.iter().zip(&is_out).filter(|(came, is_out)| !came.is_empty() && !**is_out);
            prop_assert_eq!(buffer.usage().datagrams, open.count());
        }
        prop_assert_eq!(buffer.usage().packets, 0);
        buffer.verify(&Limits::DEFAULT);
    }
}

/// What a datagram is, by its bytes.
#[derive(Debug, Default)]
struct Bytes {
    since: u64,
    /// Which packet each byte came with.
    owners: BTreeMap<usize, usize>,
    /// What came, in its order of arrival.
    packets: Vec<Piece>,
    end: Option<usize>,
    ports: Option<Ports>,
    collects: bool,
    lost: Option<FragmentRefusal>,
}

/// The buffer, as a plain map of byte arrays and without bounds.
#[derive(Debug, Default)]
struct Reference {
    datagrams: BTreeMap<u16, Bytes>,
    timed_out: u64,
}

impl Reference {
    fn expire(&mut self, now: u64) {
        self.datagrams.retain(|_, bytes| {
            let over = now >= bytes.since + 2000;
            if over && bytes.ports.is_none() && bytes.lost.is_none() {
                self.timed_out += bytes.packets.len() as u64;
            }
            !over
        });
    }

    fn take(&mut self, number: u16, piece: &Piece, ports: Option<Ports>, now: u64) -> Taken {
        self.expire(now);
        let (start, length) = (usize::from(piece.part.offset), piece.part.payload.len());
        if length == 0 || start % 8 != 0 || (piece.part.more && length % 8 != 0) || start + length > 65_535 {
            return refused(FragmentRefusal::Malformed, 1);
        }
        let bytes = self.datagrams.entry(number).or_insert_with(|| Bytes { since: now, ..Bytes::default() });
        if let Some(lost) = bytes.lost {
            return refused(lost, 1);
        }
        let is_same = |other: &Piece| {
            (other.part.offset, other.part.payload.len(), other.part.more)
                == (piece.part.offset, length, piece.part.more)
        };
        if bytes.packets.iter().any(is_same) {
            return refused(FragmentRefusal::Duplicate, 1);
        }
        let overlaps = (start..start + length).any(|at| bytes.owners.contains_key(&at));
        let second_end = !piece.part.more && bytes.end.is_some();
        let behind_end = bytes.end.is_some_and(|end| start + length > end)
            || (!piece.part.more && bytes.owners.keys().any(|at| *at >= start + length));
        if overlaps || second_end || behind_end {
            bytes.lost = Some(FragmentRefusal::Overlap);
            let parked = if bytes.ports.is_some() { 0 } else { bytes.packets.len() };
            return refused(FragmentRefusal::Overlap, 1 + parked);
        }
        if bytes.ports.is_some() && ports.is_none() {
            return refused(FragmentRefusal::Malformed, 1);
        }
        bytes.owners.extend((start..start + length).map(|at| (at, bytes.packets.len())));
        bytes.packets.push(piece.clone());
        if !piece.part.more {
            bytes.end = Some(start + length);
        }
        bytes.collects |= ports.is_none();
        let is_complete = bytes.end.is_some_and(|end| (0..end).all(|at| bytes.owners.contains_key(&at)));
        let taken = match bytes.ports {
            Some(ports) => Taken::Now(ports),
            None if bytes.collects && is_complete => {
                let packet = |at: usize| bytes.packets[bytes.owners[&at]].clone();
                let mut storage = vec![0; HEADROOM];
                storage.extend_from_slice(&packet(0).packet()[..HEADERS]);
                storage.extend((0..bytes.owners.len()).map(|at| {
                    let piece = packet(at);
                    piece.packet()[HEADERS + at - usize::from(piece.part.offset)]
                }));
                let packet = HEADROOM..storage.len();
                Taken::Whole(Whole { storage: storage.into(), packet })
            }
            None if bytes.collects || start > 0 => Taken::Parked,
            None => {
                bytes.ports = ports;
                let ports = ports.unwrap();
                let before = &bytes.packets[..bytes.packets.len() - 1];
                let parked: Vec<_> = before.iter().map(Piece::packet).collect();
                if parked.is_empty() { Taken::Now(ports) } else { Taken::Release { ports, parked } }
            }
        };
        if is_complete {
            self.datagrams.remove(&number);
        }
        taken
    }
}

/// A fragment of one of a few short datagrams, which often overlap, come again, or fail to fit.
#[derive(Debug, Clone)]
struct Step {
    number: u16,
    piece: Piece,
    collect: bool,
    pause: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let start = (0_u16..4).prop_map(|start| start * 8);
    let start = prop_oneof![12 => start, 1 => Just(4)];
    let length = prop::sample::select(vec![8, 8, 8, 8, 8, 8, 16, 16, 24, 24, 11, 0]);
    let pause = prop::sample::select(vec![0, 0, 0, 0, 0, 1, 100, 700, 2000]);
    let fields = (0_u16..3, start, length, any::<bool>(), prop::bool::weighted(0.3), pause, any::<u8>());
    fields.prop_map(|(number, start, length, more, other, pause, content)| {
        let payload: Vec<u8> = (0..length).map(|at| at ^ content).collect();
        let piece = Piece::with(start, &payload, more, content, 0);
        // Datagram 0 is mostly collected, the others mostly pass.
        Step { number, piece, collect: other == (number > 0), pause }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_buffer_does_what_a_plain_map_of_bytes_does(steps in prop::collection::vec(step(), 1..60)) {
        let mut buffer = buffer();
        let mut reference = Reference::default();
        let mut now = 0;
        for Step { number, piece, collect, pause } in steps {
            now += pause;
            let ports = Ports::Pair { source: now as u16, destination: number };
            let taken = if collect {
                buffer.collect(&key(1, number), &piece.part, &piece.storage, at(now))
            } else {
                buffer.pass(&key(1, number), &piece.part, ports, &piece.storage, at(now))
            };
            prop_assert_eq!(taken, reference.take(number, &piece, (!collect).then_some(ports), now));
            prop_assert_eq!(buffer.usage().datagrams, reference.datagrams.len());
            buffer.verify(&Limits::DEFAULT);
        }
        reference.expire(now + 5000);
        let lost = buffer.expire(at(now + 5000));
        prop_assert_eq!(lost, Lost { timed_out: reference.timed_out, ..Lost::default() });
        prop_assert_eq!(buffer.usage().datagrams, 0);
    }

    /// Whatever comes, no bound is passed, and each packet goes on once, or is counted as refused or lost, or is still there.
    #[test]
    fn no_bound_is_passed_and_no_packet_goes_unseen(
        limits in (prop::sample::select(vec![2000, 3000, 5000, 20_000]), 1_usize..20, 1_usize..4, 1_usize..6)
            .prop_map(|(memory, datagrams, shares, fragments_per_datagram)| Limits {
                memory, datagrams, shares, fragments_per_datagram, ..Limits::DEFAULT
            }),
        steps in prop::collection::vec(
            (0_u8..5, 0_u16..6, 0_u16..6, 1_usize..400, any::<bool>(), any::<bool>(), 0_u64..300),
            1..150
        ),
    ) {
        let mut buffer = FragmentBuffer::new(limits);
        let (mut went_on, mut others, mut now) = (HashSet::new(), 0, 0);
        for (name, (source, number, start, length, more, collect, pause)) in (0_u8..).zip(steps) {
            now += pause;
            let length = if more { length.next_multiple_of(8) } else { length };
            // All of its payload is its name.
            let piece = Piece::with(start * 96, &vec![name; length], more, 0, 0);
            let mut names = HashSet::new();
            match piece.take(&mut buffer, key(source, number), now, collect) {
                Taken::Now(_) => names.extend([name]),
                Taken::Release { parked, .. } => {
                    names.extend(parked.iter().map(|packet| packet[HEADERS]).chain([name]));
                    prop_assert_eq!(names.len(), parked.len() + 1);
                }
                Taken::Whole(Whole { storage, packet }) => names.extend(&storage[packet][HEADERS..]),
                Taken::Parked => {}
                Taken::Refused { packets, .. } => others += packets,
            }
            prop_assert!(went_on.is_disjoint(&names));
            went_on.extend(names);
            let lost = buffer.expire(at(now));
            others += (lost.timed_out + lost.buffer_full + lost.source_share) as usize;
            prop_assert_eq!(usize::from(name) + 1, went_on.len() + others + buffer.usage().packets);
            buffer.verify(&limits);
        }
    }

    #[test]
    fn nothing_panics(
        parts in prop::collection::vec(
            (any::<u16>(), any::<bool>(), 0_usize..100, 0_usize..120, 0_usize..120, any::<bool>()),
            0..20
        ),
        storage in prop::collection::vec(any::<u8>(), 0..110),
    ) {
        let mut buffer = buffer();
        for (offset, more, headers, start, end, collect) in parts {
            let part = FragmentPart { identification: 0, offset, more, headers, payload: start..end };
            let piece = Piece { part, storage: storage.clone() };
            let _ = piece.take(&mut buffer, key(1, 1), 0, collect);
            let _ = piece.take(&mut buffer, key6(1), 0, !collect);
            buffer.verify(&Limits::DEFAULT);
        }
    }
}
