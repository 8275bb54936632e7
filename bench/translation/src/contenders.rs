//! The translators, each with a loop that translates one packet many times.

use std::hint::black_box;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use interproto::{HEADROOM, Ipv4Packet, Ipv6Packet, Params, PortRewrite, Rewrite, Verdict, VirtioNetHdr};
use nix::time::{ClockId, clock_gettime};
use original::protocols::ip::{translate_ipv4_to_ipv6, translate_ipv6_to_ipv4};
use serde::Serialize;

use crate::packets::{CLIENT_V4, CLIENT_V6, Case, Direction, SERVER_V4, SERVER_V6};

/// The IP and transport headers of every packet fit in so many bytes, and no packet is shorter.
const HEADERS: usize = 64;

/// Packets that are written together and translated together. Their headers fit the first-level cache.
pub(crate) const BATCH: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Contender {
    /// The original: reads the packet where it is, and returns it translated in a new vector.
    Original,
    /// This crate: the packet is in the buffer already, and only its headers are written afresh before each translation.
    InPlace,
    /// Nobody: the headers are written afresh, and nothing is translated. What `InPlace` costs more is the translation.
    RefreshOnly,
    /// This crate: the whole packet is copied into the buffer before each translation.
    CopiedIn,
    /// This crate: in place, with a description that says nothing of the packet, and one in front of what comes out.
    Described,
    /// This crate: the same, with a partial checksum.
    Partial,
}

impl Contender {
    pub(crate) const ALL: [Self; 6] =
        [Self::Original, Self::InPlace, Self::RefreshOnly, Self::CopiedIn, Self::Described, Self::Partial];

    /// Translates the packet `repeat` times, which is a multiple of [`BATCH`], and says how long that took and what came out in the end.
    pub(crate) fn run(self, case: Case, packet: &[u8], repeat: u64) -> Result<(Duration, Vec<u8>)> {
        match self {
            Self::Original => run_original(case, packet, repeat),
            Self::InPlace => run_this(case, packet, repeat, refresh_headers),
            Self::RefreshOnly => run_batches(packet, repeat, refresh_headers, |buffer, range, _| {
                Some(black_box(&buffer[range]).len())
            }),
            Self::CopiedIn => run_this(case, packet, repeat, <[u8]>::copy_from_slice),
            Self::Described => run_described(case, packet, repeat, VirtioNetHdr::default()),
            Self::Partial => {
                let (packet, said) = case.partial(packet)?;
                run_described(case, &packet, repeat, said)
            }
        }
    }
}

/// Writes what a translation has changed: IP and transport headers, which lie in the first [`HEADERS`] bytes.
fn refresh_headers(buffer: &mut [u8], packet: &[u8]) {
    if let (Some(buffer), Some(packet)) = (buffer.first_chunk_mut::<HEADERS>(), packet.first_chunk()) {
        *buffer = *packet;
    }
}

fn run_this(
    case: Case,
    packet: &[u8],
    repeat: u64,
    refresh: impl Fn(&mut [u8], &[u8]),
) -> Result<(Duration, Vec<u8>)> {
    match case.direction {
        Direction::SixToFour => run_batches(packet, repeat, refresh, six_to_four),
        Direction::FourToSix => run_batches(packet, repeat, refresh, four_to_six),
    }
}

fn run_described(case: Case, packet: &[u8], repeat: u64, said: VirtioNetHdr) -> Result<(Duration, Vec<u8>)> {
    match case.direction {
        Direction::SixToFour => run_batches(packet, repeat, refresh_headers, |buffer, range, params| {
            described_six_to_four(buffer, range, black_box(&said), params)
        }),
        Direction::FourToSix => run_batches(packet, repeat, refresh_headers, |buffer, range, params| {
            described_four_to_six(buffer, range, black_box(&said), params)
        }),
    }
}

fn run_original(case: Case, packet: &[u8], repeat: u64) -> Result<(Duration, Vec<u8>)> {
    let mut last = Vec::new();
    let start = now()?;
    for _ in 0..repeat {
        let packet = black_box(packet);
        last = match case.direction {
            Direction::SixToFour => translate_ipv6_to_ipv4(packet, CLIENT_V4, SERVER_V4),
            Direction::FourToSix => translate_ipv4_to_ipv6(packet, SERVER_V6, CLIENT_V6),
        }
        .map_err(|error| anyhow!("the original: {error}"))?;
        black_box(&mut last);
    }
    Ok((now()?.saturating_sub(start), last))
}

