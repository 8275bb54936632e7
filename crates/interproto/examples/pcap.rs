//! Translates a capture to a capture, as a stateless translator would (RFC 7915, RFC 6052):
//!
//! ```sh
//! cargo run -p interproto --example pcap -- IN.pcap OUT.pcap --prefix 64:ff9b:1::/96 --pool 203.0.113.0/24
//! ```
//!
//! IPv4 addresses appear in IPv6 below the prefix. IPv6 hosts get the addresses of the pool one after the other, as they
//! appear; `--host IPV6=IPV4` gives one beforehand. Captures of Ethernet frames and of raw IP packets are read; raw IP packets are written.
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use clap::Parser;
use interproto::{
    EmbeddedRewrite, HEADROOM, Ipv4Packet, Ipv6Packet, Packets, Params, PortRewrite, Rewrite, Tuple, Verdict,
};
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReadError, PcapReader, PcapWriter};
use rfc6052::Prefix;

/// More bytes than any record of IP packets has.
const LONGEST_RECORD: u32 = 262_144;

/// Translates the packets of a capture between IPv6 and IPv4.
#[derive(Parser)]
struct Arguments {
    /// The capture to read.
    input: PathBuf,
    /// The capture to write.
    output: PathBuf,
    /// Where IPv4 addresses appear in IPv6.
    #[arg(long, default_value = "64:ff9b:1::/96")]
    prefix: Prefix,
    /// The first IPv4 address for IPv6 hosts, and how many there are, as ADDRESS/LENGTH.
    #[arg(long, default_value = "203.0.113.0/24", value_parser = pool)]
    pool: (Ipv4Addr, u32),
    /// An IPv6 host and its IPv4 address, as IPV6=IPV4. May be repeated.
    #[arg(long, value_parser = pair)]
    host: Vec<(Ipv6Addr, Ipv4Addr)>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn pool(text: &str) -> Result<(Ipv4Addr, u32), Failure> {
    let (address, length) = text.split_once('/').ok_or("write ADDRESS/LENGTH")?;
    let length: u32 = length.parse()?;
    let size = 32_u32.checked_sub(length).and_then(|bits| 1_u32.checked_shl(bits)).ok_or("no such length")?;
    Ok((address.parse()?, size))
}

fn pair(text: &str) -> Result<(Ipv6Addr, Ipv4Addr), Failure> {
    let (host, address) = text.split_once('=').ok_or("write IPV6=IPV4")?;
    Ok((host.parse()?, address.parse()?))
}

/// Which address stands for which.
struct Addresses {
    prefix: Prefix,
    pool: (Ipv4Addr, u32),
    used: u32,
    hosts: HashMap<Ipv6Addr, Ipv4Addr>,
    back: HashMap<Ipv4Addr, Ipv6Addr>,
}

impl Addresses {
    fn new(arguments: &Arguments) -> Self {
        let hosts: HashMap<_, _> = arguments.host.iter().copied().collect();
        let back = arguments.host.iter().map(|(host, address)| (*address, *host)).collect();
        Self { prefix: arguments.prefix, pool: arguments.pool, used: 0, hosts, back }
    }

    /// `None`: the pool is empty.
    fn v4(&mut self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        if let Some(known) = self.prefix.extract(address).or_else(|| self.hosts.get(&address).copied()) {
            return Some(known);
        }
        while self.used + 1 < self.pool.1 {
            // The first address of a network is its own.
            self.used += 1;
            let new = Ipv4Addr::from(u32::from(self.pool.0).wrapping_add(self.used));
            if let std::collections::hash_map::Entry::Vacant(entry) = self.back.entry(new) {
                entry.insert(address);
                self.hosts.insert(address, new);
                return Some(new);
            }
        }
        None
    }

    fn v6(&self, address: Ipv4Addr) -> Ipv6Addr {
        self.back.get(&address).copied().unwrap_or_else(|| self.prefix.embed(address))
    }

    fn rewrite_v4(
        &mut self,
        tuple: Tuple<Ipv6Addr>,
        inside: Option<Tuple<Ipv6Addr>>,
    ) -> Option<Rewrite<Ipv4Addr>> {
        let embedded = match inside {
            None => None,
            Some(inside) => Some(EmbeddedRewrite {
                source: self.v4(inside.source)?,
                destination: self.v4(inside.destination)?,
                ports: PortRewrite::Keep,
            }),
        };
        let (source, destination) = (self.v4(tuple.source)?, self.v4(tuple.destination)?);
        Some(Rewrite { source, destination, ports: PortRewrite::Keep, embedded })
    }

