//! The TCP state machine of RFC 6146 §3.5.2.2 with the changes of RFC 7857 §2, as one table.

use super::api::{SessionState, Signal};

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    V6,
    V4,
}

/// The state of a session that a SYN from `side` makes.
pub const fn first(side: Side) -> SessionState {
    match side {
        Side::V6 => SessionState::V6Init,
        Side::V4 => SessionState::V4Init,
    }
}

/// The state after a packet, and whether the packet starts the lifetime anew.
#[allow(clippy::match_same_arms, reason = "the arms are in the order of a connection's life")]
pub fn after(state: SessionState, side: Side, signal: Signal) -> (SessionState, bool) {
    use SessionState::{Established, OneWay, Trans, V4FinRcv, V4FinV6FinRcv, V4Init, V6FinRcv, V6Init};
    match (state, side, signal) {
        // Opening: only the SYN of the other side counts, and the IPv6 side's own SYN when it is sent again.
        (V6Init, Side::V4, Signal::Syn) | (V4Init, Side::V6, Signal::Syn) => (Established, true),
        (V6Init, Side::V6, Signal::Syn) => (V6Init, true),
        (V6Init | V4Init, _, _) => (state, false),

        // RFC 7857 §2.2: a RST of either side.
        (Established | V4FinRcv | V6FinRcv, _, Signal::Rst) => (Trans, true),
        (Established, Side::V4, Signal::Fin) => (V4FinRcv, true),
        (Established, Side::V6, Signal::Fin) => (V6FinRcv, true),
        (V4FinRcv, Side::V6, Signal::Fin) | (V6FinRcv, Side::V4, Signal::Fin) => (V4FinV6FinRcv, true),
        (Established | V4FinRcv | V6FinRcv, _, _) => (state, true),

        // Both have closed: only a SYN, the same tuple used again, changes anything.
        (V4FinV6FinRcv, _, Signal::Syn) => (first(side), true),
        (V4FinV6FinRcv, _, _) | (Trans, _, Signal::Rst) => (state, false),
        (Trans, _, _) => (Established, true),
        (OneWay, _, _) => panic!("no state of TCP"),
    }
}
