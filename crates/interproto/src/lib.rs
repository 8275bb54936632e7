//! IPv4 <-> IPv6 packet translation (RFC 7915), in place and without allocation
