"""Cases about ICMP: queries, errors with the packet inside, extensions, and routers without an IPv4 address."""

from generate import (
    DF, HOST4, HOST6, IDENTIFICATION, IP, IPv6, IPv6ExtHdrFragment, OWN4, OWN6, PEER4, PEER6, ROUTER4, ROUTER6, Raw, TCP, UDP,
    at_host, at_host_icmp, at_peer, at_peer_icmp, checksum, data, echo, host, host_icmp, icmp4, icmp6, into, out, peer,
    peer_icmp, pieces4, pieces6, struct, tcp, udp, wrong,
)

# --- Queries ---------------------------------------------------------------------------------------------------------------

for name, kind6, kind4 in [("request", 128, 8), ("reply", 129, 0)]:
    out(f"echo-{name}-out", "7915 §5.2", "Echo keeps identifier and sequence number, and loses the pseudo-header in its checksum.",
        host_icmp(kind6, 0, echo(7, 1), data(56)), at_peer_icmp(kind4, 0, echo(7, 1), data(56)))
    into(f"echo-{name}-in", "7915 §4.2", "Echo keeps identifier and sequence number; its checksum covers the pseudo-header.",
         peer_icmp(kind4, 0, echo(7, 1), data(55)), at_host_icmp(kind6, 0, echo(7, 1), data(55)))
out("echo-identifier-out", "6146 §3.5.3", "A stateful translator sets another identifier.", host_icmp(128, 0, echo(7, 1), data(8)),
    at_peer_icmp(8, 0, echo(4321, 1), data(8)), rewrite={"identifier": 4321})
into("echo-identifier-in", "6146 §3.5.3", "A stateful translator sets another identifier.", peer_icmp(0, 0, echo(4321, 1), data(8)),
     at_host_icmp(129, 0, echo(7, 1), data(8)), rewrite={"identifier": 7})
for kind, name in [(13, "timestamp"), (14, "timestamp-reply"), (15, "information"), (16, "information-reply"), (17, "mask"),
                   (18, "mask-reply"), (9, "router-advertisement"), (10, "router-solicitation"), (4, "source-quench"), (5, "redirect"),
                   (6, "alternate-address"), (253, "unknown")]:
    into(f"icmp-{name}-in", "7915 §4.2", "Single-hop, obsolete and unknown types are dropped in silence.",
         peer_icmp(kind, 0, 0, data(20)), outcome="drop", reason="icmp_not_translatable")
into("icmp-igmp-in", "7915 §4.2", "IGMP messages are for one link alone, and dropped in silence.",
     IP(src=PEER4, dst=HOST4, ttl=64, proto=2) / Raw(b"\x16\0\x09\xfb\xe0\0\1\1"), outcome="drop", reason="icmp_not_translatable")
for kind, name in [(130, "mld-query"), (131, "mld-report"), (132, "mld-done"), (133, "router-solicitation"), (134, "router-advertisement"),
                   (135, "neighbor-solicitation"), (136, "neighbor-advertisement"), (137, "redirect"), (143, "mldv2-report"),
                   (255, "unknown")]:
    out(f"icmpv6-{name}-out", "7915 §5.2", "Neighbor discovery, MLD and unknown types are dropped in silence.",
        host_icmp(kind, 0, 0, data(20)), outcome="drop", reason="icmp_not_translatable")
message6 = host_icmp(128, 0, echo(7, 1), data(3000))
fragment = list(pieces6(message6, 0xABCD1234, [0, 1232, 2464]))
out("echo-fragment-out", "7915 §1.2", "A fragmented ICMP message is not translated piece by piece. A query is answered.", fragment[0],
    icmp6(1, 1, 0, bytes(fragment[0])[:1232], src=OWN6, dst=HOST6, hlim=64), outcome="hold", reason="fragmented_icmp")
whole = bytes(IPv6(src=HOST6, dst=PEER6, hlim=64) / IPv6ExtHdrFragment(nh=58, m=1, id=0xABCD1234) / Raw(bytes(message6)[40:]))
whole = wrong(whole, 4, struct.pack("!H", 1240))
out("echo-reassembled-out", "7915 §1.2, §5.1.1", "Put together again it is, with the identification of its fragments and without DF.",
    whole, at_peer_icmp(8, 0, echo(7, 1), data(3000), id=0x1234), reassembled=True)
