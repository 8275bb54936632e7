use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;

use netlab::{kernel_tests_possible, run_program};

use super::*;
use crate::config::Partial;

#[test]
fn there_are_lanes_for_as_many_workers_as_they_can_be_shared_out_to() {
    let counts: Vec<_> = (0..=40).map(|workers| lanes_for(workers).map_or(0, Lanes::count)).collect();
    assert_eq!(counts[..14], [0, 0, 2, 8, 4, 8, 16, 32, 8, 16, 16, 32, 32, 32]);
    assert_eq!(counts[14..33], [0, 0, 16, 32, 32, 32, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32]);
    assert_eq!(counts[33..], [0; 8]);
}

#[test]
fn what_speaks_against_the_program_is_named_before_it_is_loaded() {
    let why = |queues: usize, block_size: u16, steering: bool| {
        let mut settings = Partial::default().configure(vec![]).unwrap().settings;
        (settings.num_queues, settings.sessions.block_size, settings.steering) =
            (queues, block_size, steering);
        let loaded = load_for(&settings);
        assert_eq!(told_by(&loaded), Lanes::ONE, "nothing is chosen for a program that is not there");
        loaded.unwrap_err().to_string()
    };
    assert_eq!(why(4, 128, false), "steering = false");
    assert_eq!(why(1, 128, true), "there is one worker");
    assert_eq!(why(15, 128, true), "lanes cannot be shared out evenly to 15 workers");
    let small = why(7, 128, true);
    assert!(
        small.starts_with("a block of 128 ports is too small for 32 lanes; set block_size = 256"),
        "{small}"
    );
    assert!(why(2, 8, true).contains("block_size = 16"));
}

#[test]
fn every_jump_ends_in_the_program() {
    let instructions = program(Lanes::ONE);
    let (_, before) = instructions.split_last().unwrap();
    for (at, instruction) in before.iter().enumerate() {
        let skipped = usize::try_from(instruction.offset).unwrap();
        assert!(at + 1 + skipped < instructions.len(), "instruction {at}");
    }
}

fn v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, options: usize, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 20 + 4 * options];
    packet[0] = 0x45 + options as u8;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    packet.extend(payload);
    packet
}

fn v6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 64];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &[0xff; 4]].concat()
}

fn echo(kind: u8, identifier: u16) -> Vec<u8> {
    [&[kind, 0, 0xff, 0xff][..], &identifier.to_be_bytes(), &[0xff; 2]].concat()
}

/// Numbers that look like chance and are the same each time.
fn numbers() -> impl Iterator<Item = u128> {
    (1..).scan(0x2001_0db8_u128 << 96, |state, n| {
        *state = state.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(n);
        Some(*state ^ *state >> 61)
    })
}

const ROUNDS: usize = 100;

#[test]
fn the_kernel_tells_the_lane_that_the_tables_choose_ports_and_addresses_by() {
    if !kernel_tests_possible() {
        return;
    }
    for count in [1, 2, 4, 32] {
        let lanes = Lanes::new(count).unwrap();
        let steering = load(lanes).unwrap();
        let run = |packet: &[u8]| run_program(steering.as_fd(), packet).unwrap();
        let mut numbers = numbers();
        let mut next = || numbers.next().unwrap();
        for round in 0..ROUNDS {
            let (host, remote6) = (Ipv6Addr::from_bits(next()), Ipv6Addr::from_bits(next()));
            let [address, remote] = [next(), next()].map(|number| Ipv4Addr::from_bits(number as u32));
            let [port, remote_port] = [next(), next()].map(|number| number as u16);
            let options = round % 11;
            let out = u32::from(lanes.of_outbound(host, port, remote_port));
            let back = u32::from(lanes.of_inbound(address, port, remote_port));
            for protocol in [6, 17] {
                assert_eq!(run(&v6(host, remote6, protocol, &ports(port, remote_port))), out);
                assert_eq!(run(&v4(remote, address, protocol, options, &ports(remote_port, port))), back);
            }
            let out = u32::from(lanes.of_outbound(host, port, 0));
            let back = u32::from(lanes.of_inbound(address, port, 0));
            for (request, reply) in [(8, 128), (0, 129)] {
                assert_eq!(run(&v4(remote, address, 1, options, &echo(request, port))), back);
                assert_eq!(run(&v6(host, remote6, 58, &echo(reply, port))), out);
            }
            // Nothing but addresses: errors, and what has no ports.
            let out = u32::from(lanes.of_outbound(host, 0, 0));
            let back = u32::from(lanes.of_inbound(address, 0, 0));
            for (protocol, kind) in [(1, 3), (1, 11), (47, 8), (50, 0), (58, 128)] {
                assert_eq!(
                    run(&v4(remote, address, protocol, options, &echo(kind, port))),
                    back,
                    "{protocol}"
                );
            }
            for (next, kind) in [(58, 1), (58, 127), (58, 130), (47, 128), (0, 6), (1, 8)] {
                assert_eq!(run(&v6(host, remote6, next, &echo(kind, port))), out, "{next} {kind}");
            }
        }
    }
}

