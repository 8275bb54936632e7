#![doc = include_str!("../README.md")]
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

mod global;
mod prefix;

pub use global::{NonGlobal, is_global};
pub use prefix::{Prefix, PrefixError};
