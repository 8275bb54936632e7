//! Runs the conformance cases: one folder each, with the packets that come in and those that an independent generator
//! (`conformance/generate.py`, on scapy) says must come out.
//!
//! With `PROTOMASK_WRITE_CONFORMANCE=1` the generator writes the folders first, by the Python of `PROTOMASK_PYTHON`, or the
//! one that `cargo xtask setup` has installed, or `python3`. It needs `conformance/requirements.txt`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail the test that calls them"
)]

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use common::*;
use interproto::{
    DropReason, EmbeddedRewrite, HEADROOM, Ipv4Packet, Ipv6Packet, Packets, Params, PortRewrite, Rewrite,
    TrafficClass, Verdict, ZeroChecksum,
};
use pcap_file::pcap::PcapReader;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    rfc: String,
    why: String,
    direction: Direction,
    outcome: Expected,
    reason: Option<String>,
    #[serde(default)]
    reassembled: bool,
    #[serde(default)]
    rewrite: Change,
    #[serde(default)]
    embedded: Change,
    #[serde(default)]
    params: Parameters,
    prefix: Option<PrefixCase>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Direction {
    SixToFour,
    FourToSix,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Expected {
    Forward,
    Reply,
    Hold,
    Drop,
}

/// What differs from the usual addresses, and from ports that stay.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    source: Option<String>,
    destination: Option<String>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    identifier: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    lowest_ipv6_mtu: Option<u16>,
    ipv6_mtu: Option<u32>,
    ipv4_mtu: Option<u16>,
    dscp: Option<u8>,
    #[serde(default)]
    traffic_class_zero: bool,
    udp_zero_checksum: Option<String>,
}

/// An address inside a translation prefix (RFC 6052).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PrefixCase {
    net: String,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
}

impl Change {
    fn ports(&self) -> PortRewrite {
        match (self.source_port, self.destination_port, self.identifier) {
            (Some(source), Some(destination), None) => PortRewrite::Pair { source, destination },
            (None, None, Some(identifier)) => PortRewrite::Identifier(identifier),
            (None, None, None) => PortRewrite::Keep,
            _ => panic!("both ports, or an identifier"),
        }
    }

    fn apply<A: std::str::FromStr<Err: std::fmt::Debug> + Copy>(&self, source: A, destination: A) -> (A, A) {
        let or = |text: &Option<String>, usual: A| text.as_ref().map_or(usual, |text| text.parse().unwrap());
        (or(&self.source, source), or(&self.destination, destination))
    }
}

impl Parameters {
    fn params(&self) -> Params {
        let usual = Params::DEFAULT;
        Params {
            lowest_ipv6_mtu: self.lowest_ipv6_mtu.unwrap_or(usual.lowest_ipv6_mtu),
            ipv6_mtu: self.ipv6_mtu.unwrap_or(usual.ipv6_mtu),
            ipv4_mtu: self.ipv4_mtu.unwrap_or(usual.ipv4_mtu),
            traffic_class: match (self.dscp, self.traffic_class_zero) {
                (Some(dscp), false) => TrafficClass::Dscp(dscp),
                (None, true) => TrafficClass::Zero,
                (None, false) => TrafficClass::Copy,
                (Some(_), true) => panic!("one of them"),
            },
            udp_zero_checksum: match self.udp_zero_checksum.as_deref() {
                None => usual.udp_zero_checksum,
                Some("drop") => ZeroChecksum::Drop,
                Some(other) => panic!("udp_zero_checksum = {other:?}"),
            },
        }
    }
}

/// What has come out of one packet.
type Outcome = (Expected, Option<DropReason>, Vec<Vec<u8>>);

fn all(mut packets: Packets<'_>) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(packet) = packets.next() {
        all.push(packet.to_vec());
    }
    all
}