message4 = peer_icmp(0, 0, echo(7, 1), data(3000), flags=0)
into("echo-fragment-in", "7915 §1.2", "A fragmented ICMP message is not translated piece by piece.",
     list(pieces4(message4, 0x1234, [0, 1480]))[1], outcome="hold", reason="fragmented_icmp")
whole = wrong(bytes(IP(src=PEER4, dst=HOST4, ttl=64, proto=1, flags=1, id=0x1234) / Raw(bytes(message4)[20:])), 2, struct.pack("!H", 1500))
into("echo-reassembled-in", "7915 §1.2, §4", "Put together again it is, and leaves in fragments of at most 1280 bytes.", whole,
     list(pieces6(at_host_icmp(129, 0, echo(7, 1), data(3000)), 0x1234, [0, 1232, 2464])), reassembled=True)

# --- Errors: what is inside ------------------------------------------------------------------------------------------------

# The packet inside, as its sender wrote it and as the other side knows it. It went the other way, and its hops are left alone.
INSIDE = {
    # From the host, inside an error from the IPv4 side.
    "udp": (IP(src=HOST4, dst=PEER4, ttl=3, flags=DF, id=0) / udp(), IPv6(src=HOST6, dst=PEER6, hlim=3) / udp()),
    "tcp": (IP(src=HOST4, dst=PEER4, ttl=3, flags=DF, id=0, tos=9) / tcp(), IPv6(src=HOST6, dst=PEER6, hlim=3, tc=9) / tcp()),
    "echo": (icmp4(8, 0, echo(7, 1), data(30), src=HOST4, dst=PEER4, ttl=3, flags=DF, id=0),
             icmp6(128, 0, echo(7, 1), data(30), src=HOST6, dst=PEER6, hlim=3)),
    "echo-reply": (icmp4(0, 0, echo(7, 1), data(30), src=HOST4, dst=PEER4, ttl=3, flags=DF, id=0),
                   icmp6(129, 0, echo(7, 1), data(30), src=HOST6, dst=PEER6, hlim=3)),
    "esp": (IP(src=HOST4, dst=PEER4, ttl=3, proto=50, flags=DF, id=0) / Raw(data(40)),
            IPv6(src=HOST6, dst=PEER6, hlim=3, nh=50) / Raw(data(40))),
    "fragment": (list(pieces4(IP(src=HOST4, dst=PEER4, ttl=3) / udp(data(1000)), 77, [0, 800]))[1],
                 list(pieces6(IPv6(src=HOST6, dst=PEER6, hlim=3) / udp(data(1000)), 77, [0, 800]))[1]),
}
ABOUT4, ABOUT6 = map(bytes, INSIDE["udp"])


def turned(name):
    """From the peer, inside an error from the IPv6 side: its IPv4 form and its IPv6 form."""
    if name == "udp":
        return IP(src=PEER4, dst=HOST4, ttl=3, flags=0, id=0) / udp(), IPv6(src=PEER6, dst=HOST6, hlim=3) / udp()
    if name == "tcp":
        return (IP(src=PEER4, dst=HOST4, ttl=3, flags=0, id=0, tos=9) / tcp(), IPv6(src=PEER6, dst=HOST6, hlim=3, tc=9) / tcp())
    if name.startswith("echo"):
        four, six = (8, 128) if name == "echo" else (0, 129)
        return (icmp4(four, 0, echo(7, 1), data(30), src=PEER4, dst=HOST4, ttl=3, flags=0, id=0),
                icmp6(six, 0, echo(7, 1), data(30), src=PEER6, dst=HOST6, hlim=3))
    if name == "esp":
        return (IP(src=PEER4, dst=HOST4, ttl=3, proto=50, flags=0, id=0) / Raw(data(40)),
                IPv6(src=PEER6, dst=HOST6, hlim=3, nh=50) / Raw(data(40)))
    return (list(pieces4(IP(src=PEER4, dst=HOST4, ttl=3) / udp(data(1000)), 77, [0, 800]))[1],
            list(pieces6(IPv6(src=PEER6, dst=HOST6, hlim=3) / udp(data(1000)), 77, [0, 800]))[1])


# An error from a router: its source is not the peer.
FROM4 = {"src": ROUTER4}
FROM6 = {"src": ROUTER6}
REWRITE_IN = {"rewrite": {"source": ROUTER6}}


