//! What all files of tests share: addresses, the translation of a packet in a buffer of its own, and what is expected.
//!
//! Packets are made by [`packets`], cut by [`segmenter`] and judged by [`referee`], all with etherparse's code and none of ours.
#![allow(dead_code, reason = "each file of tests uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail the test that calls them"
)]

pub(crate) mod offloaded;
pub(crate) mod packets;
pub(crate) mod random;
pub(crate) mod referee;
pub(crate) mod segmenter;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use interproto::{
    DropReason, EmbeddedRewrite, HEADROOM, Icmpv4Error, Icmpv6Error, Ipv4Packet, Ipv6Packet, Params,
    PortRewrite, Rewrite, Verdict,
};

/// The host behind the translator.
pub(crate) const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The host's address on the IPv4 side.
pub(crate) const HOST4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
/// The peer in the internet, and its address on the IPv6 side (`64:ff9b:1::/96`, RFC 8215).
pub(crate) const PEER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub(crate) const PEER6: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0xc633, 0x6402);
/// A router on the way, which errors come from.
pub(crate) const ROUTER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0xc000, 0x0201);
/// The translator's own addresses.
pub(crate) const OWN4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 64);
pub(crate) const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x64);

/// The identification that translations are given. Its halves differ, so that swapped bytes show.
pub(crate) const IDENTIFICATION: u16 = 0x1267;

/// Which way a packet goes on its side of the translator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
}

pub(crate) const OUT6: Flow = Flow { source: IpAddr::V6(HOST6), destination: IpAddr::V6(PEER6) };
pub(crate) const OUT4: Flow = Flow { source: IpAddr::V4(HOST4), destination: IpAddr::V4(PEER4) };
pub(crate) const IN4: Flow = Flow { source: IpAddr::V4(PEER4), destination: IpAddr::V4(HOST4) };
pub(crate) const IN6: Flow = Flow { source: IpAddr::V6(PEER6), destination: IpAddr::V6(HOST6) };

/// The host's packets, and errors of the host about the peer's packets.
pub(crate) fn outward() -> Rewrite<Ipv4Addr> {
    Rewrite {
        source: HOST4,
        destination: PEER4,
        ports: PortRewrite::Keep,
        embedded: Some(EmbeddedRewrite { source: PEER4, destination: HOST4, ports: PortRewrite::Keep }),
    }
}

/// The peer's packets, and errors of the peer about the host's packets.
pub(crate) fn inward() -> Rewrite<Ipv6Addr> {
    Rewrite {
        source: PEER6,
        destination: HOST6,
        ports: PortRewrite::Keep,
        embedded: Some(EmbeddedRewrite { source: HOST6, destination: PEER6, ports: PortRewrite::Keep }),
    }
}

/// The same with new ports or a new identifier for the packet.
pub(crate) fn with_ports<A>(rewrite: Rewrite<A>, ports: PortRewrite) -> Rewrite<A> {
    Rewrite { ports, ..rewrite }
}

/// The same with new ports or a new identifier for the packet inside the error.
pub(crate) fn with_inner_ports<A: Copy>(rewrite: Rewrite<A>, ports: PortRewrite) -> Rewrite<A> {
    let embedded = rewrite.embedded.map(|embedded| EmbeddedRewrite { ports, ..embedded });
    Rewrite { embedded, ..rewrite }
}

/// A buffer with the packet behind the headroom, and with something else before and behind it.
pub(crate) fn storage(packet: &[u8]) -> Vec<u8> {
    let mut storage = vec![0xa5; HEADROOM];
    storage.extend_from_slice(packet);
    storage.extend_from_slice(&[0x5a; 32]);
    storage
}

