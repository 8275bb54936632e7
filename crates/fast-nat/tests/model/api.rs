//! What the model knows of the crate: its interface.

pub use fast_nat::nat64::{
    Block, BlockRef, Event, Filtering, GiveError, Inbound, Mapped, Nat64, NatConfig, NatUsage, NotRestored,
    Outbound, Output, Passing, PortClass, Protocol, Quota, Reached, Refused, RestingPort, SavedBlock,
    SavedSession, Seen, SessionRef, SessionState, SessionView, Signal, StaticBinding, StaticError, Timers,
};
pub use fast_nat::{
    BlockPool, BlockPoolConfig, BlockRefusal, Deterministic, DeterministicConfig, DeterministicNet, Granted,
    Lanes, PortNet,
};
pub use fast_nat::{Timestamp, is_eligible_host};