def error_in(name, rfc, why, four, six, inside4, inside6, **more):
    into(name, rfc, why, peer_icmp(*four, inside4, **FROM4), at_host_icmp(*six, inside6, **FROM6), **REWRITE_IN, **more)


def error_out(name, rfc, why, six, four, inside6, inside4, **more):
    out(name, rfc, why, host_icmp(*six, inside6), at_peer_icmp(*four, inside4), **more)


for name, (inside4, inside6) in INSIDE.items():
    error_in(f"error-about-{name}-in", "7915 §4.3", "The packet inside is translated too, but for its hops.", (11, 0, 0), (3, 0, 0),
             bytes(inside4), bytes(inside6))
    inside4, inside6 = turned(name)
    error_out(f"error-about-{name}-out", "7915 §5.3", "The packet inside is translated too, but for its hops.", (1, 0, 0), (3, 1, 0),
              bytes(inside6), bytes(inside4))
error_in("error-about-8-bytes-in", "7915 §4.3, 792", "The packet inside may end behind its first eight bytes, and its lengths say more.",
         (3, 1, 0), (1, 0, 0), bytes(INSIDE["tcp"][0])[:28], bytes(INSIDE["tcp"][1])[:48])
ports = {"embedded": {"source_port": 4321, "destination_port": 80}}
error_in("error-ports-in", "7915 §4.3, 6146 §3.5", "A stateful translator sets the ports inside too.", (11, 0, 0), (3, 0, 0), ABOUT4,
         bytes(IPv6(src=HOST6, dst=PEER6, hlim=3) / UDP(sport=4321, dport=80) / Raw(b"data")), **ports)
error_in("error-identifier-in", "7915 §4.3, 5508 §4.2", "And the identifier of an echo inside.", (11, 0, 0), (3, 0, 0),
         bytes(INSIDE["echo"][0]), bytes(icmp6(128, 0, echo(4321, 1), data(30), src=HOST6, dst=PEER6, hlim=3)),
         embedded={"identifier": 4321})
into("error-inside-error-in", "7915 §4.3", "An error inside an error is dropped.",
     peer_icmp(11, 0, 0, bytes(icmp4(3, 1, 0, ABOUT4, src=HOST4, dst=PEER4)), **FROM4), outcome="drop", reason="embedded_not_translatable")
out("error-inside-error-out", "7915 §5.3", "An error inside an error is dropped.",
    host_icmp(3, 0, 0, bytes(icmp6(1, 0, 0, bytes(turned("udp")[1]), src=PEER6, dst=HOST6))), outcome="drop",
    reason="embedded_not_translatable")
into("error-wrong-checksum-in", "5508 §4.2", "An error with a wrong checksum is dropped.",
     wrong(peer_icmp(11, 0, 0, ABOUT4, **FROM4), 22, b"\x12\x34"), outcome="drop", reason="bad_icmp_checksum")
long4, long6 = (bytes(ip / udp(data(1400))) for ip in (IP(src=HOST4, dst=PEER4, ttl=3, flags=DF, id=0), IPv6(src=HOST6, dst=PEER6, hlim=3)))
error_in("error-is-cut-in", "4443 §2.4", "An ICMPv6 error has at most 1280 bytes.", (11, 0, 0), (3, 0, 0), long4[:1400], long6[: 1280 - 48])
long4, long6 = (bytes(ip / udp(data(1400))) for ip in (IP(src=PEER4, dst=HOST4, ttl=3, flags=DF, id=0), IPv6(src=PEER6, dst=HOST6, hlim=3)))
error_out("error-is-cut-out", "1812 §4.3.2.3", "An ICMPv4 error has at most 576 bytes.", (3, 0, 0), (11, 0, 0), long6[:1232], long4[: 576 - 28])

# --- Types and codes (RFC 7915 4.2 and 5.2) --------------------------------------------------------------------------------

for code in [0, 1, 5, 6, 7, 8, 11, 12]:
    error_in(f"unreachable-{code}-in", "7915 §4.2", "No route to destination.", (3, code, 0), (1, 0, 0), ABOUT4, ABOUT6)
error_in("unreachable-2-in", "7915 §4.2", "Protocol unreachable: Parameter Problem, unrecognized next header, at that field.", (3, 2, 0),
         (4, 1, 6), ABOUT4, ABOUT6)
