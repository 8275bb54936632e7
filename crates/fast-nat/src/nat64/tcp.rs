//! The TCP state machine of RFC 6146 §3.5.2.2, as RFC 7857 §2 amends it.

use super::{SessionState as State, Signal};

/// Which side a packet comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Side {
    /// The IPv6 side: the host.
    V6,
    /// The IPv4 side: the remote.
    V4,
}

impl Side {
    pub(super) const fn index(self) -> usize {
        match self {
            Self::V6 => 0,
            Self::V4 => 1,
        }
    }
}

/// What a packet does to a session: its next state, and whether its timer begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) next: State,
    pub(super) refresh: bool,
}

/// The state that a SYN from this side begins with.
pub(super) const fn first(side: Side) -> State {
    match side {
        Side::V6 => State::V6Init,
        Side::V4 => State::V4Init,
    }
}

/// What a packet does to a session in `state`.
#[inline]
#[allow(clippy::match_same_arms, reason = "one block for each state, as the RFC has it")]
pub(super) fn step(state: State, side: Side, signal: Signal) -> Step {
    let to = |next| Step { next, refresh: true };
    let stay = Step { next: state, refresh: false };
    let renew = Step { next: state, refresh: true };
    match (state, side, signal) {
        (State::V6Init, Side::V4, Signal::Syn) => to(State::Established),
        (State::V6Init, Side::V6, Signal::Syn) => renew,
        (State::V6Init, ..) => stay,

        (State::V4Init, Side::V6, Signal::Syn) => to(State::Established),
        (State::V4Init, ..) => stay,

        (State::Established, Side::V4, Signal::Fin) => to(State::V4FinRcv),
        (State::Established, Side::V6, Signal::Fin) => to(State::V6FinRcv),
        (State::Established, _, Signal::Rst) => to(State::Trans),
        (State::Established, ..) => renew,

        // RFC 6146 has RST end an established connection soon; one that is half closed is no less over (RFC 7857 §2.2).
        (State::V4FinRcv | State::V6FinRcv, _, Signal::Rst) => to(State::Trans),
        (State::V4FinRcv, Side::V6, Signal::Fin) => to(State::V4FinV6FinRcv),
        (State::V6FinRcv, Side::V4, Signal::Fin) => to(State::V4FinV6FinRcv),
        (State::V4FinRcv | State::V6FinRcv, ..) => renew,

        // A tuple that is used again before its old connection is forgotten: RFC 6146 would let the new connection end with
        // the old one's timer.
        (State::V4FinV6FinRcv, side, Signal::Syn) => to(first(side)),
        (State::V4FinV6FinRcv, ..) => stay,

        (State::Trans, _, Signal::Rst) => stay,
        (State::Trans, ..) => to(State::Established),

        // No state of TCP.
        (State::OneWay, ..) => stay,
    }
}