impl Case {
    fn run(&self, packet: &[u8]) -> Outcome {
        let mut storage = storage(packet);
        let range = HEADROOM..HEADROOM + packet.len();
        let params = self.params.params();
        // The sender is told what the case expects: where it is held, perhaps; where it is dropped, nothing.
        let told = |outcome, reason, answer: Option<&[u8]>| {
            (outcome, Some(reason), answer.map(<[u8]>::to_vec).into_iter().collect())
        };
        if self.direction == Direction::SixToFour {
            let (source, destination) = self.rewrite.apply(HOST4, PEER4);
            let ports = self.rewrite.ports();
            let (inner, outer) = self.embedded.apply(PEER4, HOST4);
            let embedded =
                EmbeddedRewrite { source: inner, destination: outer, ports: self.embedded.ports() };
            let rewrite = Rewrite { source, destination, ports, embedded: Some(embedded) };
            let checked = if self.reassembled {
                Ipv6Packet::check_reassembled(&mut storage, range)
            } else {
                Ipv6Packet::check(&mut storage, range)
            };
            let mut checked = match checked {
                Ok(checked) => checked,
                Err(reason) => return (Expected::Drop, Some(reason), Vec::new()),
            };
            match checked.translate(&rewrite, |_| IDENTIFICATION, &params) {
                Verdict::Forward(packets) => (Expected::Forward, None, all(packets)),
                Verdict::Hold(reason) => told(Expected::Hold, reason, checked.answer(reason, OWN6, &params)),
                Verdict::Drop(reason) => told(Expected::Drop, reason, checked.answer(reason, OWN6, &params)),
                Verdict::Reply(reason) => {
                    told(Expected::Reply, reason, checked.answer(reason, OWN6, &params))
                }
            }
        } else {
            let (source, destination) = self.rewrite.apply(PEER6, HOST6);
            let ports = self.rewrite.ports();
            let (inner, outer) = self.embedded.apply(HOST6, PEER6);
            let embedded =
                EmbeddedRewrite { source: inner, destination: outer, ports: self.embedded.ports() };
            let rewrite = Rewrite { source, destination, ports, embedded: Some(embedded) };
            let checked = if self.reassembled {
                Ipv4Packet::check_reassembled(&mut storage, range)
            } else {
                Ipv4Packet::check(&mut storage, range)
            };
            let mut checked = match checked {
                Ok(checked) => checked,
                Err(reason) => return (Expected::Drop, Some(reason), Vec::new()),
            };
            match checked.translate(&rewrite, &params) {
                Verdict::Forward(packets) => (Expected::Forward, None, all(packets)),
                Verdict::Hold(reason) => told(Expected::Hold, reason, checked.answer(reason, OWN4, &params)),
                Verdict::Drop(reason) => told(Expected::Drop, reason, checked.answer(reason, OWN4, &params)),
                Verdict::Reply(reason) => {
                    told(Expected::Reply, reason, checked.answer(reason, OWN4, &params))
                }
            }
        }
    }

    /// What is wrong with what has come out, or nothing.
    fn verify(&self, inputs: &[Vec<u8>], expected: &[Vec<u8>]) -> Result<(), String> {
        let mut found = Vec::new();
        for input in inputs {
            let (outcome, reason, packets) = self.run(input);
            let reason = reason.map(DropReason::as_str);
            if outcome != self.outcome || reason != self.reason.as_deref() {
                return Err(format!(
                    "{outcome:?} {reason:?} instead of {:?} {:?}",
                    self.outcome, self.reason
                ));
            }
            found.extend(packets);
        }
        if found.len() != expected.len() {
            return Err(format!("{} packets instead of {}", found.len(), expected.len()));
        }
        for (number, (found, expected)) in found.iter().zip(expected).enumerate() {
            if found != expected {
                let differs = |(found, expected): (&u8, &u8)| found != expected;
                let at = found.iter().zip(expected).position(differs);
                let at = at.unwrap_or(found.len().min(expected.len()));
                return Err(format!(
                    "packet {number} differs from byte {at} on\n  found    {found:02x?}\n  expected {expected:02x?}"
                ));
            }
        }
        Ok(())
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

fn packets(path: &Path) -> Vec<Vec<u8>> {
    let file = fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut reader = PcapReader::new(file).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        packets.push(packet.unwrap_or_else(|error| panic!("{}: {error}", path.display())).data().to_vec());
    }
    packets
}

/// All cases, by their names.
fn cases() -> Vec<(String, Case)> {
    static WRITTEN: Once = Once::new();
    WRITTEN.call_once(|| {
        if std::env::var_os("PROTOMASK_WRITE_CONFORMANCE").is_some() {
            // What `cargo xtask setup` has installed, if it has.
            let installed =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/python/bin/python");
            let usual = if installed.is_file() { installed.into() } else { "python3".into() };
            let python = std::env::var_os("PROTOMASK_PYTHON").unwrap_or(usual);
            let status = Command::new(python).arg("-B").arg(folder().join("generate.py")).status();
            assert!(status.is_ok_and(|status| status.success()), "the generator failed");
        }
    });
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder().join("cases")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(path.join("case.toml"));
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let case = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        cases.push((path.file_name().unwrap().to_string_lossy().into_owned(), case));
    }
    cases.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert!(cases.len() >= 200, "only {} cases", cases.len());
    cases
}

