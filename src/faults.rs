//! Points in the midst of changes of the shared data at which a test has a thread panic. They are the process's and not one concern's: see
//! [`crate::supervision::faults`] for those. Without the feature `fault-injection` they are nothing.

fault_points::fault_points! {
    /// Where a change can be made to panic.
    pub enum Point {
        /// A datagram is in the buffer of fragments, and does not count for its source yet.
        FragmentOpen,
        /// A datagram has no place by age any more, and is still in the buffer.
        FragmentEnd,
        /// The mappings of the next generation are in the tables, and the one before still holds.
        GenerationPlaced,
        /// Timers and quotas are those of the next generation, which does not hold yet.
        GenerationHalf,
        /// A lease or a port block has been given, and there is no record of it yet.
        Given,
        /// A mapping has been taken out of the tables, and is still known as placed.
        Unplaced,
    }
}
