//! Calls of the kernel that a test can have refused. Without the feature `fault-injection` this is nothing.

fault_points::fault_points! {
    /// Which call is refused, with `EIO`.
    pub enum Point {
        /// Opening the node of TUN devices.
        Open,
        /// Attaching a queue to a device, or making it.
        Attach,
        /// Having the device stay, or go.
        Persist,
        /// Setting the length of the header in front of packets.
        SetHeader,
        /// Setting the offloads.
        SetOffload,
        /// Having a read wait.
        Wait,
        /// Reading a frame.
        Read,
        /// Writing a frame.
        Write,
    }
}
