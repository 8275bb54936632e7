"""Cases beside the ordinary ones about ICMP errors: what is inside them, and extensions in each type that has them."""

from cases_more_headers import with_options
from cases_icmp import ABOUT4, ABOUT6, BACK4, BACK6, error_in, error_out, padded, structure
from generate import (
    DF, HOST4, HOST6, IDENTIFICATION, IP, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, PEER4, PEER6,
    PadN, ROUTER4, data, echo, host_icmp, icmp4, icmp6, into, out, peer_icmp, pieces4, pieces6, struct, tcp, udp,
)

OUT4, OUT6 = {"src": HOST4, "dst": PEER4, "ttl": 3}, {"src": HOST6, "dst": PEER6, "hlim": 3}
BACK = {"src": PEER4, "dst": HOST4, "ttl": 3}, {"src": PEER6, "dst": HOST6, "hlim": 3}

# --- What is inside ---------------------------------------------------------------------------------------------------

error_in("error-about-options-in", "7915 §4.3, §4.1",
         "Options of the packet inside are left out, and its length says so.",
         (11, 0, 0), (3, 0, 0), with_options(IP(**OUT4, flags=DF, id=0) / udp(data(40)), b"\x07\x07\x04\0\0\0\0\0"),
         bytes(IPv6(**OUT6) / udp(data(40))))
pad = [PadN(optdata=b"\0" * 4)]
error_out("error-about-extension-headers-too-out", "7915 §5.3, §5.1",
          "Extension headers of the packet inside are left out, and its length says so.",
          (3, 0, 0), (11, 0, 0),
          bytes(IPv6(**BACK[1]) / IPv6ExtHdrHopByHop(options=pad) / IPv6ExtHdrDestOpt(options=pad) / udp(data(40))),
          bytes(IP(**BACK[0], flags=0, id=0) / udp(data(40))))
error_out("error-about-an-atomic-fragment-out", "7915 §5.3, §5.1.1",
          "An atomic fragment inside has an identification and no M.",
          (3, 0, 0), (11, 0, 0), bytes(IPv6(**BACK[1]) / IPv6ExtHdrFragment(nh=17, id=0xAAAA0102) / udp(data(40))),
          bytes(IP(**BACK[0], flags=0, id=0x0102) / udp(data(40))))
first4 = list(pieces4(IP(**OUT4) / udp(data(1000)), 77, [0, 800]))[0]
first6 = list(pieces6(IPv6(**OUT6) / udp(data(1000)), 77, [0, 800]))[0]
error_in("error-about-a-first-fragment-in", "7915 §4.3, §4.1",
         "A first fragment inside has a transport header, which is translated.",
         (11, 1, 0), (3, 1, 0), bytes(first4), bytes(first6))
first4 = list(pieces4(IP(**BACK[0]) / tcp(data(1000)), 77, [0, 400]))[0]
first6 = list(pieces6(IPv6(**BACK[1]) / tcp(data(1000)), 77, [0, 400]))[0]
error_out("error-about-a-first-fragment-out", "7915 §5.3, §5.1.1",
          "A first fragment inside has a transport header, which is translated.",
          (3, 1, 0), (11, 1, 0), bytes(first6), bytes(first4))
error_in("error-about-a-packet-without-df-in", "7915 §4.3", "The packet inside is not fragmented because DF is clear.",
         (11, 0, 0), (3, 0, 0), bytes(IP(**OUT4, flags=0, id=0x1234) / udp(data(40))),
         bytes(IPv6(**OUT6) / udp(data(40))))
error_in("error-about-odd-bytes-in", "7915 §4.3, 1071",
         "The packet inside may end anywhere behind its first eight bytes.",
         (3, 3, 0), (1, 4, 0), bytes(IP(**OUT4, flags=DF, id=0) / udp(data(40)))[:41],
         bytes(IPv6(**OUT6) / udp(data(40)))[:61])
error_out("error-about-odd-bytes-out", "7915 §5.3, 1071",
          "The packet inside may end anywhere behind its first eight bytes.",
          (1, 4, 0), (3, 3, 0), bytes(IPv6(**BACK[1]) / udp(data(40)))[:61],
          bytes(IP(**BACK[0], flags=0, id=0) / udp(data(40)))[:41])
error_out("error-about-8-bytes-out", "7915 §5.3",
          "The packet inside may end behind its first eight bytes, and its lengths say more.",
          (1, 0, 0), (3, 1, 0), bytes(IPv6(**BACK[1]) / tcp(data(40)))[:48],
          bytes(IP(**BACK[0], flags=0, id=0) / tcp(data(40)))[:28])
