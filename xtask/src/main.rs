//! The project's named verbs.
fn main() {}
