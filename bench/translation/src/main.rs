//! Measures `interproto` beside the original crate of the same name, each in turn. See `bench/README.md`.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use etherparse::PacketBuilder;
use interproto::{HEADROOM, Ipv4Packet, Ipv6Packet, Params, PortRewrite, Rewrite, Verdict};
use serde::Serialize;

const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const HOST4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const PEER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const PEER6: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0xc633, 0x6402);

/// Lengths of whole IP packets, in bytes.
const LENGTHS: [usize; 7] = [64, 128, 256, 512, 1024, 1400, 1500];

/// Packets that lie in a ring of buffers, as a batch does: each is translated long after it was written.
const BATCH: usize = 64;

/// What must hold: so many times the speed of the original, by the length of the packet.
const PROMISES: [(usize, f64); 2] = [(64, 3.0), (1400, 15.0)];

/// Measures `interproto` beside the original crate of the same name.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often each is measured, in turn.
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(7..=1000))]
    rounds: u32,
    /// Batches of 64 packets in each round.
    #[arg(long, default_value_t = 2000)]
    batches: u32,
    /// Fail if a promise is not kept: 3 times the speed at 64 bytes, 15 times at 1400.
    #[arg(long)]
    check: bool,
    /// Write all figures there.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Transport {
    Tcp,
    Udp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Direction {
    #[serde(rename = "6to4")]
    SixToFour,
    #[serde(rename = "4to6")]
    FourToSix,
}

impl Direction {
    const fn word(self) -> &'static str {
        match self {
            Self::SixToFour => "6to4",
            Self::FourToSix => "4to6",
        }
    }
}

/// What was measured of one kind of packet, in nanoseconds a packet.
#[derive(Debug, Serialize)]
struct Row {
    direction: Direction,
    transport: Transport,
    length: usize,
    /// Translating alone; the packet is in its buffer already, as the kernel has put it there.
    ours: Vec<f64>,
    /// Translating, and copying the packet into the buffer before.
    ours_with_copy: Vec<f64>,
    original: Vec<f64>,
}

fn packet(direction: Direction, transport: Transport, length: usize) -> Result<Vec<u8>> {
    let headers = match (direction, transport) {
        (Direction::SixToFour, Transport::Tcp) => 60,
        (Direction::SixToFour, Transport::Udp) => 48,
        (Direction::FourToSix, Transport::Tcp) => 40,
        (Direction::FourToSix, Transport::Udp) => 28,
    };
    let payload: Vec<u8> = (0..length - headers).map(|at| (at * 7) as u8).collect();
    let ip = match direction {
        Direction::SixToFour => PacketBuilder::ipv6(HOST6.octets(), PEER6.octets(), 64),
        Direction::FourToSix => PacketBuilder::ipv4(PEER4.octets(), HOST4.octets(), 64),
    };
    let mut bytes = Vec::new();
    match transport {
        Transport::Tcp => ip.tcp(40_000, 443, 7, 4096).write(&mut bytes, &payload)?,
        Transport::Udp => ip.udp(40_000, 53).write(&mut bytes, &payload)?,
    }
    ensure!(bytes.len() == length, "{} bytes instead of {length}", bytes.len());
    Ok(bytes)
}

/// Buffers for a batch, and what is translated in them.
struct Bench {
    direction: Direction,
    packet: Vec<u8>,
    buffers: Vec<Vec<u8>>,
    to_v4: Rewrite<Ipv4Addr>,
    to_v6: Rewrite<Ipv6Addr>,
    params: Params,
}

impl Bench {
    fn new(direction: Direction, packet: Vec<u8>) -> Self {
        let buffers = vec![vec![0; HEADROOM + packet.len()]; BATCH];
        let ports = PortRewrite::Keep;
        Self {
            direction,
            packet,
            buffers,
            to_v4: Rewrite { source: HOST4, destination: PEER4, ports, embedded: None },
            to_v6: Rewrite { source: PEER6, destination: HOST6, ports, embedded: None },
            // The original knows no fragmentation: a packet of any length becomes one packet.
            params: Params { lowest_ipv6_mtu: 9000, ..Params::DEFAULT },
        }
    }

    /// Puts the packet into every buffer of the batch.
    fn fill(&mut self) {
        for buffer in &mut self.buffers {
            buffer[HEADROOM..].copy_from_slice(&self.packet);
        }
    }

    /// Translates every packet of the batch once. The answer is the length of all results.
    fn translate(&mut self) -> usize {
        match self.direction {
            Direction::SixToFour => six_to_four(&mut self.buffers, &self.to_v4, &self.params),
            Direction::FourToSix => four_to_six(&mut self.buffers, &self.to_v6, &self.params),
        }
    }

    fn original(&self) -> Result<Vec<u8>> {
        let translated = match self.direction {
            Direction::SixToFour => {
                original::protocols::ip::translate_ipv6_to_ipv4(black_box(&self.packet), HOST4, PEER4)
            }
            Direction::FourToSix => {
                original::protocols::ip::translate_ipv4_to_ipv6(black_box(&self.packet), PEER6, HOST6)
            }
        };
        translated.map_err(|error| anyhow::anyhow!("the original fails: {error:?}"))
    }

