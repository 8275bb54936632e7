//! Translates the packets of a capture, from IPv6 to IPv4 and the other way:
//! `cargo run -p interproto --example pcap -- IN.pcap OUT.pcap --prefix 64:ff9b:1::/96 --pool 203.0.113.0/24`
#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use clap::Parser;
use interproto::{
    DropReason, EmbeddedRewrite, HEADROOM, Ipv4Packet, Ipv6Packet, Params, PortRewrite, Rewrite, Tuple,
    Verdict,
};
use ipnet::{Ipv4AddrRange, Ipv4Net};
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReadError, PcapReader, PcapWriter};
use rfc6052::Prefix;

/// More than any record needs.
const LONGEST_RECORD: u32 = 262_144;
const MAC_ADDRESS: usize = 6;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// An IPv4 address that no host has, or an IPv6 host for whom the pool has none left.
const NO_ADDRESS: &str = "no_address";

/// Translates a capture of IP packets or Ethernet frames.
#[derive(Parser)]
struct Arguments {
    /// A pcap file (a pcapng file becomes one by `editcap -F pcap`).
    input: PathBuf,
    /// Where the translated packets go, with the times of those that they come from.
    output: PathBuf,
    /// IPv6 addresses in here stand for the IPv4 address in them (RFC 6052).
    #[arg(long)]
    prefix: Prefix,
    /// All other IPv6 addresses get one of these, in the order in which they appear.
    #[arg(long)]
    pool: Ipv4Net,
}

/// Which IPv6 address stands for which IPv4 address.
struct Hosts {
    prefix: Prefix,
    pool: Ipv4Net,
    free: Ipv4AddrRange,
    to_v4: HashMap<Ipv6Addr, Ipv4Addr>,
    to_v6: HashMap<Ipv4Addr, Ipv6Addr>,
}

impl Hosts {
    fn new(prefix: Prefix, pool: Ipv4Net) -> Self {
        Self { prefix, pool, free: pool.hosts(), to_v4: HashMap::new(), to_v6: HashMap::new() }
    }

    fn v4_of(&mut self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        if self.prefix.contains(address) {
            return self.prefix.extract(address);
        }
        if let Some(known) = self.to_v4.get(&address) {
            return Some(*known);
        }
        let new = self.free.next()?;
        self.to_v4.insert(address, new);
        self.to_v6.insert(new, address);
        Some(new)
    }

    fn v6_of(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        match self.to_v6.get(&address) {
            Some(known) => Some(*known),
            None if self.pool.contains(&address) => None,
            None => Some(self.prefix.embed(address)),
        }
    }
}

/// What a packet, and the packet inside it if it is an ICMP error, are to leave with.
fn rewrite<A, B>(
    packet: Tuple<A>,
    inside: Option<Tuple<A>>,
    mut map: impl FnMut(A) -> Option<B>,
) -> Option<Rewrite<B>> {
    let embedded = match inside {
        Some(Tuple { source, destination, .. }) => Some(EmbeddedRewrite {
            source: map(source)?,
            destination: map(destination)?,
            ports: PortRewrite::Keep,
        }),
        None => None,
    };
    let (source, destination) = (map(packet.source)?, map(packet.destination)?);
    Some(Rewrite { source, destination, ports: PortRewrite::Keep, embedded })
}

/// What comes out of the packet that lies in `buffer` behind [`HEADROOM`], or why nothing does.
fn translate(
    buffer: &mut [u8],
    length: usize,
    hosts: &mut Hosts,
    identification: u16,
) -> Result<Vec<Vec<u8>>, &'static str> {
    let range = HEADROOM..HEADROOM + length;
    let params = Params::default();
    if buffer[HEADROOM] >> 4 == 6 {
        let mut packet = Ipv6Packet::check(buffer, range).map_err(DropReason::as_str)?;
        let rewrite = rewrite(packet.tuple(), packet.embedded(), |address| hosts.v4_of(address));
        collect(packet.translate(&rewrite.ok_or(NO_ADDRESS)?, identification, &params))
    } else {
        let mut packet = Ipv4Packet::check(buffer, range).map_err(DropReason::as_str)?;
        let rewrite = rewrite(packet.tuple(), packet.embedded(), |address| hosts.v6_of(address));
        collect(packet.translate(&rewrite.ok_or(NO_ADDRESS)?, &params))
    }
}

