//! What goes from one process to the next without being closed: the device's queues.
//!
//! While somebody has a queue open, the kernel puts packets into it, and the next process reads them. A persistent device that nobody has
//! open keeps its routes and drops what comes. Who has the queues in between:
//!
//! ```text
//!  the process before    it waits until the next one is set up                                            [`give`], [`take`]
//!  the service manager   systemd's file descriptor store, or `protomask keep`: both speak the same language   [`store`]
//!  nobody                the device is persistent: packets are dropped, and the next start says how many
//! ```

pub mod descriptors;
pub mod give;
pub mod keeper;
mod link;
pub mod store;
pub mod take;

use std::os::fd::OwnedFd;

use easy_tun::HeldQueue;
use slog::{Logger, warn};

use take::Predecessor;

/// What a start was given by whoever kept it.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// Descriptors and their names.
    pub descriptors: Vec<(String, OwnedFd)>,
    /// The router that they are of, if it waits for this one.
    pub predecessor: Option<Predecessor>,
}

/// The queues of the device of this interface.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    /// In the order of their numbers.
    pub(crate) held: Vec<HeldQueue>,
    /// All names that belong to this interface, whatever was behind them.
    pub(crate) names: Vec<String>,
}

impl Inheritance {
    /// Takes those that are queues of this interface. What is something else is closed, and the log says so.
    pub(crate) fn queues(&mut self, interface: &str, log: &Logger) -> Queues {
        let mut queues = Queues::default();
        let mut numbered = Vec::new();
        for (name, descriptor) in std::mem::take(&mut self.descriptors) {
            let Some(number) = store::number_of(&name, interface) else {
                warn!(log, "a descriptor that was kept is not one of this router and is closed"; "name" => name);
                continue;
            };
            match HeldQueue::check(descriptor) {
                Ok(queue) if queue.device() == interface => numbered.push((number, queue)),
                Ok(queue) => warn!(log, "a queue that was kept is one of another device and is closed";
                    "name" => &name, "device" => queue.device()),
                Err(because) => warn!(log, "a queue that was kept is of no use and is closed";
                    "name" => &name, "because" => %because),
            }
            queues.names.push(name);
        }
        numbered.sort_by_key(|(number, _)| *number);
        queues.held = numbered.into_iter().map(|(_, queue)| queue).collect();
        queues
    }
}
