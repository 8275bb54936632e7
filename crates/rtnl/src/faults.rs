//! Calls of the kernel that a test can have refused. Without the feature `fault-injection` this is nothing.

fault_points::fault_points! {
    /// Which call is refused, with `EIO`.
    pub enum Point {
        /// Opening a socket for requests.
        Open,
        /// Opening a socket for events.
        Watch,
        /// Reading an event: there are none any more.
        Event,
        /// Listing links, addresses or routes.
        Snapshot,
        /// Reading the counters of a link.
        LinkStats,
        /// Changing a link.
        ChangeLink,
        /// Adding an address.
        AddAddress,
        /// Removing an address.
        RemoveAddress,
        /// Adding a route.
        AddRoute,
        /// Removing a route.
        RemoveRoute,
        /// Removing a link.
        RemoveLink,
    }
}
