//! A varied capture of correct IP packets of both families, and one of broken packets.

mod errors;
mod packets;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use etherparse::TcpOptionElement;

use packets::{Family, Sender, echo, fragments, payload, tcp, udp};

/// What pcap calls packets that begin with the IP header.
const LINKTYPE_RAW: u32 = 101;
const LONGEST_RECORD: u32 = 262_144;
/// The families as they arrive at a translator: IPv6 from the host, IPv4 from the peer.
const ARRIVING: [(Family, Sender); 2] = [(Family::V6, Sender::Host), (Family::V4, Sender::Peer)];
/// Short, odd and even, and around the longest that need no fragments.
const LENGTHS: [usize; 12] = [0, 1, 2, 3, 8, 127, 128, 536, 1211, 1212, 1213, 1432];

/// Writes a pcap file (version 2.4): one packet a second.
pub(super) fn write(path: &Path, packets: &[Vec<u8>]) -> Result<()> {
    let mut file = Vec::new();
    file.extend(0xa1b2_c3d4_u32.to_le_bytes());
    file.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file.extend(LONGEST_RECORD.to_le_bytes());
    file.extend(LINKTYPE_RAW.to_le_bytes());
    for (second, packet) in packets.iter().enumerate() {
        let length = u32::try_from(packet.len())?;
        for word in [u32::try_from(second)?, 0, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(packet);
    }
    fs::write(path, file).with_context(|| path.display().to_string())
}

/// Correct packets that a translator lets through: TCP with options, UDP, echoes, fragments, and ICMP errors of all types
/// about all of these, with RFC 4884 extensions and without.
pub(super) fn varied() -> Result<Vec<Vec<u8>>> {
    let mut made = Vec::new();
    for (family, sender) in ARRIVING {
        let mut sequence = 1;
        for length in LENGTHS {
            let payload = payload(length);
            for options in tcp_options() {
                made.push(tcp(family, sender, sequence, &options, &payload)?);
                sequence = sequence.wrapping_add(u32::try_from(length)?);
            }
            made.push(udp(family, sender, None, &payload)?);
            made.push(echo(family, sender, &payload)?);
        }
        let long = payload(2000);
        let last = payload(1997);
        made.extend(fragments(&udp(family, sender, None, &long)?, 1208, 1)?);
        made.extend(fragments(&udp(family, sender, None, &last)?, 1480, 2)?);
        made.extend(fragments(&tcp(family, sender, sequence, &[], &long)?, 504, 3)?);
        made.extend(errors::about_everything(family, sender)?);
    }
    // Without DF, these leave in fragments.
    for (identification, length) in [(11, 1432), (12, 1472), (13, 3000)] {
        made.push(udp(Family::V4, Sender::Peer, Some(identification), &payload(length))?);
    }
    Ok(made)
}

fn tcp_options() -> [Vec<TcpOptionElement>; 4] {
    use TcpOptionElement as Kind;
    let sack = Kind::SelectiveAcknowledgement((1, 2), [Some((5, 9)), None, None]);
    [
        Vec::new(),
        vec![Kind::MaximumSegmentSize(1440), Kind::SelectiveAcknowledgementPermitted, Kind::WindowScale(7)],
        vec![Kind::Noop, Kind::Noop, Kind::Timestamp(0x0102_0304, 5)],
        vec![Kind::Noop, Kind::Noop, Kind::Timestamp(6, 7), sack],
    ]
}

/// Packets of which each has one checksum that is wrong, and one that ends inside an extension header.
pub(super) fn broken() -> Result<Vec<Vec<u8>>> {
    let mut made = Vec::new();
    for (family, sender) in ARRIVING {
        let payload = payload(9);
        for mut packet in [
            udp(family, sender, None, &payload)?,
            tcp(family, sender, 1, &[], &payload)?,
            echo(family, sender, &payload)?,
        ] {
            *packet.last_mut().context("an empty packet")? ^= 1;
            made.push(packet);
        }
    }
    let mut wrong_header = udp(Family::V4, Sender::Peer, None, &[])?;
    wrong_header[10] ^= 1;
    made.push(wrong_header);
    let mut wrong_extension = errors::with_extension(Family::V4, Sender::Peer)?;
    *wrong_extension.last_mut().context("an empty packet")? += 1;
    // The message's own checksum, behind the IP header's 20 bytes and type and code, follows.
    wrong_extension[23] -= 1;
    made.push(wrong_extension);
    let mut cut = udp(Family::V6, Sender::Host, None, &[])?;
    cut[6] = 0;
    made.push(cut);
    Ok(made)
}
