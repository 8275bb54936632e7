"""Cases about addresses, headers, fragments and transport protocols."""

from generate import (
    DF, HOST4, HOST6, IDENTIFICATION, IP, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting, OWN4, OWN6, PEER4, PEER6, PadN, Raw, UDP, at_host, at_peer, checksum, data, echo, host, icmp4, icmp6,
    in6_chksum, into, ipaddress, out, peer, pieces4, pieces6, struct, tcp, udp, wrong,
)

# --- RFC 6052: addresses -------------------------------------------------------------------------------------------------

# The prefixes of the table in section 2.4, all of which stand for 192.0.2.33.
for text, address in [
    ("2001:db8::/32", "2001:db8:c000:221::"),
    ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
    ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
    ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
    ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
    ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
    ("64:ff9b:1::/48", "64:ff9b:1:c000:2:2100::"),
]:
    length = text.split("/")[1]
    name = "address-" + ("well-known" if text == "64:ff9b::/96" else "local-use" if text.startswith("64:") else length)
    rfc = "8215 §4" if text.startswith("64:ff9b:1") else "6052 §2.4"
    assert ipaddress.IPv6Address(address) in ipaddress.IPv6Network(text)
    prefix = {"prefix": {"net": text, "ipv4": "192.0.2.33", "ipv6": str(ipaddress.IPv6Address(address))}}
    out(f"{name}-out", rfc, f"Below {text} the destination 192.0.2.33 is embedded as the table says.",
        host(dst=address) / udp(), at_peer(dst="192.0.2.33") / udp(), rewrite={"destination": "192.0.2.33"}, **prefix)
    into(f"{name}-in", rfc, f"The source 192.0.2.33 appears below {text}.",
         peer(src="192.0.2.33") / udp(), at_host(src=address) / udp(), rewrite={"source": address}, **prefix)

# --- RFC 7915 4.1 and 5.1: the fields of the headers -----------------------------------------------------------------------

for tos in (0x00, 0x01, 0x02, 0x03, 0xB8, 0xFF):
    out(f"tos-{tos:02x}-out", "7915 §5.1", "All eight bits of the traffic class are copied, ECN among them; the flow label goes.",
        host(tc=tos, fl=0xABCDE) / udp(), at_peer(tos=tos) / udp())
    into(f"tos-{tos:02x}-in", "7915 §4.1", "All eight bits of the type of service are copied; the flow label is zero.",
         peer(tos=tos) / udp(), at_host(tc=tos) / udp())
out("dscp-of-the-operator-out", "7915 §5.1", "The operator's DSCP replaces the sender's, and ECN stays.",
    host(tc=0x2B) / udp(), at_peer(tos=46 << 2 | 3) / udp(), params={"dscp": 46})
into("traffic-class-zero-in", "7915 §4.1", "An operator may have the traffic class set to zero whatever the sender says.",
     peer(tos=0x2B) / udp(), at_host(tc=0) / udp(), params={"traffic_class_zero": True})

for hops in (2, 255):
    out(f"hops-{hops}-out", "7915 §5.1", "The translator is a router: one hop less.", host(hlim=hops) / udp(),
        at_peer(ttl=hops - 1) / udp())
    into(f"hops-{hops}-in", "7915 §4.1", "The translator is a router: one hop less.", peer(ttl=hops) / udp(),
         at_host(hlim=hops - 1) / udp())
for hops in (0, 1):
    packet = host(hlim=hops) / udp()
    out(f"hops-{hops}-out", "7915 §5.1", "No hop is left: Time Exceeded, from the translator itself.", packet,
        icmp6(3, 0, 0, bytes(packet), src=OWN6, dst=HOST6, hlim=64), outcome="reply", reason="hop_limit_exceeded")
    packet = peer(ttl=hops) / udp()
    into(f"hops-{hops}-in", "7915 §4.1", "No hop is left: Time Exceeded, from the translator itself.", packet,
         icmp4(11, 0, 0, bytes(packet), src=OWN4, dst=PEER4, ttl=64, tos=0xC0, flags=DF, id=0),
         outcome="reply", reason="hop_limit_exceeded")

for length in (28, 1259, 1260, 1261, 1480):
    payload = data(length - 28)
    out(f"df-{length}-out", "7915 §5.1", "Up to 1260 bytes of IPv4 packet DF is clear and there is an identification, beyond DF is set.",
        host() / udp(payload), at_peer(length) / udp(payload))
