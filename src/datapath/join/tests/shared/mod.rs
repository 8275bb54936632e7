//! What the tests share with the fuzz target: packets, a kernel that cuts super-packets, the law, and inputs that become batches.

pub mod cut;
pub mod law;
pub mod packets;
pub mod scenario;

use super::join;