error_in("unreachable-3-in", "7915 §4.2", "Port unreachable.", (3, 3, 0), (1, 4, 0), ABOUT4, ABOUT6)
for code in [9, 10, 13, 15]:
    error_in(f"unreachable-{code}-in", "7915 §4.2", "Administratively prohibited.", (3, code, 0), (1, 1, 0), ABOUT4, ABOUT6)
for code in [14, 16]:
    into(f"unreachable-{code}-in", "7915 §4.2", "Host precedence violation and unknown codes are dropped in silence.",
         peer_icmp(3, code, 0, ABOUT4, **FROM4), outcome="drop", reason="icmp_not_translatable")
for code in [0, 1]:
    error_in(f"time-exceeded-{code}-in", "7915 §4.2", "The code stays.", (11, code, 0), (3, code, 0), ABOUT4, ABOUT6)
BACK4, BACK6 = map(bytes, turned("udp"))
for code, translated in [(0, 1), (1, 10), (2, 1), (3, 1), (4, 3)]:
    error_out(f"unreachable-{code}-out", "7915 §5.2", "Host unreachable, prohibited, or port unreachable.", (1, code, 0), (3, translated, 0),
              BACK6, BACK4)
for code in [5, 6]:
    out(f"unreachable-{code}-out", "7915 §5.2", "Unknown codes are dropped in silence.", host_icmp(1, code, 0, BACK6), outcome="drop",
        reason="icmp_not_translatable")
for code in [0, 1]:
    error_out(f"time-exceeded-{code}-out", "7915 §5.2", "The code stays.", (3, code, 0), (11, code, 0), BACK6, BACK4)
error_out("parameter-problem-1-out", "7915 §5.2", "Unrecognized next header: protocol unreachable.", (4, 1, 6), (3, 2, 0), BACK6, BACK4)
out("parameter-problem-2-out", "7915 §5.2", "Unrecognized options are dropped in silence.", host_icmp(4, 2, 40, BACK6), outcome="drop",
    reason="icmp_not_translatable")
# Figure 3: IPv4 pointer to IPv6 pointer.
for pointer, translated in [(0, 0), (1, 1), (2, 4), (3, 4), (8, 7), (9, 6), (12, 8), (15, 8), (16, 24), (19, 24)]:
    for code in [0, 2]:
        error_in(f"pointer-{pointer}-code-{code}-in", "7915 §4.2", "The pointer is that of figure 3.", (12, code, pointer << 24),
                 (4, 0, translated), ABOUT4, ABOUT6)
for pointer in [4, 5, 6, 7, 10, 11, 20]:
    into(f"pointer-{pointer}-in", "7915 §4.2", "Figure 3 has nothing for this pointer.", peer_icmp(12, 0, pointer << 24, ABOUT4, **FROM4),
         outcome="drop", reason="pointer_not_translatable")
into("parameter-problem-1-in", "7915 §4.2", "A missing required option is dropped in silence.", peer_icmp(12, 1, 0, ABOUT4, **FROM4),
     outcome="drop", reason="icmp_not_translatable")
# Figure 6: IPv6 pointer to IPv4 pointer.
for pointer, translated in [(0, 0), (1, 1), (4, 2), (5, 2), (6, 9), (7, 8), (8, 12), (23, 12), (24, 16), (39, 16)]:
    error_out(f"pointer-{pointer}-out", "7915 §5.2", "The pointer is that of figure 6.", (4, 0, pointer), (12, 0, translated << 24), BACK6, BACK4)
for pointer in [2, 3, 40, 256, 0x01000000]:
    out(f"pointer-{pointer}-out", "7915 §5.2", "Figure 6 has nothing for this pointer, which has 32 bits.", host_icmp(4, 0, pointer, BACK6),
        outcome="drop", reason="pointer_not_translatable")

# --- MTUs ------------------------------------------------------------------------------------------------------------------

for mtu, translated in [(1500, 1520), (1400, 1420), (1260, 1280), (1000, 1280), (68, 1280), (65535, 65555)]:
    error_in(f"fragmentation-needed-{mtu}-in", "7915 §4.2", "20 bytes more, and at least 1280.", (3, 4, mtu), (2, 0, translated), ABOUT4, ABOUT6)