into("identification-is-lost-in", "7915 §4.1", "Without fragmentation the identification has no place in IPv6.",
     peer(id=0x4242) / udp(), at_host() / udp())

for proto, name in [(50, "esp"), (51, "ah"), (47, "gre"), (132, "sctp"), (89, "ospf"), (253, "unknown")]:
    payload = Raw(data(41))
    # AH is an extension header in IPv6 (RFC 4302 3.1.1), and to be passed on as it is.
    out(f"protocol-{name}-out", "7915 §5.1", "An unknown protocol passes as it is; ESP and AH are no headers to be skipped.",
        host(nh=proto) / payload, at_peer(proto=proto) / payload)
    into(f"protocol-{name}-in", "7915 §4.1", "An unknown protocol passes as it is.", peer(proto=proto) / payload,
         at_host(nh=proto) / payload)
for proto in (0, 43, 44, 58, 60):
    packet = peer(proto=proto) / Raw(data(40))
    into(f"protocol-{proto}-in", "7915 §4.1",
         "A departure: in IPv6 this number would be an extension header or ICMPv6 of an outsider's making.", packet,
         icmp4(3, 13, 0, bytes(packet), src=OWN4, dst=PEER4, ttl=64, tos=0xC0, flags=DF, id=0),
         outcome="reply", reason="forbidden_protocol")
packet = host(nh=1) / Raw(data(40))
out("protocol-1-out", "7915 §5.1", "A departure: in IPv4 this number would be ICMP of an outsider's making.", packet,
    icmp6(1, 1, 0, bytes(packet), src=OWN6, dst=HOST6, hlim=64), outcome="reply", reason="forbidden_protocol")

# --- IPv4 options and source routes ----------------------------------------------------------------------------------------