#[test]
fn every_conformance_case_comes_out_as_the_independent_generator_says() {
    let (mut wrong, mut number) = (String::new(), 0);
    for (name, case) in cases() {
        let folder = folder().join("cases").join(&name);
        let (inputs, expected) =
            (packets(&folder.join("input.pcap")), packets(&folder.join("expected.pcap")));
        assert!(!inputs.is_empty(), "{name} has no packets");
        if let Err(what) = case.verify(&inputs, &expected) {
            writeln!(wrong, "{name} (RFC {}: {}): {what}", case.rfc, case.why).unwrap();
            number += 1;
        }
    }
    assert!(wrong.is_empty(), "{number} cases fail:\n{wrong}");
}

/// The addresses of the cases about prefixes are those of the crate that makes them in the router.
#[test]
fn the_addresses_of_the_cases_are_those_of_rfc6052() {
    let mut number = 0;
    for (name, case) in cases() {
        if let Some(PrefixCase { net, ipv4, ipv6 }) = case.prefix {
            let prefix: rfc6052::Prefix = net.parse().unwrap();
            assert_eq!(prefix.embed(ipv4), ipv6, "{name}");
            assert_eq!(prefix.extract(ipv6), Some(ipv4), "{name}");
            number += 1;
        }
    }
    assert!(number >= 12, "only {number} cases are about prefixes");
}

/// The ledger's rows of RFC 6052, 7915, 4884 and 6791 name their cases, every case that they name exists, and none is left over.
#[test]
fn every_row_of_the_ledger_about_translation_has_a_case() {
    let ledger =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rfc-compliance.md"))
            .unwrap();
    let names: BTreeSet<_> = cases().into_iter().map(|(name, _)| name).collect();
    let (mut named, mut rows) = (BTreeSet::new(), 0);
    let mut with_cases = None;
    for line in ledger.lines() {
        let columns: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        if line.starts_with("## ") || line.is_empty() {
            with_cases = None;
        } else if line.starts_with("| § ") || line.starts_with("| RFC") {
            with_cases = columns.iter().position(|column| *column == "cases");
        } else if let Some(column) =
            with_cases.filter(|_| line.starts_with("| ") && !line.starts_with("| ---"))
        {
            let patterns: Vec<_> =
                columns[column].split(", ").map(|pattern| pattern.trim_matches('`')).collect();
            for pattern in patterns {
                let found: Vec<_> = names.iter().filter(|name| matches(pattern, name)).cloned().collect();
                assert!(!found.is_empty(), "no case {pattern:?} of the row {line}");
                named.extend(found);
            }
            rows += 1;
        }
    }
    assert!(rows >= 30, "only {rows} rows name cases; has the ledger's form changed?");
    let left_over: Vec<_> = names.difference(&named).collect();
    assert!(left_over.is_empty(), "no row of the ledger names {left_over:?}");
}

/// A pattern of the ledger: a name, in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => {
            name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
        }
    }
}
