"""Cases at the bounds: rows of the figures, plateaus, the least and the longest, and what is answered while held."""

from cases_headers import pad
from cases_icmp import (
    ABOUT4,
    ABOUT6,
    BACK4,
    BACK6,
    EXTENSIONS,
    FROM4,
    REWRITE_IN,
    error_in,
    error_out,
    padded,
    structure,
)
from generate import (
    DF,
    HOST4,
    HOST6,
    IP,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrRouting,
    OWN6,
    PEER4,
    PEER6,
    Raw,
    at_host,
    at_peer,
    checksum,
    data,
    host,
    host_icmp,
    icmp4,
    icmp6,
    into,
    out,
    peer,
    peer_icmp,
    pieces4,
    pieces6,
    struct,
    udp,
)

# --- Figures 3 and 6, and the codes that nobody knows ---------------------------------------------------------------

for pointer, translated in [(13, 8), (14, 8), (17, 24), (18, 24)]:
    error_in(
        f"pointer-{pointer}-code-0-in",
        "7915 §4.2",
        "The pointer is that of figure 3.",
        (12, 0, pointer << 24),
        (4, 0, translated),
        ABOUT4,
        ABOUT6,
    )
middle = [(pointer, 12) for pointer in range(9, 23)] + [(pointer, 16) for pointer in range(25, 39)]
out(
    "pointer-inside-addresses-out",
    "7915 §5.2",
    "Figure 6: whatever is inside an address points at that address.",
    [host_icmp(4, 0, pointer, BACK6) for pointer, _ in middle],
    [icmp4(12, 0, pointer << 24, BACK4, src=HOST4, dst=PEER4, ttl=63, id=0x1267) for _, pointer in middle],
)
into(
    "unreachable-other-codes-in",
    "7915 §4.2",
    "Unknown codes are dropped in silence.",
    [peer_icmp(3, code, 0, ABOUT4, **FROM4) for code in range(17, 256)],
    outcome="drop",
    reason="icmp_not_translatable",
)
out(
    "parameter-problem-other-codes-out",
    "7915 §5.2",
    "Unknown codes are dropped in silence.",
    [host_icmp(4, code, 40, BACK6) for code in range(3, 256)],
    outcome="drop",
    reason="icmp_not_translatable",
)

# --- MTUs -----------------------------------------------------------------------------------------------------------

for total, plateau in [
    (1493, 1492),
    (2002, 1492),
    (2003, 2002),
    (4352, 2002),
    (4353, 4352),
    (8166, 4352),
    (8167, 8166),
    (17914, 8166),
    (17915, 17914),
    (32000, 17914),
    (32001, 32000),
]:
    inside4, inside6 = (
        bytes(ip / udp(data(total - 28)))
        for ip in (IP(src=HOST4, dst=PEER4, ttl=3, flags=DF, id=0), IPv6(src=HOST6, dst=PEER6, hlim=3))
    )
    error_in(
        f"fragmentation-needed-without-mtu-{total}-in",
        "7915 §4.2, 1191 §7.1",
        "The greatest plateau below the packet's length.",
        (3, 4, 0),
        (2, 0, plateau + 20),
        inside4[:100],
        inside6[:120],
    )
error_in(
    "fragmentation-needed-ipv6-link-in",
    "7915 §4.2",
    "No more than the next link on the IPv6 side carries.",
    (3, 4, 1500),
    (2, 0, 1480),
    ABOUT4,
    ABOUT6,
    params={"ipv6_mtu": 1480},
)

# --- The packet inside ----------------------------------------------------------------------------------------------