    fn rewrite_v6(&self, tuple: Tuple<Ipv4Addr>, inside: Option<Tuple<Ipv4Addr>>) -> Rewrite<Ipv6Addr> {
        let embedded = inside.map(|inside| EmbeddedRewrite {
            source: self.v6(inside.source),
            destination: self.v6(inside.destination),
            ports: PortRewrite::Keep,
        });
        let (source, destination) = (self.v6(tuple.source), self.v6(tuple.destination));
        Rewrite { source, destination, ports: PortRewrite::Keep, embedded }
    }
}

/// The IP packet inside a record of a capture.
fn ip_packet(link: DataLink, record: &[u8]) -> Option<&[u8]> {
    if link == DataLink::RAW {
        return Some(record);
    }
    // Ethernet II: two addresses, perhaps a VLAN tag, and the type.
    let mut at = 12;
    if record.get(at..at + 2)? == [0x81, 0x00] {
        at += 4;
    }
    matches!(record.get(at..at + 2)?, [0x08, 0x00] | [0x86, 0xdd]).then(|| record.get(at + 2..))?
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

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let named = |path: &PathBuf| path.display().to_string();
    let input =
        File::open(&arguments.input).map_err(|error| format!("{}: {error}", named(&arguments.input)))?;
    let mut reader = PcapReader::new(BufReader::new(input))
        .map_err(|error| format!("{} is no pcap file: {error}", named(&arguments.input)))?;
    let link = reader.header().datalink;
    if link != DataLink::RAW && link != DataLink::ETHERNET {
        return Err(
            format!("{}: a capture of {link:?}, not of Ethernet or raw IP", named(&arguments.input)).into()
        );
    }
    let output =
        File::create(&arguments.output).map_err(|error| format!("{}: {error}", named(&arguments.output)))?;
    // The translation of a packet can be longer than the longest of the input.
    let header = PcapHeader { datalink: DataLink::RAW, snaplen: LONGEST_RECORD, ..reader.header() };
    let mut writer = PcapWriter::with_header(BufWriter::new(output), header)?;

    let mut addresses = Addresses::new(&arguments);
    let mut outcomes = BTreeMap::new();
    let mut buffer = Vec::new();
    let mut number = 0_u64;
    let (params, mut identification) = (Params::default(), 0_u16);
    while let Some(record) = reader.next_packet() {
        number += 1;
        let record = record
            .map_err(|error| format!("{}, record {number}: {}", named(&arguments.input), explain(&error)))?;
        let Some(packet) = ip_packet(link, record.data()) else {
            *outcomes.entry("no_ip").or_insert(0_u64) += 1;
            continue;
        };
        // In front of a packet there is room for longer headers.
        buffer.clear();
        buffer.resize(HEADROOM, 0);
        buffer.extend_from_slice(packet);
        let range = HEADROOM..buffer.len();
        let write = |mut packets: Packets<'_>, writer: &mut PcapWriter<_>| -> Result<(), Failure> {
            while let Some(packet) = packets.next() {
                let length = u32::try_from(packet.len())?;
                writer.write_packet(&PcapPacket::new(record.timestamp(), length, packet)?)?;
            }
            Ok(())
        };
        let outcome = if packet.first().is_some_and(|first| first >> 4 == 6) {
            match Ipv6Packet::check(&mut buffer, range) {
                Err(reason) => reason.as_str(),
                Ok(mut checked) => match addresses.rewrite_v4(checked.tuple(), checked.embedded()) {
                    None => "pool_exhausted",
                    Some(rewrite) => {
                        let next = |_| {
                            identification = identification.wrapping_add(1);
                            identification
                        };
                        match checked.translate(&rewrite, next, &params) {
                            Verdict::Forward(packets) => {
                                write(packets, &mut writer).map(|()| "translated")?
                            }
                            Verdict::Reply(reason) | Verdict::Hold(reason) | Verdict::Drop(reason) => {
                                reason.as_str()
                            }
                        }
                    }
                },
            }
        } else {
            match Ipv4Packet::check(&mut buffer, range) {
                Err(reason) => reason.as_str(),
                Ok(mut checked) => {
                    let rewrite = addresses.rewrite_v6(checked.tuple(), checked.embedded());
                    match checked.translate(&rewrite, &params) {
                        Verdict::Forward(packets) => write(packets, &mut writer).map(|()| "translated")?,
                        Verdict::Reply(reason) | Verdict::Hold(reason) | Verdict::Drop(reason) => {
                            reason.as_str()
                        }
                    }
                }
            }
        };
        *outcomes.entry(outcome).or_insert(0) += 1;
    }
    writer.flush()?;
    for (outcome, number) in outcomes {
        println!("{number:>8} {outcome}");
    }
    Ok(())
}