/// Each packet is refreshed before its translation, and the time for that counts.
///
/// Packets come in batches, as from a device: a packet that is read in the same moment in which its bytes are written waits for
/// those writes, which no packet does that comes from a kernel.
fn run_batches(
    packet: &[u8],
    repeat: u64,
    refresh: impl Fn(&mut [u8], &[u8]),
    translate: impl Fn(&mut [u8], Range<usize>, &Params) -> Option<usize>,
) -> Result<(Duration, Vec<u8>)> {
    let range = HEADROOM..HEADROOM + packet.len();
    let mut buffers: [_; BATCH] = std::array::from_fn(|_| vec![0; range.end]);
    for buffer in &mut buffers {
        buffer[range.clone()].copy_from_slice(packet);
    }
    let params = Params::default();
    let mut length = 0;
    let start = now()?;
    for _ in 0..repeat / BATCH as u64 {
        for buffer in &mut buffers {
            refresh(&mut buffer[HEADROOM..], black_box(packet));
        }
        for buffer in black_box(&mut buffers) {
            length = translate(buffer, range.clone(), black_box(&params))
                .context("this crate does not translate the packet")?;
        }
    }
    let took = now()?.saturating_sub(start);
    // Headers grow to the front, so the end is where it was.
    let [buffer, ..] = buffers;
    Ok((took, buffer[range.end - length..].to_vec()))
}

/// The length of what comes out.
///
/// As in the router, this is the one place that translates in this direction, so that the compiler makes one function of it.
fn six_to_four(buffer: &mut [u8], range: Range<usize>, params: &Params) -> Option<usize> {
    let rewrite =
        Rewrite { source: CLIENT_V4, destination: SERVER_V4, ports: PortRewrite::Keep, embedded: None };
    let mut packet = Ipv6Packet::check(buffer, range).ok()?;
    match packet.translate(black_box(&rewrite), |_| black_box(1), params) {
        Verdict::Forward(mut packets) => packets.next().map(|packet| black_box(packet).len()),
        _ => None,
    }
}

/// See [`six_to_four`].
fn four_to_six(buffer: &mut [u8], range: Range<usize>, params: &Params) -> Option<usize> {
    let rewrite =
        Rewrite { source: SERVER_V6, destination: CLIENT_V6, ports: PortRewrite::Keep, embedded: None };
    let mut packet = Ipv4Packet::check(buffer, range).ok()?;
    match packet.translate(black_box(&rewrite), params) {
        Verdict::Forward(mut packets) => packets.next().map(|packet| black_box(packet).len()),
        _ => None,
    }
}

/// The length of what comes out, without its description. See [`six_to_four`].
fn described_six_to_four(
    buffer: &mut [u8],
    range: Range<usize>,
    said: &VirtioNetHdr,
    params: &Params,
) -> Option<usize> {
    let rewrite =
        Rewrite { source: CLIENT_V4, destination: SERVER_V4, ports: PortRewrite::Keep, embedded: None };
    let mut packet = Ipv6Packet::check_offloaded(buffer, range, said).ok()?;
    match packet.translate(black_box(&rewrite), |_| black_box(1), params) {
        Verdict::Forward(mut packets) => packets.next_framed().map(black_box).map(length_in_frame),
        _ => None,
    }
}

/// See [`described_six_to_four`].
fn described_four_to_six(
    buffer: &mut [u8],
    range: Range<usize>,
    said: &VirtioNetHdr,
    params: &Params,
) -> Option<usize> {
    let rewrite =
        Rewrite { source: SERVER_V6, destination: CLIENT_V6, ports: PortRewrite::Keep, embedded: None };
    let mut packet = Ipv4Packet::check_offloaded(buffer, range, said).ok()?;
    match packet.translate(black_box(&rewrite), params) {
        Verdict::Forward(mut packets) => packets.next_framed().map(black_box).map(length_in_frame),
        _ => None,
    }
}

fn length_in_frame(frame: &[u8]) -> usize {
    frame.len() - VirtioNetHdr::LENGTH
}

/// The processor time of this thread: what else the machine runs meanwhile is not counted.
fn now() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
