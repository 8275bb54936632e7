//! The engine's state, entry by entry, for whoever keeps a copy of it.
//!
//! An entry is named by its place. What has a place changes hands: a place that is empty now had somebody else's entry before, and the
//! other way round. Who keeps the last that was read of each place, has a copy.

use std::sync::atomic::Ordering;

use super::entries::{Standing, endpoint_parts, in_use};
use super::{Ipv4Addr, Ipv6Addr, Nat64, Outbound, Protocol, SessionState, Timestamp, moment, tick};

/// What has happened on a session so far.
///
/// As bits, lowest first: its host has taken part, its remote has answered, it has been established, it was opened from the IPv4 side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Course(u8);

impl Course {
    /// The lowest four bits say what has happened; `None` if there are others.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits < 16 { Some(Self(bits)) } else { None }
    }

    /// Whether its host has taken part: packets begin the timer of no other session anew.
    pub const fn has_taken_part(self) -> bool {
        self.0 & 1 != 0
    }

    /// What has happened, in the lowest four bits.
    pub const fn bits(self) -> u8 {
        self.0
    }
}

/// All that is needed to go on with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedSession {
    /// As the IPv6 side sees it.
    pub outbound: Outbound,
    /// The IPv4 address that its host has.
    pub address: Ipv4Addr,
    /// The port or identifier that it has there.
    pub port: u16,
    /// Where it stands.
    pub state: SessionState,
    /// What has happened on it.
    pub course: Course,
    /// When a packet last refreshed it, to the tick.
    pub last_seen: Timestamp,
}

/// All that is needed to go on with a port block, but for its reserved ports and those that rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedBlock {
    /// Who holds it: a host, or the first address of a subscriber's prefix where its hosts share blocks.
    pub host: Ipv6Addr,
    /// The address.
    pub address: Ipv4Addr,
    /// The first port.
    pub first_port: u16,
    /// How many ports.
    pub size: u16,
    /// When it was given.
    pub given: Timestamp,
}

/// A port that nobody has and that rests before it is used again (RFC 6888 REQ-8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestingPort {
    /// For which protocol.
    pub protocol: Protocol,
    /// The address.
    pub address: Ipv4Addr,
    /// The port or identifier.
    pub port: u16,
    /// Since when, to the tick.
    pub since: Timestamp,
}

impl Protocol {
    /// The protocol with this number here.
    pub const fn from_number(number: u8) -> Option<Self> {
        if number < 3 { Some(Self::from_bits(number)) } else { None }
    }
}

impl SessionState {
    /// The state with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        if number < 8 { Some(Self::from_bits(number)) } else { None }
    }
}

impl Nat64 {
    /// Places that sessions have had so far: from 1 to this.
    pub fn session_places(&self) -> u32 {
        *self.sessions.numbers().end()
    }

    /// Places that blocks have had so far: from 1 to this.
    pub fn block_places(&self) -> u32 {
        *self.blocks.numbers().end()
    }

    /// The session at this place; `None`: there is none, or it is about to begin or to end. Waits for nobody.
    pub fn saved_session(&self, place: u32) -> Option<SavedSession> {
        let session = self.sessions.get(place)?;
        let version = session.version.load(Ordering::Acquire);
        if !in_use(version) {
            return None;
        }
        let bound = self.bindings.get(session.binding.load(Ordering::Relaxed))?.read()?;
        let (remote, remote_port) = endpoint_parts(session.remote.load(Ordering::Relaxed));
        let (address, port) = bound.endpoint();
        let standing = session.standing();
        let outbound = Outbound {
            prefix: bound.prefix(),
            protocol: bound.protocol(),
            host: bound.host,
            port: bound.host_port(),
            remote,
            remote_port,
        };
        let last_seen = moment(session.last_seen.load(Ordering::Relaxed));
        std::sync::atomic::fence(Ordering::Acquire);
        let is_it = session.version.load(Ordering::Relaxed) == version;
        is_it.then(|| SavedSession {
            outbound,
            address,
            port,
            state: standing.state(),
            course: standing.course(),
            last_seen,
        })
    }

    /// The block at this place; `None`: there is none. Waits for who takes a port of it.
    pub fn saved_block(&self, place: u32) -> Option<SavedBlock> {
        let lease = self.block_at(place)?;
        let (host, address, first_port) = (lease.host, lease.address, lease.first_port);
        Some(SavedBlock { host, address, first_port, size: lease.size, given: lease.given })
    }

    /// The ports of the block at this place that have begun to rest at `since` or later, for each protocol those first that have
    /// rested longest. Waits for who takes a port of it.
    pub fn resting_ports(&self, place: u32, since: Timestamp, resting: &mut Vec<RestingPort>) {
        let Some(block) = self.blocks.get(place) else { return };
        let data = block.data.lock();
        if !in_use(block.version.load(Ordering::Acquire)) {
            return;
        }
        let address = Ipv4Addr::from_bits(data.address);
        for (protocol, ports) in Protocol::ALL.into_iter().zip(&data.ports) {
            let from = resting.len();
            resting.extend(ports.resting_since(tick(since)).map(|(port, freed)| RestingPort {
                protocol,
                address,
                port: data.first_port + port,
                since: moment(freed),
            }));
            if let Some(of_protocol) = resting.get_mut(from..) {
                of_protocol.reverse();
            }
        }
    }
}

impl Standing {
    const COURSE_SHIFT: u32 = 8;

    pub(super) const fn course(self) -> Course {
        Course((self.0 >> Self::COURSE_SHIFT) as u8 & 15)
    }

    pub(super) const fn with_course(self, course: Course) -> Self {
        Self(self.0 | (course.0 as u32) << Self::COURSE_SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tcp::Side;
    use super::*;

    #[test]
    fn the_course_of_a_session_is_kept_bit_by_bit() {
        let fresh = Standing::new(Protocol::Udp, SessionState::OneWay);
        for (bit, standing) in [
            fresh.with_taken_part(),
            fresh.with_answered(),
            fresh.with_established(),
            fresh.opened_from_outside(),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(standing.course().bits(), 1 << bit);
            assert_eq!(fresh.with_course(standing.course()), standing);
        }
        let all = fresh.with_course(Course::from_bits(15).unwrap());
        assert!(all.course().has_taken_part() && !fresh.with_answered().course().has_taken_part());
        assert!(all.taken_part() && all.answered() && all.was_established());
        assert_eq!((all.opened_by(), all.state(), all.protocol()), (Side::V4, fresh.state(), Protocol::Udp));
        assert_eq!(Course::from_bits(16), None);
    }

    #[test]
    fn numbers_of_states_and_protocols_are_theirs_alone() {
        for number in 0..=u8::MAX {
            assert_eq!(
                SessionState::from_number(number).map(|state| state as u8),
                (number < 8).then_some(number)
            );
            let protocol = Protocol::from_number(number).map(|protocol| protocol as u8);
            assert_eq!(protocol, (number < 3).then_some(number));
        }
    }
}
