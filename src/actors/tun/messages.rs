//! What `tun` is told.

use actix::Message;

/// A worker has ended without being asked to.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct WorkerEnded {
    /// The incarnation of `tun` that it belonged to.
    pub generation: u64,
    /// Which worker.
    pub worker: usize,
    /// Why.
    pub why: String,
    /// The device was deleted: no worker can ever read it again.
    pub device_is_gone: bool,
}
