#![doc = include_str!("../README.md")]

mod batch;
mod device;
mod doze;
mod error;
mod fake;
#[cfg(feature = "fault-injection")]
pub mod faults;
#[cfg(not(feature = "fault-injection"))]
mod faults;
mod held;
mod io;
mod name;
mod offloads;
mod queue;
mod steering;
mod sys;

pub use batch::{Batch, BatchLayout, Slot};
pub use device::{Device, DeviceBuilder, MAX_QUEUES};
pub use doze::Doze;
pub use error::Error;
pub use fake::{FakeDevice, FakeHandle, FakeQueue, Full};
pub use held::HeldQueue;
pub use io::{OpenQueue, PacketIo, Written};
pub use name::check as check_name;
pub use offloads::{HEADER, Offloads};
pub use queue::{AsyncQueue, QueueHandle};
pub use steering::{Instruction, Steering};