error_out("error-about-other-ports-out", "7915 §5.3, 6146 §3.5", "A stateful translator sets the ports inside too.",
          (1, 4, 0), (3, 3, 0), BACK6,
          bytes(IP(**BACK[0], flags=0, id=0) / udp(sport=4321, dport=80)),
          embedded={"source_port": 4321, "destination_port": 80})
error_out("error-about-another-identifier-out", "7915 §5.3, 5508 §4.2", "And the identifier of an echo inside.",
          (1, 3, 0), (3, 1, 0),
          bytes(icmp6(129, 0, echo(7, 1), data(30), **BACK[1])),
          bytes(icmp4(0, 0, echo(4321, 1), data(30), **BACK[0], flags=0, id=0)),
          embedded={"identifier": 4321})
for name, cut4, cut6 in [("cut-header", 19, 39), ("cut-transport", 27, 47)]:
    into(f"error-about-a-{name}-in", "7915 §4.3, 792",
         "Less inside than a header and eight bytes says not whose packet it was.",
         peer_icmp(11, 0, 0, ABOUT4[:cut4], src=ROUTER4), outcome="drop", reason="embedded_malformed")
    out(f"error-about-a-{name}-out", "7915 §5.3",
        "Less inside than a header and eight bytes says not whose packet it was.",
        host_icmp(3, 0, 0, BACK6[:cut6]), outcome="drop", reason="embedded_malformed")
into("error-about-the-wrong-version-in", "7915 §4.3", "What is inside is no IPv4 packet.",
     peer_icmp(11, 0, 0, ABOUT6, src=ROUTER4),
     outcome="drop", reason="embedded_malformed")
out("error-about-the-wrong-version-out", "7915 §5.3", "What is inside is no IPv6 packet.", host_icmp(3, 0, 0, BACK4),
    outcome="drop", reason="embedded_malformed")
error_in("error-about-a-tos-in", "7915 §4.3, §4.1",
         "The type of service of the packet inside becomes its traffic class, whatever that of the error is.",
         (11, 0, 0), (3, 0, 0), bytes(IP(**OUT4, flags=DF, id=0, tos=0xB9) / udp()),
         bytes(IPv6(**OUT6, tc=0xB9) / udp()))

# --- MTUs -------------------------------------------------------------------------------------------------------------

first4 = list(pieces4(IP(**OUT4) / udp(data(1000)), 77, [0, 800]))[0]
first6 = list(pieces6(IPv6(**OUT6) / udp(data(1000)), 77, [0, 800]))[0]
error_in("fragmentation-needed-about-a-fragment-in", "7915 §4.2", "20 bytes more, whatever is inside.", (3, 4, 1400),
         (2, 0, 1420),
         bytes(first4), bytes(first6))
error_in("fragmentation-needed-first-link-in", "7915 §4.2", "No more than the next link of the IPv6 side carries.",
         (3, 4, 1490), (2, 0, 1400),
         ABOUT4, ABOUT6, params={"ipv6_mtu": 1400})
error_in("fragmentation-needed-least-link-in", "7915 §4.2", "Never below 1280, whatever the next links carry.",
         (3, 4, 1490), (2, 0, 1280),
         ABOUT4, ABOUT6, params={"ipv4_mtu": 576})
four, six = IP(**BACK[0], flags=0, id=0x0102), IPv6(**BACK[1]) / IPv6ExtHdrFragment(nh=17, id=0x0102)
inside4, inside6 = four / udp(data(40)), six / udp(data(40))
error_out("packet-too-big-about-an-atomic-fragment-out", "7915 §5.2",
          "28 bytes less if the packet inside has a fragment header.",
          (2, 0, 1400), (3, 4, 1372), bytes(inside6), bytes(inside4))
error_out("packet-too-big-second-link-out", "7915 §5.2", "No more than the next link of the IPv4 side carries.",
          (2, 0, 1500), (3, 4, 1000),
          BACK6, BACK4, params={"ipv4_mtu": 1000})

# --- RFC 4884: each type that has extensions --------------------------------------------------------------------------