first4 = list(pieces4(IP(src=HOST4, dst=PEER4, ttl=3) / udp(data(1000)), 77, [0, 800]))[0]
first6 = list(pieces6(IPv6(src=HOST6, dst=PEER6, hlim=3) / udp(data(1000)), 77, [0, 800]))[0]
error_in(
    "error-about-first-fragment-in",
    "7915 §4.3",
    "A first fragment inside gets a fragment header and keeps its ports.",
    (11, 1, 0),
    (3, 1, 0),
    bytes(first4)[:100],
    bytes(first6)[:128],
)
error_out(
    "error-about-atomic-fragment-out",
    "7915 §5.3, §5.1.1",
    "An atomic fragment inside has its own identification.",
    (1, 0, 0),
    (3, 1, 0),
    bytes(IPv6(src=PEER6, dst=HOST6, hlim=3) / IPv6ExtHdrFragment(nh=17, id=0x4567) / udp()),
    bytes(IP(src=PEER4, dst=HOST4, ttl=3, flags=0, id=0x4567) / udp()),
)
error_out(
    "error-about-extension-headers-out",
    "7915 §5.3, §5.1",
    "Extension headers of the packet inside are left out, routes of theirs too.",
    (3, 0, 0),
    (11, 0, 0),
    bytes(
        IPv6(src=PEER6, dst=HOST6, hlim=3)
        / IPv6ExtHdrDestOpt(options=pad)
        / IPv6ExtHdrRouting(type=4, segleft=1)
        / udp()
    ),
    BACK4,
)
into(
    "error-about-fragments-of-icmp-in",
    "7915 §4.3, §1.2",
    "Fragments of ICMP were never translated: no error is about them.",
    [
        peer_icmp(
            11, 1, 0, bytes(list(pieces4(IP(src=HOST4, dst=PEER4, proto=1) / Raw(data(160)), 7, [0, 80]))[n]), **FROM4
        )
        for n in (0, 1)
    ],
    outcome="drop",
    reason="embedded_not_translatable",
    **REWRITE_IN,
)
out(
    "error-about-fragments-of-icmp-out",
    "7915 §5.3, §1.2",
    "Fragments of ICMP were never translated: no error is about them.",
    [
        host_icmp(
            3, 1, 0, bytes(IPv6(src=PEER6, dst=HOST6) / IPv6ExtHdrFragment(nh=58, m=m, offset=o, id=7) / Raw(data(80)))
        )
        for m, o in ((1, 0), (0, 10))
    ],
    outcome="drop",
    reason="embedded_not_translatable",
)
out(
    "error-about-extension-behind-fragment-out",
    "7915 §5.3, §5.1.1",
    "Such a packet was never translated: no error is about it.",
    host_icmp(1, 0, 0, bytes(IPv6(src=PEER6, dst=HOST6) / IPv6ExtHdrFragment(nh=60, m=1, id=7) / Raw(data(80)))),
    outcome="drop",
    reason="embedded_not_translatable",
)
into(
    "error-about-7-bytes-in",
    "7915 §4.3, 792",
    "Less than eight bytes: whose packet it is cannot be known.",
    [peer_icmp(3, 1, 0, ABOUT4[:end], **FROM4) for end in (27, 24, 20, 19)],
    outcome="drop",
    reason="embedded_malformed",
)
out(
    "error-about-7-bytes-out",
    "7915 §5.3",
    "Less than eight bytes: whose packet it is cannot be known.",
    [host_icmp(1, 0, 0, BACK6[:end]) for end in (47, 44, 40, 39)],
    outcome="drop",
    reason="embedded_malformed",
)

# --- RFC 4884 -------------------------------------------------------------------------------------------------------

# Objects so long that 128 bytes of the packet and they do not fit: 548 - 128 = 420, and 1232 - 128 = 1104.
for length, fits in ((420, True), (424, False)):
    long = structure(struct.pack("!HBB", length - 4, 9, 9) + data(length - 8))
    six, four = (
        bytes(ip / udp(data(500)))
        for ip in (IPv6(src=PEER6, dst=HOST6, hlim=3), IP(src=PEER4, dst=HOST4, ttl=3, flags=0, id=0))
    )
    error_out(
        f"extensions-of-{length}-bytes-out",
        "4884 §4, 1812 §4.3.2.3",
        "128 bytes of the packet and the extensions fit into 576 bytes, or else the extensions are left out.",
        (3, 0, 50 << 24),
        (11, 0, 32 << 16 if fits else 0),
        padded(six, 400, 400, long),
        padded(four, 128, 128, long) if fits else four[:380],
    )
for length, fits in ((1104, True), (1108, False)):
    long = structure(struct.pack("!HBB", length - 4, 9, 9) + data(length - 8))
    four, six = (
        bytes(ip / udp(data(500)))
        for ip in (IP(src=HOST4, dst=PEER4, ttl=3, flags=DF, id=0), IPv6(src=HOST6, dst=PEER6, hlim=3))
    )
    error_in(
        f"extensions-of-{length}-bytes-in",
        "4884 §4, 4443 §2.4",
        "128 bytes of the packet and the extensions fit into 1280 bytes, or else the extensions are left out.",
        (11, 0, 50 << 16),
        (3, 0, 16 << 24 if fits else 0),
        padded(four, 200, 200, long),
        padded(six, 128, 128, long) if fits else six[:220],
    )
