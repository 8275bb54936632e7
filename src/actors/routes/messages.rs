//! What `routes` is asked.

use actix::Message;

/// Compare what is with what should be, and repair what is ours. May be repeated: a comparison under way is followed
/// by one more, whatever the number of requests.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Reconcile;

/// The kernel's events will not come any more: the actor is to be replaced by one with a new socket.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct EventsEnded;
