//! Bringing the sessions of a batch of packets into the cache, before the first of them is routed.
//!
//! A guess: nothing depends on it but time. Packets with options, extension headers or fragments are left out.

use std::net::{Ipv4Addr, Ipv6Addr};

use fast_nat::Timestamp;
use fast_nat::nat64::{Inbound, Nat64, Outbound, Protocol};

use super::Rules;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The flows of a batch.
#[derive(Debug, Default)]
pub struct Warmer {
    outbound: Vec<Outbound>,
    inbound: Vec<Inbound>,
}

impl Warmer {
    /// Warms up what these packets will need.
    pub fn warm<'p>(
        &mut self,
        nat: &Nat64,
        rules: &Rules,
        packets: impl Iterator<Item = &'p [u8]>,
        now: Timestamp,
    ) {
        self.outbound.clear();
        self.inbound.clear();
        for packet in packets {
            match packet.first() {
                Some(0x60..=0x6f) => self.outbound.extend(outbound(rules, packet)),
                Some(0x45) => self.inbound.extend(inbound(packet)),
                _ => {}
            }
        }
        nat.warm_outbound(&self.outbound, now);
        nat.warm_inbound(&self.inbound);
    }
}

fn outbound(rules: &Rules, packet: &[u8]) -> Option<Outbound> {
    let header: &[u8; 44] = packet.first_chunk()?;
    let address = |at: usize| -> Option<Ipv6Addr> {
        let octets: &[u8; 16] = header.get(at..)?.first_chunk()?;
        Some(Ipv6Addr::from(*octets))
    };
    let (prefix, remote) = rules.extract(address(24)?)?;
    Some(Outbound {
        prefix,
        protocol: protocol(header[6])?,
        host: address(8)?,
        port: u16::from_be_bytes([header[40], header[41]]),
        remote,
        remote_port: u16::from_be_bytes([header[42], header[43]]),
    })
}

fn inbound(packet: &[u8]) -> Option<Inbound> {
    let header: &[u8; 24] = packet.first_chunk()?;
    let address = |at: usize| -> Option<Ipv4Addr> {
        let octets: &[u8; 4] = header.get(at..)?.first_chunk()?;
        Some(Ipv4Addr::from(*octets))
    };
    let is_fragment = header[6] & 0x3f != 0 || header[7] != 0;
    (!is_fragment).then_some(Inbound {
        protocol: protocol(header[9])?,
        address: address(16)?,
        port: u16::from_be_bytes([header[22], header[23]]),
        remote: address(12)?,
        remote_port: u16::from_be_bytes([header[20], header[21]]),
    })
}

fn protocol(number: u8) -> Option<Protocol> {
    match number {
        TCP => Some(Protocol::Tcp),
        UDP => Some(Protocol::Udp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    #[test]
    fn the_flows_of_plain_packets_are_read_as_the_router_reads_them_and_nothing_else_is() {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([192, 0, 2, 80], [198, 51, 100, 9], 64)
            .tcp(443, 1030, 1, 1)
            .write(&mut packet, b"")
            .unwrap();
        let expected = Inbound {
            protocol: Protocol::Tcp,
            address: Ipv4Addr::new(198, 51, 100, 9),
            port: 1030,
            remote: Ipv4Addr::new(192, 0, 2, 80),
            remote_port: 443,
        };
        assert_eq!(inbound(&packet), Some(expected));
        packet[6] = 0x20;
        assert_eq!(inbound(&packet), None, "a fragment");
        assert_eq!(inbound(&packet[..23]), None, "too short");
        packet[6] = 0x40;
        packet[9] = 1;
        assert_eq!(inbound(&packet), None, "ICMP");
    }
}
