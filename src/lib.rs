//! protomask: a supervised NAT64 router for Linux.
