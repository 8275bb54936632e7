//! The joiner, its rules one by one, and the law of [`shared::law`] for whatever comes.

mod checksums;
mod corpus;
mod limits;
mod order;
mod rules;
#[allow(unreachable_pub, reason = "shared with the fuzz target")]
mod shared;

use interproto::VirtioNetHdr;
use proptest::prelude::*;

use super::*;
use crate::datapath::join;
use shared::law::{Reached, Step, obeys};
use shared::packets::{ACK, Checksum, DF, FIN, Made, PSH, fold, pattern, sum};
use shared::scenario;

const ALL: Joins = Joins { tcp: true, udp: true };

/// The four kinds of packets that are joined: IPv4 and not IPv6, TCP and not UDP.
const KINDS: [(bool, bool); 4] = [(true, true), (false, true), (true, false), (false, false)];

/// One of each kind.
fn kinds(length: usize) -> [Made; 4] {
    KINDS.map(|(four, tcp)| Made::new(four, tcp, &pattern(length)))
}

/// A frame as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Out {
    frame: Vec<u8>,
    segments: usize,
    wire_length: usize,
}

#[derive(Debug, Default)]
struct Outs(Vec<Out>);

impl Sink for Outs {
    fn write(&mut self, frame: &[u8], segments: usize, wire_length: usize) {
        self.0.push(Out { frame: frame.to_vec(), segments, wire_length });
    }
}

/// A joiner whose identifications are 1000, 2000 and so on.
#[derive(Debug)]
struct Bench {
    joiner: Joiner,
    outs: Outs,
    identification: u16,
}

impl Bench {
    fn new() -> Self {
        Self { joiner: Joiner::new(ALL), outs: Outs::default(), identification: 0 }
    }

    fn identifications(identification: &mut u16) -> impl FnMut(usize) -> u16 {
        move |_| {
            *identification += 1000;
            *identification
        }
    }

    /// What is written at once.
    fn push(&mut self, frame: &[u8]) -> Vec<Out> {
        let mut identifications = Self::identifications(&mut self.identification);
        self.joiner.push(frame, &mut identifications, &mut self.outs);
        std::mem::take(&mut self.outs.0)
    }

    fn flush(&mut self) -> Vec<Out> {
        let mut identifications = Self::identifications(&mut self.identification);
        self.joiner.flush(&mut identifications, &mut self.outs);
        std::mem::take(&mut self.outs.0)
    }
}

/// What becomes of one batch, which obeys the law.
fn batch(packets: &[Made]) -> Vec<Out> {
    frames(&packets.iter().map(Made::frame).collect::<Vec<_>>())
}

fn frames(frames: &[Vec<u8>]) -> Vec<Out> {
    let steps: Vec<_> = frames.iter().cloned().map(Step::Push).collect();
    obeys(&steps, ALL).unwrap();
    let mut bench = Bench::new();
    let mut outs: Vec<_> = frames.iter().flat_map(|frame| bench.push(frame)).collect();
    outs.extend(bench.flush());
    outs
}

/// How many packets are in each frame that was written.
fn segments(outs: &[Out]) -> Vec<usize> {
    outs.iter().map(|out| out.segments).collect()
}

/// Makes the checksum of a frame's IPv4 header right.
fn seal(frame: &mut [u8]) {
    frame[20..22].fill(0);
    let checksum = !fold(sum(&frame[10..30]));
    frame[20..22].copy_from_slice(&checksum.to_be_bytes());
}

fn said(out: &Out) -> VirtioNetHdr {
    VirtioNetHdr::from_bytes(*out.frame.first_chunk().unwrap())
}

#[test]
fn eight_packets_of_a_flow_leave_in_one_write_that_says_how_to_cut_it() {
    let types = [
        VirtioNetHdr::GSO_TCPV4,
        VirtioNetHdr::GSO_TCPV6,
        VirtioNetHdr::GSO_UDP_L4,
        VirtioNetHdr::GSO_UDP_L4,
    ];
    for (made, gso_type) in kinds(1200).into_iter().zip(types) {
        let outs = batch(&made.train(8));
        assert_eq!(segments(&outs), [8]);
        let upper = if made.tcp { 32 } else { 8 };
        let expected = VirtioNetHdr {
            flags: VirtioNetHdr::NEEDS_CSUM,
            gso_type,
            hdr_len: (made.upper_at() + upper) as u16,
            gso_size: 1200,
            csum_start: made.upper_at() as u16,
            csum_offset: if made.tcp { 16 } else { 6 },
        };
        assert_eq!(said(&outs[0]), expected);
        assert_eq!(outs[0].wire_length, 8 * (made.upper_at() + upper + 1200));
        assert_eq!(outs[0].frame.len(), 10 + made.upper_at() + upper + 8 * 1200);
    }
}

#[test]
fn eight_packets_of_each_of_eight_flows_in_turn_leave_in_eight_writes() {
    let flows: Vec<_> =
        [1, 2].iter().flat_map(|host| kinds(500).map(|made| Made { host: *host, ..made })).collect();
    let trains: Vec<_> = flows.iter().map(|made| made.train(8)).collect();
    let packets: Vec<_> = (0..8).flat_map(|at| trains.iter().map(move |train| train[at].clone())).collect();
    let outs = batch(&packets);
    assert_eq!(segments(&outs), [8; 8]);
}

#[test]
fn a_packet_that_meets_no_other_leaves_as_it_came() {
    for made in kinds(300) {
        for checksum in [Checksum::Whole, Checksum::Verified, Checksum::Partial] {
            let mut frame = Made { checksum, fragment: 0, ..made.clone() }.frame();
            // Even if it is corrupted.
            *frame.last_mut().unwrap() ^= 1;
            let outs = frames(std::slice::from_ref(&frame));
            let wire_length = frame.len() - 10;
            assert_eq!(outs, [Out { frame, segments: 1, wire_length }]);
        }
    }
}

#[test]
fn nothing_is_joined_that_the_device_does_not_take() {
    for (joins, tcp, udp) in [
        (Joins { tcp: false, udp: false }, 8, 8),
        (Joins { tcp: true, udp: false }, 1, 8),
        (Joins { tcp: false, udp: true }, 8, 1),
        (ALL, 1, 1),
    ] {
        for made in kinds(100) {
            let steps: Vec<_> = made.train(8).iter().map(|made| Step::Push(made.frame())).collect();
            let reached = obeys(&steps, joins).unwrap();
            assert_eq!(reached.written, if made.tcp { tcp } else { udp }, "{joins:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_joined_is_cut_into_what_it_was(
        input in prop::collection::vec(any::<u8>(), 0..200)
    ) {
        let (joins, steps) = scenario::steps(&input);
        if let Err(wrong) = obeys(&steps, joins) {
            return Err(TestCaseError::fail(wrong));
        }
    }
}

/// The law says nothing where nothing happens.
#[test]
fn random_batches_reach_what_the_law_speaks_of() {
    let mut random = 1_u64;
    let mut total = Reached::default();
    for _ in 0..30 {
        let input: Vec<u8> = (0..400)
            .map(|_| {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 56) as u8
            })
            .collect();
        let (joins, steps) = scenario::steps(&input);
        let reached = obeys(&steps, joins).unwrap();
        total.add(&reached);
    }
    println!("{total:?}");
    assert!(total.joined.iter().all(|joined| *joined > 100), "{total:?}");
    assert!(total.passed > 20 && total.unreadable > 60 && total.longest >= 16, "{total:?}");
    assert!(total.written < total.pushed / 2, "{total:?}");
}
