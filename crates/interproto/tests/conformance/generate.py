#!/usr/bin/env python3
"""Makes the conformance cases: input packets, and what the RFCs say must come out.

Everything is built with scapy, from the clauses beside each case and from nothing else: this program knows neither interproto
nor any of its code. `generate.py` writes `cases/`, `generate.py --check` says what in there is not what it would write.
"""

import ipaddress
import pathlib
import struct
import sys

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    in6_chksum,
)
from scapy.packet import Raw
from scapy.utils import checksum

HERE = pathlib.Path(__file__).parent
CASES = {}

# The host behind the translator, the peer in the IPv4 internet, a router on the way, and the translator itself.
HOST6, HOST4 = "2001:db8::1", "203.0.113.5"
PEER6, PEER4 = "64:ff9b:1::c633:6402", "198.51.100.2"
ROUTER6, ROUTER4 = "64:ff9b:1::c000:201", "192.0.2.1"
OWN6, OWN4 = "2001:db8::64", "192.0.2.64"
IDENTIFICATION = 0x1267
DF = 2


def data(length, start=1):
    """Bytes that all differ from their neighbours."""
    return bytes((start + 7 * at + at // 256) % 256 for at in range(length))


def case(name, rfc, why, direction, inputs, expected=None, outcome="forward", reason=None, **more):
    """One case. `expected` are the packets that come out, or the answer that the sender gets."""
    assert name not in CASES, name
    inputs = inputs if isinstance(inputs, list) else [inputs]
    expected = [] if expected is None else expected if isinstance(expected, list) else [expected]
    assert (outcome == "forward") == (reason is None), name
    # What is held may be answered, where a caller drops it after all.
    assert outcome == "hold" or (outcome in ("forward", "reply")) == bool(expected), name
    CASES[name] = (rfc, why, direction, [bytes(p) for p in inputs], [bytes(p) for p in expected], outcome, reason, more)


def out(*args, **more):
    """A case from IPv6 to IPv4."""
    case(*args[:3], "six_to_four", *args[3:], **more)


def into(*args, **more):
    """A case from IPv4 to IPv6."""
    case(*args[:3], "four_to_six", *args[3:], **more)


# Headers of the two directions: what the sender wrote, and what the receiver must see, one hop later.
def host(**fields):
    return IPv6(**{"src": HOST6, "dst": PEER6, "hlim": 64, **fields})


def at_peer(length=0, **fields):
    """RFC 7915 5.1: up to 1260 bytes without DF and with an identification, beyond with DF and identification 0."""
    df = {"flags": DF, "id": 0} if length > 1260 else {"flags": 0, "id": IDENTIFICATION}
    return IP(**{"src": HOST4, "dst": PEER4, "ttl": 63, **df, **fields})


def peer(**fields):
    return IP(**{"src": PEER4, "dst": HOST4, "ttl": 64, "flags": DF, "id": 0, **fields})


def at_host(**fields):
    return IPv6(**{"src": PEER6, "dst": HOST6, "hlim": 63, **fields})


def udp(payload=b"data", **fields):
    return UDP(**{"sport": 40000, "dport": 53, **fields}) / Raw(payload)


def tcp(payload=b"data", **fields):
    options = [("MSS", 1460), ("NOP", None), ("NOP", None), ("Timestamp", (7, 9))]
    return TCP(**{"sport": 40000, "dport": 443, "seq": 77, "ack": 99, "flags": "PA", "options": options, **fields}) / Raw(payload)


def icmp4(kind, code, rest, payload, **fields):
    """An ICMPv4 message (RFC 792): `rest` are the four bytes behind the checksum."""
    head = struct.pack("!BBHI", kind, code, 0, rest)
    total = checksum(head + payload)
    return IP(proto=1, **fields) / Raw(struct.pack("!BBHI", kind, code, total, rest) + payload)


def icmp6(kind, code, rest, payload, **fields):
    """An ICMPv6 message (RFC 4443), whose checksum covers a pseudo-header."""
    ip = IPv6(nh=58, **fields)
    message = struct.pack("!BBHI", kind, code, 0, rest) + payload
    total = in6_chksum(58, ip, message)
    return ip / Raw(struct.pack("!BBHI", kind, code, total, rest) + payload)


def host_icmp(kind, code, rest, payload, **fields):
    return icmp6(kind, code, rest, payload, **{"src": HOST6, "dst": PEER6, "hlim": 64, **fields})


def at_peer_icmp(kind, code, rest, payload, **fields):
    return icmp4(kind, code, rest, payload, **{"src": HOST4, "dst": PEER4, "ttl": 63, "id": IDENTIFICATION, **fields})


def peer_icmp(kind, code, rest, payload, **fields):
    return icmp4(kind, code, rest, payload, **{"src": PEER4, "dst": HOST4, "ttl": 64, "flags": DF, "id": 0, **fields})


def at_host_icmp(kind, code, rest, payload, **fields):
    return icmp6(kind, code, rest, payload, **{"src": PEER6, "dst": HOST6, "hlim": 63, **fields})


def echo(identifier, sequence):
    return identifier << 16 | sequence


def wrong(packet, at, value):
    """The packet with other bytes at one place."""
    packet = bytearray(bytes(packet))
    packet[at : at + len(value)] = value
    return bytes(packet)


def pieces6(packet, identification, cuts, headers=None):
    """Fragments of an IPv6 packet (RFC 8200 4.5) without extension headers, cut at these payload offsets."""
    packet = bytes(packet)
    ip, payload = IPv6(packet[:40]), packet[40:]
    cuts = [*cuts, len(payload)]
    for start, end in zip(cuts, cuts[1:]):
        header = IPv6ExtHdrFragment(nh=ip.nh, offset=start // 8, m=int(end < len(payload)), id=identification)
        yield IPv6(src=ip.src, dst=ip.dst, hlim=ip.hlim, tc=ip.tc) / header / Raw(payload[start:end])


def pieces4(packet, identification, cuts):
    """Fragments of an IPv4 packet (RFC 791 3.2)."""
    packet = bytes(packet)
    ip, payload = IP(packet[:20]), packet[20:]
    cuts = [*cuts, len(payload)]
    for start, end in zip(cuts, cuts[1:]):
        more = 1 if end < len(payload) else 0
        yield IP(src=ip.src, dst=ip.dst, ttl=ip.ttl, tos=ip.tos, proto=ip.proto, flags=more, frag=start // 8,
                 id=identification) / Raw(payload[start:end])


def toml_value(value):
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def files():
    """All files, by their names below `cases`."""
    made = {}
    for name, (rfc, why, direction, inputs, expected, outcome, reason, more) in CASES.items():
        lines = [f'rfc = "{rfc}"', f'why = "{why}"', f'direction = "{direction}"', f'outcome = "{outcome}"']
        if reason:
            lines.append(f'reason = "{reason}"')
        # Tables go last.
        for key, value in sorted(more.items(), key=lambda entry: isinstance(entry[1], dict)):
            if isinstance(value, dict):
                lines.append(f"\n[{key}]")
                lines += [f"{field} = {toml_value(one)}" for field, one in value.items()]
            else:
                lines.append(f"{key} = {toml_value(value)}")
        made[f"{name}/case.toml"] = ("\n".join(lines) + "\n").encode()
        made[f"{name}/input.pcap"] = pcap(inputs)
        made[f"{name}/expected.pcap"] = pcap(expected)
    return made


def pcap(packets):
    """A capture of raw IP packets (LINKTYPE_RAW, 101), with all times zero."""
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 101)
    return head + b"".join(struct.pack("<IIII", 0, 0, len(p), len(p)) + p for p in packets)


def main():
    import cases_headers, cases_icmp, cases_bounds, cases_more_headers, cases_more_icmp  # noqa: E401, F401: they fill CASES

    made = files()
    folder = HERE / "cases"
    there = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    if sys.argv[1:] == ["--check"]:
        differing = sorted(name for name in made.keys() | there.keys()
                           if name not in made or name not in there or there[name].read_bytes() != made[name])
        for name in differing:
            print(f"cases/{name} is not what generate.py makes")
        print(f"{len(CASES)} cases, {len(differing)} files differ")
        return 1 if differing or not CASES else 0
    for name, path in there.items():
        if name not in made:
            path.unlink()
    for name, content in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for path in folder.iterdir():
        if not any(path.iterdir()):
            path.rmdir()
    print(f"{len(CASES)} cases")
    return 0


if __name__ == "__main__":
    # The modules with the cases import this one by its name.
    sys.modules["generate"] = sys.modules["__main__"]
    sys.path.insert(0, str(HERE))
    sys.exit(main())