/// Translates an IPv6 packet. What comes out is checked by the referee; where nothing comes out, the packet must be intact.
pub(crate) fn six_to_four(
    packet: &[u8],
    rewrite: &Rewrite<Ipv4Addr>,
    params: &Params,
) -> Result<Vec<u8>, DropReason> {
    let mut storage = storage(packet);
    let range = HEADROOM..HEADROOM + packet.len();
    let result = Ipv6Packet::check(&mut storage, range.clone()).and_then(|mut checked| {
        match checked.translate(rewrite, |_| IDENTIFICATION, params) {
            Verdict::Forward(mut packets) => {
                let translated = packets.next().expect("one packet comes out").to_vec();
                assert_eq!(packets.next(), None, "one IPv6 packet becomes one IPv4 packet");
                Ok(translated)
            }
            Verdict::Reply(reason) | Verdict::Hold(reason) | Verdict::Drop(reason) => Err(reason),
        }
    });
    match &result {
        Ok(translated) => {
            assert_eq!(translated[0], 0x45, "IPv4, without options");
            referee::lengths(translated);
        }
        Err(_) => assert_eq!(&storage[range], packet, "a dropped packet stays as it was"),
    }
    result
}

/// Translates an IPv4 packet to one or several packets, in the same way.
pub(crate) fn four_to_six(
    packet: &[u8],
    rewrite: &Rewrite<Ipv6Addr>,
    params: &Params,
) -> Result<Vec<Vec<u8>>, DropReason> {
    let mut storage = storage(packet);
    let range = HEADROOM..HEADROOM + packet.len();
    let result = Ipv4Packet::check(&mut storage, range.clone()).and_then(|mut checked| {
        match checked.translate(rewrite, params) {
            Verdict::Forward(mut packets) => {
                let mut all = Vec::new();
                while let Some(packet) = packets.next() {
                    all.push(packet.to_vec());
                    assert!(all.len() < 100, "the fragments come to an end");
                }
                Ok(all)
            }
            Verdict::Reply(reason) | Verdict::Hold(reason) | Verdict::Drop(reason) => Err(reason),
        }
    });
    match &result {
        Ok(all) => {
            assert!(!all.is_empty(), "something comes out");
            for packet in all {
                assert_eq!(packet[0] >> 4, 6);
                referee::lengths(packet);
            }
        }
        Err(_) => assert_eq!(&storage[range], packet, "a dropped packet stays as it was"),
    }
    result
}

/// The one IPv4 packet that the host's packet becomes, right in every checksum.
pub(crate) fn sent(packet: &[u8]) -> Vec<u8> {
    let translated = six_to_four(packet, &outward(), &Params::default()).expect("translatable");
    referee::checksums(&translated);
    translated
}

/// The one IPv6 packet that the peer's packet becomes, right in every checksum.
pub(crate) fn received(packet: &[u8]) -> Vec<u8> {
    let mut all = four_to_six(packet, &inward(), &Params::default()).expect("translatable");
    assert_eq!(all.len(), 1, "one packet");
    referee::checksums(&all[0]);
    all.remove(0)
}

/// Why the host's packet is dropped.
pub(crate) fn refused6(packet: &[u8]) -> DropReason {
    six_to_four(packet, &outward(), &Params::default()).expect_err("to be dropped")
}

/// Why the peer's packet is dropped.
pub(crate) fn refused4(packet: &[u8]) -> DropReason {
    four_to_six(packet, &inward(), &Params::default()).expect_err("to be dropped")
}

/// Links that carry no more than this.
pub(crate) const LINKS: Params = Params { ipv6_mtu: 1420, ipv4_mtu: 1380, ..Params::DEFAULT };

/// The translator's own error about an IPv6 packet.
pub(crate) fn own_error6(packet: &[u8], error: Icmpv6Error) -> Option<Vec<u8>> {
    let mut storage = storage(packet);
    let range = HEADROOM..HEADROOM + packet.len();
    let checked = Ipv6Packet::check(&mut storage, range.clone()).expect("well formed");
    let answer = checked.error(error, OWN6, &LINKS).map(<[u8]>::to_vec);
    assert_eq!(&storage[range], packet, "the packet stays as it was");
    answer.inspect(|answer| referee::checksums(answer))
}

/// The translator's own error about an IPv4 packet.
pub(crate) fn own_error4(packet: &[u8], error: Icmpv4Error) -> Option<Vec<u8>> {
    let mut storage = storage(packet);
    let range = HEADROOM..HEADROOM + packet.len();
    let checked = Ipv4Packet::check(&mut storage, range.clone()).expect("well formed");
    let answer = checked.error(error, OWN4, &LINKS).map(<[u8]>::to_vec);
    assert_eq!(&storage[range], packet, "the packet stays as it was");
    answer.inspect(|answer| referee::checksums(answer))
}
