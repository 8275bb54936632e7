//! Address and session tables for NAT64, built for speed