#[test]
fn all_fragments_of_a_datagram_are_of_one_lane_whatever_is_in_them() {
    if !kernel_tests_possible() {
        return;
    }
    let lanes = Lanes::new(32).unwrap();
    let steering = load(lanes).unwrap();
    let run = |packet: &[u8]| run_program(steering.as_fd(), packet).unwrap();
    let mut numbers = numbers();
    let mut next = || numbers.next().unwrap();
    let mut by_remote = std::collections::BTreeSet::new();
    let (host, address) = (Ipv6Addr::from_bits(next()), Ipv4Addr::new(203, 0, 113, 7));
    for _ in 0..100 {
        let [source, remote] = [next(), next()].map(|number| Ipv4Addr::from_bits(number as u32));
        let remote6 = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, next() as u16);
        let fragment = |flags: u16, number: u128| {
            let mut packet = v4(source, address, 17, 0, &ports(number as u16, (number >> 16) as u16));
            packet[6..8].copy_from_slice(&flags.to_be_bytes());
            packet
        };
        let first = run(&fragment(0x2000, next()));
        for flags in [0x2001, 0x0001, 0x1fff, 0x3000] {
            assert_eq!(run(&fragment(flags, next())), first);
        }
        // Don't Fragment and the reserved bit make none.
        let port = next() as u16;
        for flags in [0x4000, 0x8000] {
            let mut packet = v4(remote, address, 17, 0, &ports(9, port));
            packet[6..8].copy_from_slice(&u16::to_be_bytes(flags));
            assert_eq!(run(&packet), u32::from(lanes.of_inbound(address, port, 9)));
        }
        let fragment6 = |number: u128| run(&v6(host, remote6, 44, &number.to_be_bytes()));
        let first6 = fragment6(next());
        assert!((0..4).all(|_| fragment6(next()) == first6));
        by_remote.insert((first, first6));
    }
    assert!(by_remote.len() > 20, "not all are one worker's: {by_remote:?}");
}

#[test]
fn what_is_too_short_to_tell_is_of_the_first_lane() {
    if !kernel_tests_possible() {
        return;
    }
    let lanes = Lanes::new(32).unwrap();
    let steering = load(lanes).unwrap();
    let (host, address) = ("2001:db8::7:3".parse().unwrap(), Ipv4Addr::new(203, 0, 113, 7));
    let (long4, long6) = (v4(address, address, 17, 0, &ports(1000, 53)), v6(host, host, 6, &ports(1000, 53)));
    let run = |packet: &[u8]| run_program(steering.as_fd(), packet);
    assert_ne!((run(&long4).unwrap(), run(&long6).unwrap()), (0, 0));
    // The kernel runs no program for less than an IP header here.
    for (packet, least) in [(long4, 20), (long6, 40)] {
        for length in least..least + 4 {
            assert_eq!(run(&packet[..length]).unwrap(), 0, "{length} bytes");
        }
    }
    assert_eq!(run(&[0; 40]).unwrap(), 0, "no IP at all");
}