# RFC 1191 7.1: the greatest plateau below the total length of the packet inside.
for total, plateau in [(1500, 1492), (1492, 1006), (8000, 4352), (65535, 32000)]:
    long4 = wrong(IP(src=HOST4, dst=PEER4, ttl=3, flags=DF, id=0, len=total) / udp(data(100), len=total - 20, chksum=7), 0, b"\x45")
    long6 = IPv6(src=HOST6, dst=PEER6, hlim=3, plen=total - 20) / udp(data(100), len=total - 20, chksum=7)
    # The checksum of what is cut off is not known; it follows the addresses all the same (RFC 1624).
    old, new = (sum(struct.unpack(f"!{len(a) // 2}H", a)) for a in (long4[12:20], bytes(long6)[8:40]))
    field = 0xFFFF - (0xFFFF - 7 + new - old) % 0xFFFF
    error_in(f"fragmentation-needed-without-mtu-{total}-in", "7915 §4.2, 1191 §7.1", "A router that does not say its MTU means the next plateau.",
             (3, 4, 0), (2, 0, max(plateau + 20, 1280)), long4, wrong(long6, 46, struct.pack("!H", field)))
error_in("fragmentation-needed-links-in", "7915 §4.2", "And no more than the next links carry.", (3, 4, 1490), (2, 0, 1420), ABOUT4, ABOUT6,
         params={"ipv4_mtu": 1400, "ipv6_mtu": 1500})
for mtu, translated in [(1500, 1480), (1280, 1260), (0x10000, 0xFFEC), (0xFFFFFFFF, 0xFFFF), (0, 68)]:
    error_out(f"packet-too-big-{mtu}-out", "7915 §5.2", "20 bytes less, in 16 bits.", (2, 0, mtu), (3, 4, translated), BACK6, BACK4)
inside4, inside6 = map(bytes, turned("fragment"))
error_out("packet-too-big-about-a-fragment-out", "7915 §5.2", "28 bytes less if the packet inside has a fragment header.", (2, 0, 1500),
          (3, 4, 1472), inside6, inside4)
error_out("packet-too-big-links-out", "7915 §5.2", "And no more than the next links carry.", (2, 0, 1500), (3, 4, 1380), BACK6, BACK4,
          params={"ipv4_mtu": 1400, "ipv6_mtu": 1400})

# --- RFC 4884: extensions ----------------------------------------------------------------------------------------------------


def structure(*objects):
    body = b"\x20\0\0\0" + b"".join(objects)
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]


MPLS = struct.pack("!HBBI", 8, 1, 1, 0x12345 << 12 | 0 << 9 | 1 << 8 | 64)
INTERFACE = struct.pack("!HBBI", 16, 2, 0x0A, 7) + b"\x08eth0\0\0\0"
EXTENSIONS = structure(MPLS, INTERFACE)


def padded(packet, most, length, extensions=EXTENSIONS):
    packet = bytes(packet)[:most]
    return packet + bytes(length - len(packet)) + extensions