for name, option in [
    ("record-route", b"\x07\x07\x04\0\0\0\0\0"), ("timestamp", b"\x44\x08\x05\0\0\0\0\0"), ("router-alert", b"\x94\x04\0\0"),
    ("no-operation", b"\x01\x01\x01\x00"), ("unknown", b"\x9e\x04\x12\x34"), ("expired-source-route", b"\x83\x07\x08\xc0\0\x02\x09\0"),
    ("expired-strict-source-route", b"\x89\x07\x08\xc0\0\x02\x09\0"),
]:
    header = peer(ihl=5 + len(option) // 4, len=20 + len(option) + 12, proto=17)
    body = bytes(peer() / udp())[20:]
    packet = bytearray(bytes(header)[:20] + option + body)
    packet[10:12] = b"\0\0"
    packet[10:12] = struct.pack("!H", checksum(bytes(packet[: 20 + len(option)])))
    into(f"option-{name}-in", "7915 §4.1", "Options are left out; a source route that has run out hinders nobody.", bytes(packet),
         at_host() / udp())
for name, option in [("loose", b"\x83\x07\x04\xc0\0\x02\x09\0"), ("strict", b"\x89\x07\x04\xc0\0\x02\x09\0")]:
    body = bytes(peer() / udp())[20:]
    packet = bytearray(bytes(peer(ihl=7, len=28 + 12, proto=17))[:20] + option + body)
    packet[10:12] = b"\0\0"
    packet[10:12] = struct.pack("!H", checksum(bytes(packet[:28])))
    into(f"source-route-{name}-in", "7915 §4.1", "An unexpired source route: Destination Unreachable, source route failed.",
         bytes(packet), icmp4(3, 5, 0, bytes(packet), src=OWN4, dst=PEER4, ttl=64, tos=0xC0, flags=DF, id=0),
         outcome="reply", reason="source_route")
for name, option in [("length-0", b"\x07\0\0\0"), ("length-1", b"\x07\x01\0\0"), ("past-the-end", b"\x07\x09\0\0")]:
    packet = bytearray(bytes(peer(ihl=6, len=24 + 12, proto=17))[:20] + option + bytes(peer() / udp())[20:])
    packet[10:12] = b"\0\0"
    packet[10:12] = struct.pack("!H", checksum(bytes(packet[:24])))
    into(f"option-{name}-in", "1812 §5.2.4", "An option that cannot be.", bytes(packet), outcome="drop", reason="malformed_options")

# --- IPv6 extension headers ------------------------------------------------------------------------------------------------

pad = [PadN(optdata=b"\0" * 4)]
for name, chain in [
    ("hop-by-hop", IPv6ExtHdrHopByHop(options=pad)), ("destination", IPv6ExtHdrDestOpt(options=pad)),
    ("routing", IPv6ExtHdrRouting(type=4, segleft=0)),
    ("all", IPv6ExtHdrHopByHop(options=pad) / IPv6ExtHdrDestOpt(options=pad) / IPv6ExtHdrRouting(type=4, segleft=0)),
]:
    out(f"extension-{name}-out", "7915 §5.1", "Hop-by-hop, destination and exhausted routing headers are left out.",
        host() / chain / udp(), at_peer() / udp())
for name, before in [("first", None), ("second", IPv6ExtHdrHopByHop(options=pad))]:
    routing = IPv6ExtHdrRouting(type=4, segleft=2)
    packet = host() / before / routing / udp() if before else host() / routing / udp()
    pointer = 40 + (8 if before else 0) + 3
    out(f"segments-left-{name}-out", "7915 §5.1", "Segments are left: Parameter Problem that points at that field.", packet,
        icmp6(4, 0, pointer, bytes(packet), src=OWN6, dst=HOST6, hlim=64), outcome="reply", reason="segments_left")
for name, nh in [("ah", 51), ("destination", 60), ("hop-by-hop", 0), ("routing", 43)]:
    packet = host() / IPv6ExtHdrFragment(nh=nh, m=1, id=7) / Raw(bytes([17, 0]) + data(78))
    out(f"extension-behind-fragment-{name}-out", "7915 §5.1.1",
        "An extension header behind a fragment header cannot be taken out of the fragments.", packet,
        outcome="drop", reason="extension_after_fragment")
packet = host() / IPv6ExtHdrFragment(nh=50, m=1, id=7) / Raw(data(80))
out("esp-behind-fragment-out", "7915 §5.1.1", "ESP is no such extension header.", packet,
    at_peer(proto=50, flags=1, id=7) / Raw(data(80)))

# --- Fragments -------------------------------------------------------------------------------------------------------------

for name, proto, body in [("udp", 17, udp), ("tcp", 6, tcp)]:
    payload = data(3000)
    out(f"fragments-{name}-out", "7915 §5.1.1",
        "Offset, M and the lower half of the identification are carried, DF is clear, and the last one has no M.",
        list(pieces6(host() / body(payload), 0xDEADBEEF, [0, 1232, 2464])),
        list(pieces4(at_peer() / body(payload), 0xBEEF, [0, 1232, 2464])))
    into(f"fragments-{name}-in", "7915 §4.1", "Offset, M and identification are carried, the upper half of it being zero.",
         list(pieces4(peer() / body(payload), 0xBEEF, [0, 1200, 2400])),
         list(pieces6(at_host() / body(payload), 0xBEEF, [0, 1200, 2400])))
body = Raw(data(2000))
out("fragments-unknown-out", "7915 §5.1.1", "Fragments of unknown protocols are translated one by one.",
    list(pieces6(host(nh=132) / body, 5, [0, 1000])), list(pieces4(at_peer(proto=132) / body, 5, [0, 1000])))
into("fragments-unknown-in", "7915 §4.1", "Fragments of unknown protocols are translated one by one.",
     list(pieces4(peer(proto=132) / body, 5, [0, 1000])), list(pieces6(at_host(nh=132) / body, 5, [0, 1000])))
out("atomic-fragment-out", "7915 §5.1.1, 8021", "An atomic fragment is accepted: DF is clear, and the identification is its own.",
    host() / IPv6ExtHdrFragment(nh=17, id=0xCAFE1234) / udp(), at_peer(id=0x1234) / udp())
into("no-atomic-fragment-in", "7915 §6, 8021", "A packet without DF that fits gets no fragment header.",
     peer(flags=0, id=0x4242) / udp(), at_host() / udp())
for mtu, cuts in [(1280, [0, 1232, 2464]), (1500, [0, 1448, 2896])]:
    payload = data(3000)
    into(f"fragmentation-to-{mtu}-in", "7915 §4", f"Without DF and too long: fragments of at most {mtu} bytes.",
         peer(flags=0, id=0x4242) / udp(payload), list(pieces6(at_host() / udp(payload), 0x4242, cuts)),
         params={"lowest_ipv6_mtu": mtu} if mtu != 1280 else {})
payload = data(1280 - 40 - 8)
into("fragmentation-just-not-in", "7915 §4", "1280 bytes need no fragments.", peer(flags=0, id=1) / udp(payload),
     at_host() / udp(payload))
payload = data(1281 - 40 - 8)
into("fragmentation-just-in", "7915 §4", "1281 bytes need two.", peer(flags=0, id=1) / udp(payload),
     list(pieces6(at_host() / udp(payload), 1, [0, 1232])))
first = list(pieces4(peer() / udp(data(2000)), 9, [0, 1480]))[0]
whole = bytes(at_host() / udp(data(2000)))[40:]
into("fragment-is-cut-again-in", "7915 §4", "A fragment that is too long for IPv6 becomes two of the same datagram.", first,
     [at_host() / IPv6ExtHdrFragment(nh=17, offset=0, m=1, id=9) / Raw(whole[:1232]),
      at_host() / IPv6ExtHdrFragment(nh=17, offset=154, m=1, id=9) / Raw(whole[1232:1480])])
packet = peer() / udp(data(1500))
into("too-big-in", "7915 §4.1, 1191 §4", "DF and longer than the next link: Fragmentation Needed with what fits, less 20 bytes.", packet,
     icmp4(3, 4, 1480, bytes(packet)[:548], src=OWN4, dst=PEER4, ttl=64, tos=0xC0, flags=DF, id=0),
     outcome="reply", reason="too_big", params={"ipv6_mtu": 1500})
packet = host() / udp(data(1452))
out("too-big-out", "7915 §5.1, 4443 §3.2", "Longer than the next link: Packet Too Big with what fits, and 20 bytes more.", packet,
    icmp6(2, 0, 1420, bytes(packet)[:1232], src=OWN6, dst=HOST6, hlim=64),
    outcome="reply", reason="too_big", params={"ipv4_mtu": 1400})
packet = host() / IPv6ExtHdrFragment(nh=6, m=1, id=7) / Raw(bytes(host() / tcp())[40:56])
out("first-fragment-too-short-out", "7112 §5", "A first fragment lacks a part of its headers: Parameter Problem, code 3.", packet,
    icmp6(4, 3, 0, bytes(packet), src=OWN6, dst=HOST6, hlim=64), outcome="reply", reason="first_fragment_too_short")
packet = peer(flags=1, id=7, proto=6) / Raw(bytes(peer() / tcp())[20:36])
into("first-fragment-too-short-in", "7112 §5, 7915 §4.4", "A first fragment lacks a part of its transport header.", packet,
     icmp4(3, 13, 0, bytes(packet), src=OWN4, dst=PEER4, ttl=64, tos=0xC0, flags=DF, id=0),
     outcome="reply", reason="first_fragment_too_short")

# --- Checksums and transport protocols -------------------------------------------------------------------------------------

for name, body in [("tcp", tcp), ("udp", udp)]:
    out(f"{name}-out", "7915 §5.5", "The checksum follows the pseudo-header.", host() / body(data(99)), at_peer() / body(data(99)))
    into(f"{name}-in", "7915 §4.5", "The checksum follows the pseudo-header.", peer() / body(data(99)), at_host() / body(data(99)))
    new = {"tcp": dict(sport=4321, dport=80), "udp": {}}[name]
    ports = UDP(sport=4321, dport=80) / Raw(data(9)) if name == "udp" else tcp(data(9), **new)
    out(f"{name}-ports-out", "6146 §3.5", "A stateful translator sets other ports, and the checksum follows them.",
        host() / body(data(9)), at_peer() / ports, rewrite={"source_port": 4321, "destination_port": 80})
    into(f"{name}-ports-in", "6146 §3.5", "A stateful translator sets other ports, and the checksum follows them.",
         peer() / body(data(9)), at_host() / ports, rewrite={"source_port": 4321, "destination_port": 80})


def complement(ip, length, **fields):
    """Two bytes of payload with which the UDP checksum comes out as zero."""
    blank = bytes(ip / UDP(sport=40000, dport=53, len=length, chksum=0) / Raw(b"\0\0"))
    header = 40 if isinstance(ip, IPv6) else 20
    if header == 40:
        return struct.pack("!H", in6_chksum(17, ip, blank[40:]))
    pseudo = bytes(map(int, ip.src.split("."))) + bytes(map(int, ip.dst.split("."))) + struct.pack("!HH", 17, length)
    return struct.pack("!H", checksum(pseudo + blank[20:]))


special = complement(at_peer(), 10)
packet = host() / udp(special)
out("udp-checksum-comes-out-as-zero-out", "768, 7915 §5.5", "A checksum that computes to zero is sent as 0xffff.", packet,
    wrong(at_peer() / udp(special), 26, b"\xff\xff"))
special = complement(at_host(), 10)
into("udp-checksum-comes-out-as-zero-in", "8200 §8.1, 7915 §4.5", "A checksum that computes to zero is sent as 0xffff.",
     peer() / udp(special), wrong(at_host() / udp(special), 46, b"\xff\xff"))
into("udp-without-checksum-in", "7915 §4.5", "A datagram without a checksum gets one.", peer() / udp(data(33), chksum=0),
     at_host() / udp(data(33)))
packet = peer() / udp(data(33), chksum=0)
into("udp-without-checksum-dropped-in", "7915 §4.5", "Or is dropped, as the operator says.", packet,
     icmp4(3, 13, 0, bytes(packet), src=OWN4, dst=PEER4, ttl=64, tos=0xC0, flags=DF, id=0),
     outcome="reply", reason="udp_zero_checksum", params={"udp_zero_checksum": "drop"})
packet = list(pieces4(peer() / udp(data(3000), chksum=0), 9, [0, 1480]))[0]
into("udp-without-checksum-first-fragment-in", "7915 §4.5", "A first fragment without a checksum cannot get one alone.", packet,
     icmp4(3, 13, 0, bytes(packet)[:548], src=OWN4, dst=PEER4, ttl=64, tos=0xC0, flags=DF, id=0), outcome="hold", reason="udp_zero_checksum_fragment")
out("udp-without-checksum-out", "8200 §8.1", "IPv6 knows no datagram without a checksum.", host() / udp(data(9), chksum=0), outcome="drop",
    reason="udp_zero_checksum_v6")
for name, at, ip4, ip6 in [("tcp", 16, at_peer() / tcp(), host() / tcp()), ("udp", 6, at_peer() / udp(), host() / udp())]:
    # One's complement: 0x1111 more on the one side is 0x1111 more on the other.
    def broken(packet, header):
        good = int.from_bytes(bytes(packet)[header + at : header + at + 2], "big")
        bad = good + 0x1111
        return wrong(packet, header + at, struct.pack("!H", (bad & 0xFFFF) + (bad >> 16)))

    out(f"{name}-wrong-checksum-out", "1624, 7915 §5.5", "A wrong checksum stays wrong by the same difference.", broken(ip6, 40),
        broken(ip4, 20))
into("ipv4-wrong-header-checksum-in", "1812 §5.2.2", "A wrong header checksum.", wrong(peer() / udp(), 10, b"\x12\x34"),
     outcome="drop", reason="bad_ipv4_checksum")


def lite(ip, proto, header, at):
    """A datagram of another protocol with ports and a pseudo-header."""
    message = bytearray(header + data(50))
    if isinstance(ip, IPv6):
        total = in6_chksum(proto, ip, bytes(message))
    else:
        pseudo = bytes(map(int, ip.src.split("."))) + bytes(map(int, ip.dst.split("."))) + struct.pack("!HH", proto, len(message))
        total = checksum(pseudo + bytes(message))
    message[at : at + 2] = struct.pack("!H", total)
    return ip / Raw(bytes(message))


for name, proto, header in [
    ("udp-lite", 136, struct.pack("!HHHH", 40000, 53, 0, 0)),
    ("dccp", 33, struct.pack("!HHBBHBBHI", 40000, 53, 4, 0, 0, 1, 0, 7, 0)),
]:
    out(f"{name}-out", "7915 §5.5", "This protocol's checksum covers the pseudo-header too.", lite(host(nh=proto), proto, header, 6),
        lite(at_peer(proto=proto), proto, header, 6))
    into(f"{name}-in", "7915 §4.5", "This protocol's checksum covers the pseudo-header too.", lite(peer(proto=proto), proto, header, 6),
         lite(at_host(nh=proto), proto, header, 6))

# --- Lengths ---------------------------------------------------------------------------------------------------------------

out("padding-behind-out", "8200 §3", "What lies behind the packet (the padding of a short frame) is none of it.",
    bytes(host() / udp()) + b"\xaa" * 7, at_peer() / udp())
into("padding-behind-in", "791 §3.1", "What lies behind the packet (the padding of a short frame) is none of it.",
     bytes(peer() / udp()) + b"\xaa" * 7, at_host() / udp())
out("truncated-out", "8200 §3", "Shorter than its header says.", bytes(host() / udp())[:-1], outcome="drop", reason="truncated")
into("truncated-in", "1812 §5.2.2", "Shorter than its header says.", bytes(peer() / udp())[:-1], outcome="drop", reason="truncated")
