//! The load generator: its sockets are made inside the namespaces of client and server, and what it costs is the same for
//! all contenders.
//!
//! It paces by sleeping (`clock_nanosleep` to an absolute time, with the smallest timer slack) and never waits busily: a
//! spinning thread would hide what the kernel does in its time, and take a processor from who is measured.

pub(crate) mod connections;
pub(crate) mod echo;
pub(crate) mod pace;
pub(crate) mod search;
pub(crate) mod socket;
pub(crate) mod stream;
