//! What these tests share with others.
#![allow(dead_code, reason = "each file of tests uses its own part")]

#[path = "../common/files.rs"]
pub(crate) mod files;
#[path = "../common/process.rs"]
pub(crate) mod process;

use std::time::Duration;

/// Far beyond what anything here takes, also on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
