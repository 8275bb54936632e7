//! Whether both translators make the same of a packet, and where the original deviates.

use anyhow::{Result, ensure};
use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};

use crate::contenders::{BATCH, Contender};
use crate::packets::{Case, Direction};

/// Translates the packet with both, and says which header fields the original sets otherwise. Addresses, ports, checksums of
/// the transport header and payload must agree.
pub(crate) fn deviations(case: Case, packet: &[u8]) -> Result<Vec<String>> {
    let (_, this) = Contender::CopiedIn.run(case, packet, BATCH as u64)?;
    let (_, again) = Contender::InPlace.run(case, packet, 2 * BATCH as u64)?;
    ensure!(again == this, "{case}: a second translation needs more than fresh headers");
    let (_, described) = Contender::Described.run(case, packet, BATCH as u64)?;
    ensure!(described == this, "{case}: a description that says nothing changes the translation");
    let (_, partial) = Contender::Partial.run(case, packet, BATCH as u64)?;
    ensure!(case.completed(partial) == this, "{case}: a partial checksum is completed to another one");
    let (_, original) = Contender::Original.run(case, packet, 1)?;
    let ((ours, our_rest), (theirs, their_rest)) = match case.direction {
        Direction::SixToFour => (fields_v4(&this)?, fields_v4(&original)?),
        Direction::FourToSix => (fields_v6(&this)?, fields_v6(&original)?),
    };
    ensure!(our_rest == their_rest, "{case}: the two disagree behind the IP header");
    let mut deviations = Vec::new();
    for (ours, theirs) in ours.iter().zip(&theirs) {
        if ours.value == theirs.value {
            continue;
        }
        ensure!(!ours.must_agree, "{case}: {} is {} here, {} there", ours.name, ours.value, theirs.value);
        deviations.push(format!("{}: {} instead of {}", ours.name, theirs.value, ours.value));
    }
    Ok(deviations)
}

struct Field {
    name: &'static str,
    value: String,
    must_agree: bool,
}

impl Field {
    fn free(name: &'static str, value: &impl ToString) -> Self {
        Self { name, value: value.to_string(), must_agree: false }
    }

    fn fixed(name: &'static str, value: &impl ToString) -> Self {
        Self { name, value: value.to_string(), must_agree: true }
    }
}

/// The header checksum follows from the other fields, so it must be right instead of equal.
fn fields_v4(packet: &[u8]) -> Result<(Vec<Field>, &[u8])> {
    let slice = Ipv4HeaderSlice::from_slice(packet)?;
    let header = slice.to_header();
    ensure!(header.header_checksum == header.calc_header_checksum(), "a wrong header checksum");
    let fields = vec![
        Field::fixed("total length", &header.total_len),
        Field::fixed("protocol", &header.protocol.0),
        Field::fixed("source", &slice.source_addr()),
        Field::fixed("destination", &slice.destination_addr()),
        Field::free("DSCP", &header.dscp.value()),
        Field::free("identification", &header.identification),
        Field::free("DF", &u8::from(header.dont_fragment)),
        Field::free("TTL", &header.time_to_live),
    ];
    Ok((fields, &packet[slice.slice().len()..]))
}

fn fields_v6(packet: &[u8]) -> Result<(Vec<Field>, &[u8])> {
    let slice = Ipv6HeaderSlice::from_slice(packet)?;
    let header = slice.to_header();
    let fields = vec![
        Field::fixed("payload length", &header.payload_length),
        Field::fixed("next header", &header.next_header.0),
        Field::fixed("source", &slice.source_addr()),
        Field::fixed("destination", &slice.destination_addr()),
        Field::free("traffic class", &header.traffic_class),
        Field::free("flow label", &header.flow_label.value()),
        Field::free("hop limit", &header.hop_limit),
    ];
    Ok((fields, &packet[slice.slice().len()..]))
}
