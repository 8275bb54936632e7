//! Points in the midst of changes, locks held, at which a test has a table panic. Without the feature `fault-injection` they are nothing.

fault_points::fault_points! {
    /// Where a table can be made to panic.
    pub enum Point {
        /// A new lease has its address, and its host does not have it yet.
        LeaseBegin,
        /// A new lease is its host's, and has no timer yet.
        LeaseArm,
        /// A lease's host does not have it any more, and its address is still its own.
        LeaseEnd,
        /// The timers of leases that may be over have been taken out, and the leases have not been looked at.
        LeaseExpire,
        /// An address counts as used in a pool, and not yet as its host's.
        PoolUse,
        /// An address is free in a pool, and not yet in the order in which addresses rest.
        PoolFree,
        /// A block is taken out of a pool, and its host does not have it yet.
        BlockPoolTake,
        /// A subscriber is made, and cannot be found yet.
        SubscriberBegin,
        /// A host is made, and cannot be found yet.
        HostBegin,
        /// A host cannot be found any more, and its place is still in use.
        HostEnd,
        /// A block is its host's, and does not count as given yet.
        BlockGive,
        /// A block is not in its host's list any more, and still counts as given.
        BlockTakeBack,
        /// A block is retired, and its ports still count as free.
        BlockRetire,
        /// The last block of the list of idle ones knows the next, which is not the last yet.
        IdleBegin,
        /// The block behind one that leaves the list of idle ones is not linked yet with the one before.
        IdleEnd,
        /// A port is taken, and still counts as free.
        PortTake,
        /// A port that was not used is free, and does not count as such yet.
        PortPutBack,
        /// A port rests, and its block still counts it as used.
        PortRelease,
        /// A port that rested is in no list.
        PortPromote,
        /// A port is reserved, and still counts as free.
        PortReserve,
        /// A binding is found by its address, and not yet by its host.
        BindingBegin,
        /// A binding is found by its address, and not any more by its host.
        BindingEnd,
        /// A session is found, and has no timer yet, nor does its binding count it.
        SessionBegin,
        /// A session's host has taken part by its binding's count, and not by the session's own.
        SessionAdvance,
        /// A session is in no timer's slot while that is moved.
        SessionMove,
        /// A session is not found any more, and still in use.
        SessionEnd,
        /// A session has been taken out of its timer's slot, to be looked at.
        SessionVisit,
        /// An address is let in, and cannot be found yet.
        PermitBegin,
        /// An address is not let in any more, and its place is still in use.
        PermitEnd,
        /// A static binding is made, and its host does not count it yet.
        StaticBegin,
        /// A static binding has been made one that ends, and has not ended.
        StaticEnd,
        /// A binding has been put back, and its session has not.
        RestoreSession,
        /// A port is to rest again: it is taken, and does not rest yet.
        RestoreResting,
        /// A SYN has its place in the order of their times, and has not been stored.
        SynKeep,
        /// A SYN's remote is forgotten, and the SYN is still stored.
        SynTake,
        /// The remote of the oldest SYN is forgotten, and the SYN is still stored.
        SynOverdue,
    }
}