for kept, length4, length6 in [(60, 128, 128), (128, 128, 152), (500, 500, 520), (132, 132, 152)]:
    four = IP(src=HOST4, dst=PEER4, ttl=3, flags=DF, id=0) / udp(data(1000 if kept > 60 else 32))
    six = IPv6(src=HOST6, dst=PEER6, hlim=3) / udp(data(1000 if kept > 60 else 32))
    error_in(f"extensions-{kept}-in", "4884 §4, 7915 §4.2", "The length counts words of 64 bits, of a packet padded to them; MPLS and interface stay.",
             (11, 0, length4 // 4 << 16), (3, 0, length6 // 8 << 24), padded(four, kept, length4), padded(six, kept + 20, length6))
for kept, length6, length4 in [(80, 128, 128), (128, 128, 128), (400, 400, 380)]:
    six = IPv6(src=PEER6, dst=HOST6, hlim=3) / udp(data(1000 if kept > 80 else 32))
    four = IP(src=PEER4, dst=HOST4, ttl=3, flags=0, id=0) / udp(data(1000 if kept > 80 else 32))
    error_out(f"extensions-{kept}-out", "4884 §4, 7915 §5.2", "The length counts words of 32 bits, at least 128 bytes of them.",
              (1, 0, length6 // 8 << 24), (3, 1, length4 // 4 << 16), padded(six, kept, length6), padded(four, kept - 20, length4))
four, six = IP(src=HOST4, dst=PEER4, ttl=3, flags=DF, id=0) / udp(data(1500)), IPv6(src=HOST6, dst=PEER6, hlim=3) / udp(data(1500))
LONG = structure(struct.pack("!HBB", 400, 9, 9) + data(396))
error_in("extensions-of-a-long-error-in", "4884 §4, 4443 §2.4", "The packet inside is cut so that the error has at most 1280 bytes, and the extensions stay.",
         (11, 0, 255 << 16), (3, 0, 103 << 24), padded(four, 1020, 1020, LONG), padded(six, 824, 824, LONG))
four, six = IP(src=PEER4, dst=HOST4, ttl=3, flags=DF, id=0) / udp(data(1500)), IPv6(src=PEER6, dst=HOST6, hlim=3) / udp(data(1500))
error_out("extensions-of-a-long-error-out", "4884 §4, 1812 §4.3.2.3", "The packet inside is cut so that the error has at most 576 bytes, and the extensions stay.",
          (3, 0, 125 << 24), (11, 0, 130 << 16), padded(six, 1000, 1000), padded(four, 520, 520))
four, six = (ip / udp(data(100)) for ip in (IP(src=HOST4, dst=PEER4, ttl=3, flags=DF, id=0), IPv6(src=HOST6, dst=PEER6, hlim=3)))
for kind, code, rest, translated in [(3, 4, 1400, (2, 0, 1420)), (3, 2, 0, (4, 1, 6)), (12, 0, 0, (4, 0, 0))]:
    error_in(f"extensions-{kind}-{code}-in", "4884 §4, 7915 §4.2", "Packet Too Big and Parameter Problem have no length: the extensions are cut.",
             (kind, code, 32 << 16 | rest), translated, padded(four, 128, 128), bytes(six))
error_in("length-past-the-end-in", "4884 §4", "A length past the end of the message says nothing.", (11, 0, 255 << 16), (3, 0, 0), ABOUT4, ABOUT6)

# --- RFC 6791: routers without an IPv4 address -----------------------------------------------------------------------------

for name, source in [("first", "192.0.2.9"), ("dummy", "192.0.0.8")]:
    out(f"router-without-address-{name}-out", "6791, 7915 §5.1",
        "An IPv6 router has no IPv4 address: its error leaves with one of the translator's pool.",
        icmp6(3, 0, 0, BACK6, src="2001:db8:ffff::1", dst=PEER6, hlim=62),
        icmp4(11, 0, 0, BACK4, src=source, dst=PEER4, ttl=61, id=IDENTIFICATION), rewrite={"source": source})
into("error-from-a-private-router-in", "7915 §4.1", "An error passes whatever its source is, or path MTU discovery would die.",
     peer_icmp(3, 4, 1400, ABOUT4, src="10.1.2.3"), at_host_icmp(2, 0, 1420, ABOUT6, src="64:ff9b:1::a01:203"),
     rewrite={"source": "64:ff9b:1::a01:203"})

# --- Own errors: when there is none ------------------------------------------------------------------------------------------

out("no-error-about-an-error-out", "4443 §2.4", "No hop is left, and nobody is told: the packet is an error itself.",
    host_icmp(1, 0, 0, BACK6, hlim=1), outcome="drop", reason="hop_limit_exceeded")
into("no-error-about-an-error-in", "1812 §4.3.2.7", "No hop is left, and nobody is told: the packet is an error itself.",
     peer_icmp(11, 0, 0, ABOUT4, ttl=1), outcome="drop", reason="hop_limit_exceeded")
into("no-error-about-a-later-fragment-in", "1812 §4.3.2.7", "No error is about a fragment behind the first.",
     IP(src=PEER4, dst=HOST4, ttl=1, proto=17, frag=10, id=7) / Raw(data(64)), outcome="drop", reason="hop_limit_exceeded")
for source in ["127.0.0.1", "224.0.0.5", "0.0.0.0", "255.255.255.255"]:
    into(f"no-error-to-{source.replace('.', '-')}-in", "1812 §4.3.2.7", "No error goes to a source that is no single host.",
         peer(ttl=1, src=source) / udp(), outcome="drop", reason="hop_limit_exceeded")
for source, name in [("::", "unspecified"), ("ff02::1", "multicast"), ("::1", "loopback")]:
    out(f"no-error-to-{name}-out", "4443 §2.4", "No error goes to a source that is no single host.", host(hlim=1, src=source) / udp(),
        outcome="drop", reason="hop_limit_exceeded")
