//! Network namespaces and veth links made from Rust, for tests and demonstrations