for length4 in (40, 124):
    short4, short6 = (
        bytes(ip / udp(data(200)))
        for ip in (IP(src=HOST4, dst=PEER4, ttl=3, flags=DF, id=0), IPv6(src=HOST6, dst=PEER6, hlim=3))
    )
    error_in(
        f"extensions-behind-{length4}-bytes-in",
        "4884 §4",
        "A length below 128 bytes ends the packet, and what follows is cut.",
        (11, 0, length4 // 4 << 16),
        (3, 0, 0),
        short4[:length4] + EXTENSIONS,
        short6[: length4 + 20],
    )

# --- Headers and fragments ------------------------------------------------------------------------------------------

out(
    "segments-left-one-out",
    "7915 §5.1",
    "One segment is left.",
    packet := host() / IPv6ExtHdrRouting(type=4, segleft=1) / udp(),
    icmp6(4, 0, 43, bytes(packet), src=OWN6, dst=HOST6, hlim=64),
    outcome="reply",
    reason="segments_left",
)
for name, nh in [("mobility", 135), ("hip", 139), ("shim6", 140), ("fragment", 44)]:
    out(
        f"extension-behind-fragment-{name}-out",
        "7915 §5.1.1",
        "An extension header behind a fragment header.",
        host() / IPv6ExtHdrFragment(nh=nh, m=1, id=7) / Raw(bytes([17, 0]) + data(78)),
        outcome="drop",
        reason="extension_after_fragment",
    )
into(
    "fragments-udp-past-the-end-in",
    "7915 §4.1, 791 §3.1",
    "A fragment that reaches past 65535 bytes is none.",
    peer(flags=0, proto=17, frag=8189) / Raw(data(16)),
    outcome="drop",
    reason="malformed_header",
)
out(
    "fragments-udp-past-the-end-out",
    "8200 §4.5",
    "A fragment that reaches past 65535 bytes of payload is none.",
    host() / IPv6ExtHdrFragment(nh=17, offset=8191, id=7) / Raw(data(8)),
    outcome="drop",
    reason="malformed_header",
)
packet = host() / IPv6ExtHdrFragment(nh=17, offset=8189, id=7) / Raw(data(16))
out(
    "fragments-udp-past-the-end-of-ipv4-out",
    "791 §3.1, 7915 §5.4",
    "It fits an IPv6 datagram, and not the IPv4 one that is 20 bytes shorter.",
    packet,
    icmp6(1, 1, 0, bytes(packet), src=OWN6, dst=HOST6, hlim=64),
    outcome="reply",
    reason="datagram_too_long",
)
payload = data(1452)
into(
    "fragmentation-never-below-1280-in",
    "7915 §4, 8200 §5",
    "A lower bound counts as 1280.",
    peer(flags=0, id=0x4242) / udp(payload),
    list(pieces6(at_host() / udp(payload), 0x4242, [0, 1232])),
    params={"lowest_ipv6_mtu": 600},
)


def zero_sum(ip, head):
    """UDP-Lite whose checksum is 0xffff: two bytes of payload make the sum come out as zero."""
    proto, length = 136, len(head) + 2
    addresses = bytes(ip)[8:40] if isinstance(ip, IPv6) else bytes(ip)[12:20]
    return struct.pack("!H", checksum(addresses + struct.pack("!HH", proto, length) + head))


head = struct.pack("!HHHH", 40000, 53, 0, 0)


def lite(ip, other):
    """It has the checksum of its own addresses, and a payload with which that of the other ones comes out as zero."""
    message = head + zero_sum(other, head)
    addresses = bytes(ip)[8:40] if isinstance(ip, IPv6) else bytes(ip)[12:20]
    total = checksum(addresses + struct.pack("!HH", 136, len(message)) + message) or 0xFFFF
    return ip / Raw(message[:6] + struct.pack("!H", total) + message[8:])


out(
    "udp-lite-checksum-comes-out-as-zero-out",
    "3828 §3.1, 7915 §5.5",
    "A checksum that computes to zero is sent as 0xffff.",
    lite(host(nh=136), at_peer(proto=136)),
    lite(at_peer(proto=136), at_peer(proto=136)),
)
into(
    "udp-lite-checksum-comes-out-as-zero-in",
    "3828 §3.1, 7915 §4.5",
    "A checksum that computes to zero is sent as 0xffff.",
    lite(peer(proto=136), at_host(nh=136)),
    lite(at_host(nh=136), at_host(nh=136)),
)
