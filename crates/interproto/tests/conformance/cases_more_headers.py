"""Cases beside the ordinary ones: headers in front of fragments, packets without a payload, and the ends of ranges."""

from generate import (
    DF, HOST4, HOST6, IP, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, OWN4, OWN6,
    PEER4, PadN, Raw, at_host, at_peer, at_peer_icmp, checksum, data, echo, host, host_icmp, icmp4, icmp6, into, out,
    peer, pieces4, pieces6, struct, tcp, udp, wrong,
)


def with_options(packet, options):
    """The IPv4 packet with these bytes of options, a multiple of four."""
    packet = bytes(packet)
    changed = bytearray(packet[:20] + options + packet[20:])
    changed[0] += len(options) // 4
    changed[2:4] = struct.pack("!H", len(changed))
    changed[10:12] = b"\0\0"
    changed[10:12] = struct.pack("!H", checksum(bytes(changed[: 20 + len(options)])))
    return bytes(changed)


# --- Headers in front of fragments ------------------------------------------------------------------------------------

pad = [PadN(optdata=b"\0" * 4)]
whole = bytes(at_peer() / udp(data(2000)))[20:]
whole6 = bytes(host() / udp(data(2000)))[40:]
for name, chain in [
    ("hop-by-hop", lambda: IPv6ExtHdrHopByHop(options=pad)),
    ("destination", lambda: IPv6ExtHdrDestOpt(options=pad)),
    ("routing", lambda: IPv6ExtHdrRouting(type=4, segleft=0)),
]:
    out(f"fragments-behind-{name}-out", "7915 §5.1, §5.1.1",
        "Extension headers in front of a fragment header are left out, and the fragment keeps its place.",
        [host() / chain() / IPv6ExtHdrFragment(nh=17, offset=start // 8, m=more, id=0xABCD4321) / Raw(whole6[start:end])
         for start, end, more in [(0, 1200, 1), (1200, 2008, 0)]],
        list(pieces4(at_peer() / udp(data(2000)), 0x4321, [0, 1200])))
first, last = list(pieces4(peer() / udp(data(2000)), 0x4321, [0, 1200]))
into("fragments-with-options-in", "7915 §4.1", "Options are left out of fragments too, first and later ones.",
     [with_options(first, b"\x07\x07\x04\0\0\0\0\0"), with_options(last, b"\x83\x07\x08\xc0\0\x02\x09\0")],
     list(pieces6(at_host() / udp(data(2000)), 0x4321, [0, 1200])))
into("fragments-of-the-longest-datagram-in", "7915 §4.1, 791 §3.1",
     "The offset has 13 bits, and the last fragment may end at 65535.",
     IP(src=PEER4, dst=HOST4, ttl=64, proto=17, frag=65504 // 8, id=9) / Raw(data(11)),
     at_host() / IPv6ExtHdrFragment(nh=17, offset=65504 // 8, m=0, id=9) / Raw(data(11)))
out("fragments-of-the-longest-datagram-out", "7915 §5.1.1, 791 §3.1",
    "The last fragment may end where an IPv4 datagram may.",
    host() / IPv6ExtHdrFragment(nh=17, offset=65504 // 8, m=0, id=9) / Raw(data(11)),
    at_peer(proto=17, flags=0, frag=65504 // 8, id=9) / Raw(data(11)))
into("fragments-past-the-longest-datagram-in", "7915 §4.1, 791 §3.1", "One byte more, and there is no such datagram.",
     IP(src=PEER4, dst=HOST4, ttl=64, proto=17, frag=65504 // 8, id=9) / Raw(data(12)), outcome="drop",
     reason="malformed_header")
into("fragments-not-of-eight-bytes-in", "791 §3.2", "All fragments but the last have a multiple of eight bytes.",
     IP(src=PEER4, dst=HOST4, ttl=64, proto=17, flags=1, frag=100, id=9) / Raw(data(60)), outcome="drop",
     reason="malformed_header")
out("fragments-not-of-eight-bytes-out", "8200 §4.5", "All fragments but the last have a multiple of eight bytes.",
    host() / IPv6ExtHdrFragment(nh=17, offset=100, m=1, id=9) / Raw(data(60)), outcome="drop",
    reason="malformed_header")

# --- Fragmentation ----------------------------------------------------------------------------------------------------

into("fragmentation-of-tcp-in", "7915 §4",
     "Without DF and too long: the checksum is that of the whole, in the first fragment.",
     peer(flags=0, id=0x4242) / tcp(data(2000)), list(pieces6(at_host() / tcp(data(2000)), 0x4242, [0, 1232])))
into("fragmentation-of-unknown-in", "7915 §4", "Without DF and too long, whatever the protocol.",
     peer(flags=0, id=0x4242, proto=132) / Raw(data(2000)),
     list(pieces6(at_host(nh=132) / Raw(data(2000)), 0x4242, [0, 1232])))
into("fragmentation-counts-no-options-in", "7915 §4", "The length of the translation decides, which has no options.",
     with_options(peer(flags=0, id=1) / udp(data(1280 - 48)), b"\1" * 40), at_host() / udp(data(1280 - 48)))
into("fragmentation-not-with-df-in", "7915 §4", "With DF there are no fragments, however long the packet is.",
     peer() / udp(data(3000)), at_host() / udp(data(3000)))

# --- Payloads ---------------------------------------------------------------------------------------------------------

for proto, name in [(135, "mobility"), (139, "hip"), (140, "shim6"), (59, "no-next-header"), (4, "ipip"), (41, "ipv6")]:
    into(f"protocol-{name}-in", "7915 §4.1", "The number is copied.", peer(proto=proto) / Raw(data(40)),
         at_host(nh=proto) / Raw(data(40)))
into("protocol-without-payload-in", "7915 §4.1", "A packet may end behind its header: a payload length of zero.",
     peer(proto=253, len=20), at_host(nh=253, plen=0))
out("protocol-without-payload-out", "7915 §5.1", "A packet may end behind its header: a total length of 20.",
    host(nh=253, plen=0), at_peer(proto=253, len=20))
out("protocol-no-next-header-out", "7915 §5.1", "The number is copied.", host(nh=59) / Raw(data(40)),
    at_peer(proto=59) / Raw(data(40)))
out("df-with-extension-headers-out", "7915 §5.1",
    "The length of the IPv4 packet decides about DF, which has no extension headers.",
    host() / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]) / udp(data(1260 - 28)),
    at_peer(1260) / udp(data(1260 - 28)))
out("echo-in-an-atomic-fragment-out", "7915 §5.1.1, 8021", "An atomic fragment holds a whole message, ICMP too.",
    host() / IPv6ExtHdrFragment(nh=58, id=0x77773333) / Raw(bytes(host_icmp(128, 0, echo(7, 1), data(30)))[40:]),
    at_peer_icmp(8, 0, echo(7, 1), data(30), id=0x3333))
out("tcp-in-a-long-atomic-fragment-out", "7915 §5.1.1",
    "With a fragment header DF is clear, however long the packet is.",
    host() / IPv6ExtHdrFragment(nh=6, id=0x77773333) / Raw(bytes(host() / tcp(data(1400)))[40:]),
    at_peer(id=0x3333, flags=0) / tcp(data(1400)))
into("udp-without-checksum-odd-in", "7915 §4.5", "The last odd byte counts as the upper half of a word.",
     peer() / udp(data(30), chksum=0), at_host() / udp(data(30)))
into("udp-without-checksum-empty-in", "7915 §4.5", "A datagram without data gets a checksum too.",
     peer() / udp(b"", chksum=0), at_host() / udp(b""))
into("udp-without-checksum-in-fragments-in", "7915 §4.5, §4", "A whole datagram gets its checksum before it is cut.",
     peer(flags=0, id=3) / udp(data(2000), chksum=0), list(pieces6(at_host() / udp(data(2000)), 3, [0, 1232])))
into("udp-without-checksum-later-fragment-in", "7915 §4.5", "A later fragment says nothing of checksums.",
     list(pieces4(peer() / udp(data(2000), chksum=0), 9, [0, 1000]))[1],
     list(pieces6(at_host() / udp(data(2000)), 9, [0, 1000]))[1])
special = struct.pack("!H", int.from_bytes(bytes(at_host() / udp(b"\0\0"))[46:48], "big"))
into("udp-without-checksum-comes-out-as-zero-in", "8200 §8.1, 7915 §4.5",
     "A checksum that computes to zero is sent as 0xffff.",
     peer() / udp(special, chksum=0), wrong(at_host() / udp(special), 46, b"\xff\xff"))
into("udp-without-checksum-ports-in", "7915 §4.5, 6146 §3.5", "The checksum is that of the ports that leave.",
     peer() / udp(data(9), chksum=0), at_host() / udp(data(9), sport=1, dport=2),
     rewrite={"source_port": 1, "destination_port": 2})
out("udp-ports-of-a-later-fragment-out", "6146 §3.5",
    "A later fragment has no ports: nothing of its payload is touched.",
    list(pieces6(host() / udp(data(2000)), 9, [0, 1000]))[1],
    list(pieces4(at_peer() / udp(data(2000)), 9, [0, 1000]))[1],
    rewrite={"source_port": 1, "destination_port": 2})
for name, length in [("too-short", 7), ("too-long", 99)]:
    into(f"udp-length-{name}-in", "768", "A length that cannot be.", peer() / udp(data(9), len=length, chksum=7),
         outcome="drop", reason="malformed_transport")
    out(f"udp-length-{name}-out", "768", "A length that cannot be.", host() / udp(data(9), len=length, chksum=7),
        outcome="drop", reason="malformed_transport")

# --- Errors of the translator's own -----------------------------------------------------------------------------------

packet = bytes(host(hlim=1) / udp(data(1400)))
out("hops-1-long-out", "4443 §2.4, §3.3", "As much of the packet as 1280 bytes have room for.", packet,
    icmp6(3, 0, 0, packet[: 1280 - 48], src=OWN6, dst=HOST6, hlim=64), outcome="reply", reason="hop_limit_exceeded")
packet = with_options(peer(ttl=1) / udp(data(1400)), b"\1\1\1\0")
into("hops-1-long-in", "1812 §4.3.2.3", "As much of the packet as 576 bytes have room for, its options among it.",
     packet,
     icmp4(11, 0, 0, packet[: 576 - 28], src=OWN4, dst=PEER4, ttl=64, tos=0xC0, flags=DF, id=0),
     outcome="reply", reason="hop_limit_exceeded")
packet = bytes(host(hlim=1) / IPv6ExtHdrFragment(nh=17, m=0, offset=125, id=7) / Raw(data(40)))
out("hops-1-later-fragment-out", "4443 §2.4", "In IPv6 a later fragment is answered too.", packet,
    icmp6(3, 0, 0, packet, src=OWN6, dst=HOST6, hlim=64), outcome="reply", reason="hop_limit_exceeded")
into("no-error-to-a-group-in", "1812 §4.3.2.7", "No error is about a packet to a group.",
     peer(ttl=1, dst="224.0.1.1") / udp(),
     outcome="drop", reason="hop_limit_exceeded")
out("no-error-to-a-group-out", "4443 §2.4", "No error is about a packet to a group.",
    host(hlim=1, dst="ff0e::1") / udp(),
    outcome="drop", reason="hop_limit_exceeded")

# --- More about fragments and lengths ---------------------------------------------------------------------------------

into("udp-without-checksum-padded-in", "7915 §4.5, 768",
     "The checksum covers what the UDP length says, and not what follows.",
     peer() / udp(b"data", len=12, chksum=0) / Raw(b"zzzzz"), bytes(at_host(plen=17) / udp(b"data")) + b"zzzzz")
into("fragments-with-df-in", "7915 §4.1", "A fragment with DF is a fragment.",
     IP(src=PEER4, dst=HOST4, ttl=64, proto=17, flags=3, frag=100, id=9) / Raw(data(1400)),
     at_host() / IPv6ExtHdrFragment(nh=17, offset=100, m=1, id=9) / Raw(data(1400)))
out("fragments-with-reserved-bits-out", "7915 §5.1.1, 8200 §4.5", "Reserved bits of the fragment header are ignored.",
    host() / IPv6ExtHdrFragment(nh=17, res1=255, res2=3, m=1, offset=100, id=9) / Raw(data(64)),
    at_peer(proto=17, flags=1, frag=100, id=9) / Raw(data(64)))
out("fragments-longer-than-the-next-link-out", "7915 §5.1.1", "DF is clear, so that IPv4 routers cut them further.",
    host() / IPv6ExtHdrFragment(nh=17, m=1, offset=100, id=9) / Raw(data(1400)),
    at_peer(proto=17, flags=1, frag=100, id=9) / Raw(data(1400)), params={"ipv4_mtu": 1400})
payload = bytes(peer() / udp(data(2000)))[20:1420]
packet = bytes(IP(src=PEER4, dst=HOST4, ttl=64, proto=17, flags=3, id=9) / Raw(payload))
into("fragments-with-df-too-big-in", "7915 §4.1, 1191 §4",
     "A fragment grows by 28 bytes: what fits is the next link's MTU less 28.",
     packet, icmp4(3, 4, 1400 - 28, packet[: 576 - 28], src=OWN4, dst=PEER4, ttl=64, tos=0xC0, flags=DF, id=0),
     outcome="reply", reason="too_big", params={"ipv6_mtu": 1400})
