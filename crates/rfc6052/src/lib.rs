//! IPv4 addresses embedded in IPv6 prefixes (RFC 6052)
