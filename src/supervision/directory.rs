//! Where the current address of an actor is looked up.
//!
//! Nobody keeps a raw `Addr` of another actor: after a restart it would name a dead one, and actix would lose the
//! messages without a word. "Not there just now" is a normal answer, which each caller handles.

use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Context, Handler, Message};
use arc_swap::ArcSwapOption;

/// Why a message could not be delivered or answered just now. The caller tries again or goes without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The actor is being restarted.
    #[error("the actor is being restarted")]
    Absent,
    /// Its mailbox is full.
    #[error("the actor's mailbox is full")]
    Full,
    /// It died, or was replaced, before it answered.
    #[error("the actor ended before it answered")]
    Ended,
    /// It did not answer in time.
    #[error("the actor did not answer in time")]
    Late,
}

struct Entry<A: Actor> {
    generation: u64,
    address: Addr<A>,
}

/// The place of one actor in the directory.
pub struct Slot<A: Actor>(ArcSwapOption<Entry<A>>);

impl<A: Actor> Default for Slot<A> {
    fn default() -> Self {
        Self(ArcSwapOption::empty())
    }
}

impl<A: Actor> std::fmt::Debug for Slot<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slot(generation {:?})", self.generation())
    }
}

impl<A: Actor<Context = Context<A>>> Slot<A> {
    /// Sends without waiting, for facts and batches that can be repeated.
    pub fn try_send<M>(&self, message: M) -> Result<(), Unavailable>
    where
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        match self.0.load().as_deref() {
            None => Err(Unavailable::Absent),
            Some(entry) => entry.address.try_send(message).map_err(|error| match error {
                actix::dev::SendError::Full(_) => Unavailable::Full,
                actix::dev::SendError::Closed(_) => Unavailable::Ended,
            }),
        }
    }

    /// Asks, and waits for the answer for `patience` at most.
    pub async fn ask<M>(&self, message: M, patience: Duration) -> Result<M::Result, Unavailable>
    where
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        // The guard of `load` must not be held while waiting.
        let Some(request) = self.0.load().as_deref().map(|entry| entry.address.send(message)) else {
            return Err(Unavailable::Absent);
        };
        match actix_rt::time::timeout(patience, request).await {
            Err(_) => Err(Unavailable::Late),
            Ok(Err(_)) => Err(Unavailable::Ended),
            Ok(Ok(answer)) => Ok(answer),
        }
    }
}

impl<A: Actor> Slot<A> {
    /// The generation of the actor that is listed, if one is.
    pub fn generation(&self) -> Option<u64> {
        self.0.load().as_deref().map(|entry| entry.generation)
    }

    pub(super) fn publish(&self, generation: u64, address: Addr<A>) {
        self.0.store(Some(std::sync::Arc::new(Entry { generation, address })));
    }

    /// Takes the entry out if it still is that of `generation`: a late zombie must not take its successor out.
    pub(super) fn withdraw(&self, generation: u64) {
        self.0.rcu(|entry| entry.as_ref().filter(|entry| entry.generation != generation).cloned());
    }
}
