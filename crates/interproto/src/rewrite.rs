//! What a translation is told, beside the packet.

/// The addresses and ports that a packet is to leave with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrite<A> {
    /// The new source address.
    pub source: A,
    /// The new destination address.
    pub destination: A,
    /// The new ports or identifier.
    pub ports: PortRewrite,
    /// The same for the packet inside an ICMP error. An error without this is dropped.
    pub embedded: Option<EmbeddedRewrite<A>>,
}

/// The addresses and ports that the packet inside an ICMP error is to have. It was sent the other way, so its source is
/// what the error's destination stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddedRewrite<A> {
    /// The new source address.
    pub source: A,
    /// The new destination address.
    pub destination: A,
    /// The new ports or identifier.
    pub ports: PortRewrite,
}

/// What becomes of ports and identifiers. What does not fit the packet (ports for an echo, anything for a fragment behind
/// the first) changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortRewrite {
    /// They stay: stateless translation, and hosts with an address of their own.
    Keep,
    /// New ports.
    Pair {
        /// The new source port.
        source: u16,
        /// The new destination port.
        destination: u16,
    },
    /// A new identifier of an echo.
    Identifier(u16),
}