    /// Both say the same of addresses and of all that lies behind the IP header.
    fn compare(&mut self) -> Result<()> {
        let theirs = self.original()?;
        self.fill();
        let grown = if self.direction == Direction::SixToFour { -20 } else { 20 };
        let expected = self.packet.len().checked_add_signed(grown).context("too short")?;
        ensure!(self.translate() == BATCH * expected, "not every packet was translated");
        let start = HEADROOM.checked_add_signed(-grown).context("no headroom")?;
        let ours = &self.buffers[0][start..];
        ensure!(ours.len() == theirs.len(), "{} bytes, and {} of the original", ours.len(), theirs.len());
        let (header, addresses) = if self.direction == Direction::SixToFour { (20, 12) } else { (40, 8) };
        ensure!(ours[addresses..header] == theirs[addresses..header], "other addresses");
        ensure!(ours[header..] == theirs[header..], "something else behind the IP header");
        Ok(())
    }

    /// Nanoseconds a packet, of three kinds of work in turn.
    fn round(&mut self, batches: u32) -> Result<[f64; 3]> {
        let packets = f64::from(batches) * BATCH as f64;
        let (mut ours, mut with_copy) = (0.0, 0.0);
        for _ in 0..batches {
            let start = Instant::now();
            self.fill();
            let filled = Instant::now();
            black_box(self.translate());
            with_copy += start.elapsed().as_nanos() as f64;
            ours += filled.elapsed().as_nanos() as f64;
        }
        let start = Instant::now();
        for _ in 0..u64::from(batches) * BATCH as u64 {
            black_box(self.original()?);
        }
        let original = start.elapsed().as_nanos() as f64;
        Ok([ours / packets, with_copy / packets, original / packets])
    }
}

#[inline(never)]
fn six_to_four(buffers: &mut [Vec<u8>], rewrite: &Rewrite<Ipv4Addr>, params: &Params) -> usize {
    let mut length = 0;
    for (number, buffer) in buffers.iter_mut().enumerate() {
        let range = HEADROOM..buffer.len();
        let Ok(mut checked) = Ipv6Packet::check(buffer, range) else { continue };
        if let Verdict::Forward(mut packets) = checked.translate(rewrite, number as u16, params) {
            length += packets.next().map_or(0, |packet| black_box(packet).len());
        }
    }
    length
}

#[inline(never)]
fn four_to_six(buffers: &mut [Vec<u8>], rewrite: &Rewrite<Ipv6Addr>, params: &Params) -> usize {
    let mut length = 0;
    for buffer in buffers {
        let range = HEADROOM..buffer.len();
        let Ok(mut checked) = Ipv4Packet::check(buffer, range) else { continue };
        if let Verdict::Forward(mut packets) = checked.translate(rewrite, params) {
            length += packets.next().map_or(0, |packet| black_box(packet).len());
        }
    }
    length
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn range(samples: &[f64]) -> String {
    let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
    let most = samples.iter().copied().fold(0.0, f64::max);
    format!("{:.1} ({least:.1}-{most:.1})", median(samples))
}

/// The median of the rounds' ratios.
fn ratio(row: &Row) -> f64 {
    let ratios: Vec<_> = row.original.iter().zip(&row.ours).map(|(original, ours)| original / ours).collect();
    median(&ratios)
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut rows = Vec::new();
    println!(
        "Nanoseconds a packet: median (least-most) of {} rounds; x: median of the rounds' ratios",
        arguments.rounds
    );
    println!(
        "{:>12} {:>6} {:>20} {:>20} {:>22} {:>7}",
        "", "bytes", "interproto", "and copying in", "original 1.0.0", "x"
    );
    for direction in [Direction::SixToFour, Direction::FourToSix] {
        for transport in [Transport::Udp, Transport::Tcp] {
            for length in LENGTHS {
                let mut bench = Bench::new(direction, packet(direction, transport, length)?);
                bench.compare().with_context(|| format!("{direction:?} {transport:?} {length}"))?;
                bench.round(arguments.batches)?;
                let mut row = Row {
                    direction,
                    transport,
                    length,
                    ours: vec![],
                    ours_with_copy: vec![],
                    original: vec![],
                };
                for _ in 0..arguments.rounds {
                    let [ours, with_copy, original] = bench.round(arguments.batches)?;
                    row.ours.push(ours);
                    row.ours_with_copy.push(with_copy);
                    row.original.push(original);
                }
                println!(
                    "{:>12} {length:>6} {:>20} {:>20} {:>22} {:>6.1}x",
                    format!("{} {transport:?}", direction.word()),
                    range(&row.ours),
                    range(&row.ours_with_copy),
                    range(&row.original),
                    ratio(&row)
                );
                rows.push(row);
            }
        }
    }
    let at = |length| rows.iter().filter(move |row: &&Row| row.length == length);
    let longest: Vec<_> =
        at(1500).zip(at(64)).map(|(long, short)| median(&long.ours) / median(&short.ours)).collect();
    println!("A packet of 1500 bytes takes {:.2} times as long as one of 64.", median(&longest));
    let mut kept = true;
    for (length, promise) in PROMISES {
        let worst = at(length).map(ratio).fold(f64::INFINITY, f64::min);
        println!("{length} bytes: at least {worst:.1} times as fast; promised: {promise:.0} times.");
        kept &= worst >= promise;
    }
    if let Some(file) = &arguments.json {
        std::fs::write(file, serde_json::to_string_pretty(&rows)?)
            .with_context(|| file.display().to_string())?;
    }
    Ok(if kept || !arguments.check { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
