//! The `protomask` daemon.
fn main() {}