fn collect(verdict: Verdict<'_>) -> Result<Vec<Vec<u8>>, &'static str> {
    match verdict {
        Verdict::Forward(mut packets) => {
            let mut collected = Vec::new();
            while let Some(packet) = packets.next() {
                collected.push(packet.to_vec());
            }
            Ok(collected)
        }
        Verdict::Reply(reason) | Verdict::Hold(reason) | Verdict::Drop(reason) => Err(reason.as_str()),
    }
}

/// The IP packet of a frame, and what is in front of it.
fn split(datalink: DataLink, frame: &[u8]) -> Option<(&[u8], &[u8])> {
    if datalink == DataLink::RAW {
        return (!frame.is_empty()).then_some((&[], frame));
    }
    let (addresses, rest) = frame.split_at_checked(2 * MAC_ADDRESS)?;
    let packet = rest.strip_prefix(&ETHERTYPE_IPV4).or_else(|| rest.strip_prefix(&ETHERTYPE_IPV6))?;
    (!packet.is_empty()).then_some((addresses, packet))
}

/// The same in front of a translated packet.
fn join(datalink: DataLink, addresses: &[u8], packet: &[u8]) -> Vec<u8> {
    if datalink == DataLink::RAW {
        return packet.to_vec();
    }
    let ethertype = if packet[0] >> 4 == 6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
    [addresses, &ethertype, packet].concat()
}

fn explain(error: &PcapReadError) -> String {
    match error {
        PcapReadError::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
            "truncated, the file ends inside it".to_owned()
        }
        PcapReadError::Io(error) => error.to_string(),
        error @ PcapReadError::Validation(_) => error.to_string(),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { input, output, prefix, pool } = Arguments::parse();
    let name = input.display();
    let file = File::open(&input).map_err(|error| format!("{name}: {error}"))?;
    let mut reader = PcapReader::new(file).map_err(|error| format!("{name} is not a pcap file: {error}"))?;
    let header = reader.header();
    if ![DataLink::RAW, DataLink::ETHERNET].contains(&header.datalink) {
        let datalink = u32::from(header.datalink);
        return Err(format!("{name}: link type {datalink} is neither raw IP (101) nor Ethernet (1)").into());
    }
    let file = File::create(&output).map_err(|error| format!("{}: {error}", output.display()))?;
    let header = PcapHeader { snaplen: LONGEST_RECORD, ..header };
    let mut writer = PcapWriter::with_header(BufWriter::new(file), header)?;

    let mut hosts = Hosts::new(prefix, pool);
    let mut dropped = BTreeMap::new();
    let (mut read, mut written) = (0_u32, 0_u32);
    while let Some(record) = reader.next_packet() {
        read += 1;
        let record = record.map_err(|error| format!("{name}, record {read}: {}", explain(&error)))?;
        let outcome = match split(header.datalink, record.data()) {
            Some((addresses, packet)) => {
                // The packet lies behind free bytes, since headers grow to the front.
                let mut buffer = [&[0; HEADROOM][..], packet].concat();
                translate(&mut buffer, packet.len(), &mut hosts, read as u16)
                    .map(|packets| (addresses.to_vec(), packets))
            }
            None => Err("not_ip"),
        };
        match outcome {
            Ok((addresses, packets)) => {
                for packet in packets {
                    let frame = join(header.datalink, &addresses, &packet);
                    let record = PcapPacket::new(record.timestamp(), u32::try_from(frame.len())?, frame)?;
                    writer.write_packet(&record)?;
                    written += 1;
                }
            }
            Err(reason) => *dropped.entry(reason).or_insert(0_u32) += 1,
        }
    }
    writer.flush()?;
    println!("{read} packets read, {written} written");
    for (reason, count) in dropped {
        println!("{count} dropped: {reason}");
    }
    Ok(())
}