four, six = IP(**OUT4, flags=DF, id=0) / udp(data(300)), IPv6(**OUT6) / udp(data(300))
for kind, code, translated in [(3, 1, (1, 0)), (3, 3, (1, 4)), (3, 13, (1, 1)), (11, 1, (3, 1))]:
    error_in(f"extensions-of-{kind}-{code}-in", "4884 §4, 7915 §4.2",
             "Destination Unreachable and Time Exceeded have a length on both sides.",
             (kind, code, 140 // 4 << 16), (*translated, 160 // 8 << 24), padded(four, 140, 140), padded(six, 160, 160))
back4, back6 = IP(**BACK[0], flags=0, id=0) / udp(data(300)), IPv6(**BACK[1]) / udp(data(300))
for kind, code, translated in [(1, 1, (3, 10)), (1, 4, (3, 3)), (3, 0, (11, 0)), (3, 1, (11, 1))]:
    error_out(f"extensions-of-{kind}-{code}-out", "4884 §4, 7915 §5.2",
              "Destination Unreachable and Time Exceeded have a length on both sides.",
              (kind, code, 160 // 8 << 24), (*translated, 140 // 4 << 16), padded(back6, 160, 160),
              padded(back4, 140, 140))
# RFC 4443 3.2: what lies where other types have their length is a part of the MTU.
error_out("extensions-of-packet-too-big-out", "4884 §4.6, 7915 §5.2",
          "Packet Too Big has no length: all that follows is the packet inside.",
          (2, 0, 1400), (3, 4, 1380), padded(back6, 160, 160), padded(back4, 140, 140))
# An ICMPv6 message of 1280 bytes has 1232 behind its header, an ICMPv4 one of 576 bytes has 548.
HUGE6 = structure(struct.pack("!HBB", 1108, 9, 9) + data(1104))
error_in("extensions-without-room-in", "4884 §4, 4443 §2.4",
         "Extensions that leave less than 128 bytes for the packet inside are left out.",
         (11, 0, 128 // 4 << 16), (3, 0, 0), padded(four, 128, 128, HUGE6), bytes(six)[:148])
HUGE4 = structure(struct.pack("!HBB", 420, 9, 9) + data(416))
error_out("extensions-without-room-out", "4884 §4, 1812 §4.3.2.3",
          "Extensions that leave less than 128 bytes for the packet inside are left out.",
          (1, 0, 128 // 8 << 24), (3, 1, 0), padded(back6, 128, 128, HUGE4), bytes(back4)[:108])
# The greatest extensions that leave 128 bytes: 1232 - 128, and 548 - 128.
LAST6 = structure(struct.pack("!HBB", 1100, 9, 9) + data(1096))
error_in("extensions-with-just-room-in", "4884 §4, 4443 §2.4", "128 bytes of the packet inside are enough.",
         (11, 0, 128 // 4 << 16), (3, 0, 128 // 8 << 24), padded(four, 128, 128, LAST6), padded(six, 128, 128, LAST6))
LAST4 = structure(struct.pack("!HBB", 416, 9, 9) + data(412))
error_out("extensions-with-just-room-out", "4884 §4, 1812 §4.3.2.3", "128 bytes of the packet inside are enough.",
          (1, 0, 128 // 8 << 24), (3, 1, 128 // 4 << 16), padded(back6, 128, 128, LAST4),
          padded(back4, 108, 128, LAST4))
frag4 = list(pieces4(IP(**OUT4) / udp(data(1000)), 77, [0, 800]))[1]
frag6 = list(pieces6(IPv6(**OUT6) / udp(data(1000)), 77, [0, 800]))[1]
error_in("extensions-behind-a-fragment-in", "4884 §4, 7915 §4.3",
         "A fragment inside grows by 28 bytes in front of the extensions, and is padded.",
         (11, 0, 128 // 4 << 16), (3, 0, 160 // 8 << 24), padded(frag4, 128, 128), padded(frag6, 156, 160))
error_in("extensions-with-other-ports-in", "4884 §4, 6146 §3.5", "Ports inside are set though the packet is moved.",
         (11, 0, 140 // 4 << 16), (3, 0, 160 // 8 << 24), padded(four, 140, 140),
         padded(IPv6(**OUT6) / udp(data(300), sport=4321, dport=80), 160, 160),
         embedded={"source_port": 4321, "destination_port": 80})

# --- RFC 6791 ---------------------------------------------------------------------------------------------------------

for name, six, four in [("too-big", (2, 0, 1400), (3, 4, 1380)), ("unreachable", (1, 0, 0), (3, 1, 0))]:
    out(f"router-without-address-{name}-out", "6791, 7915 §5.2",
        "Path MTU discovery needs the errors of routers without an IPv4 address.",
        icmp6(*six, BACK6, src="2001:db8:ffff::1", dst=PEER6, hlim=62),
        icmp4(*four, BACK4, src="192.0.2.9", dst=PEER4, ttl=61, id=IDENTIFICATION), rewrite={"source": "192.0.2.9"})
