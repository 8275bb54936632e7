//! What the files look like: a header, then frames of records of one kind each.
//!
//! ```text
//!  header  magic, version, snapshot or journal, epoch, generation, boot id, configuration ─ checksum
//!  frame   marker, kind, count, sequence, when (since boot, time of day) ─ checksum │ count records
//!  frame   ...
//! ```
//!
//! All numbers are little-endian, all times milliseconds. A checksum (CRC-32) covers its header and what belongs to it. The layout is
//! that of version [`VERSION`]; whatever changes it counts that up.

use std::net::{Ipv4Addr, Ipv6Addr};

use fast_nat::nat64::{Course, Outbound, Protocol, RestingPort, SavedBlock, SavedSession, SessionState};
use fast_nat::{SavedLease, Timestamp};
use rfc6052::Prefix;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What every file begins with.
const MAGIC: [u8; 8] = *b"protomsk";

/// The layout that is written and read here.
pub const VERSION: u16 = 1;

/// What every frame begins with.
pub(super) const MARKER: [u8; 4] = *b"\xf7PMf";

/// The most records of a frame: what one bad byte costs, and what is read at a time.
pub(super) const MOST_RECORDS: usize = 1024;

/// Two kinds of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// All of the state at some time.
    Snapshot = 1,
    /// What has changed since.
    Journal = 2,
}

/// The beginning of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    magic: [u8; 8],
    version: U16,
    kind: u8,
    zero: u8,
    /// Which row of snapshots and journals it belongs to: places mean the same in all of them.
    epoch: U64,
    /// The journals with the number of a snapshot and with those that follow go on where it ends.
    generation: U64,
    /// The kernel's name for the time from one start of the machine to the next.
    boot: [u8; 16],
    /// A fingerprint of the configuration, for the log only.
    configuration: U32,
    checksum: U32,
}

/// What a file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) epoch: u64,
    pub(super) generation: u64,
    pub(super) boot: [u8; 16],
    pub(super) configuration: u32,
}

impl Header {
    /// Its length.
    pub(super) const LENGTH: usize = size_of::<Self>();

    pub(super) fn new(kind: FileKind, identity: &Identity) -> Self {
        let mut header = Self {
            magic: MAGIC,
            version: VERSION.into(),
            kind: kind as u8,
            zero: 0,
            epoch: identity.epoch.into(),
            generation: identity.generation.into(),
            boot: identity.boot,
            configuration: identity.configuration.into(),
            checksum: 0.into(),
        };
        header.checksum = header.sum().into();
        header
    }

    fn sum(&self) -> u32 {
        let without = Self { checksum: 0.into(), ..*self };
        crc32fast::hash(without.as_bytes())
    }

    /// What it says, or why it is not to be trusted.
    pub(super) fn check(&self, kind: FileKind) -> Result<Identity, String> {
        if self.magic != MAGIC {
            return Err("it is not a file of this program".to_owned());
        }
        if self.version.get() != VERSION {
            return Err(format!("it is of version {}, and this program reads {VERSION}", self.version));
        }
        if self.checksum.get() != self.sum() {
            return Err("the checksum of its header is wrong".to_owned());
        }
        if self.kind != kind as u8 {
            return Err("it has the name of another kind of file".to_owned());
        }
        Ok(Identity {
            epoch: self.epoch.get(),
            generation: self.generation.get(),
            boot: self.boot,
            configuration: self.configuration.get(),
        })
    }
}

/// One moment on both clocks: since the machine started, and the time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Moment {
    pub(super) boot: u64,
    pub(super) wall: u64,
}

/// The beginning of a frame.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct FrameHeader {
    marker: [u8; 4],
    kind: u8,
    zero: [u8; 3],
    count: U32,
    sequence: U64,
    boot: U64,
    wall: U64,
    checksum: U32,
}

impl FrameHeader {
    /// Its length.
    pub(super) const LENGTH: usize = size_of::<Self>();

    pub(super) fn new(kind: Kind, count: usize, sequence: u64, moment: Moment, records: &[u8]) -> Self {
        let mut header = Self {
            marker: MARKER,
            kind: kind as u8,
            zero: [0; 3],
            count: (count as u32).into(),
            sequence: sequence.into(),
            boot: moment.boot.into(),
            wall: moment.wall.into(),
            checksum: 0.into(),
        };
        header.checksum = header.sum(records).into();
        header
    }

    fn sum(&self, records: &[u8]) -> u32 {
        let without = Self { checksum: 0.into(), ..*self };
        let mut sum = crc32fast::Hasher::new();
        sum.update(without.as_bytes());
        sum.update(records);
        sum.finalize()
    }

    /// The kind of its records, and how many bytes these have; `None`: it cannot be the beginning of a frame.
    pub(super) fn shape(&self) -> Option<(Kind, usize)> {
        let kind = Kind::from_number(self.kind)?;
        let count = self.count.get() as usize;
        let is_possible = self.marker == MARKER && self.zero == [0; 3] && count <= MOST_RECORDS;
        is_possible.then(|| (kind, count * kind.record_length()))
    }

    /// Whether the checksum is right.
    pub(super) fn is_of(&self, records: &[u8]) -> bool {
        self.checksum.get() == self.sum(records)
    }

    /// Frames of a file are numbered from 0.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence.get()
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { boot: self.boot.get(), wall: self.wall.get() }
    }
}

/// What the records of a frame are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// [`PrefixRecord`]: which translation prefix has which number.
    Prefixes = 1,
    /// [`SessionRecord`]: what is at these places now.
    Sessions = 2,
    /// [`PlaceRecord`]: no session is at these places any more.
    SessionsGone = 3,
    /// [`BlockRecord`]: what is at these places now.
    Blocks = 4,
    /// [`PlaceRecord`]: no block is at these places any more.
    BlocksGone = 5,
    /// [`RestingRecord`].
    Resting = 6,
    /// [`LeaseRecord`]: who has these addresses now.
    Leases = 7,
    /// [`LeaseRecord`]: who has had these addresses until `last_seen`.
    LeasesEnded = 8,
    /// Nothing but the time: the router ran then.
    Alive = 9,
    /// Nothing: the file is whole, and so is a journal that another one follows.
    End = 10,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Prefixes,
        Self::Sessions,
        Self::SessionsGone,
        Self::Blocks,
        Self::BlocksGone,
        Self::Resting,
        Self::Leases,
        Self::LeasesEnded,
        Self::Alive,
        Self::End,
    ];

    /// The kind with this number.
    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    pub(super) const fn record_length(self) -> usize {
        match self {
            Self::Prefixes => size_of::<PrefixRecord>(),
            Self::Sessions => size_of::<SessionRecord>(),
            Self::SessionsGone | Self::BlocksGone => size_of::<PlaceRecord>(),
            Self::Blocks => size_of::<BlockRecord>(),
            Self::Resting => size_of::<RestingRecord>(),
            Self::Leases | Self::LeasesEnded => size_of::<LeaseRecord>(),
            // One byte, so that a count says something; there is none.
            Self::Alive | Self::End => 1,
        }
    }
}

/// What a frame consists of.
pub(super) trait Record: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Copy {}

/// A translation prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct PrefixRecord {
    address: [u8; 16],
    length: u8,
}

/// A place that is empty.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct PlaceRecord {
    pub(super) place: U32,
}

/// A session.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct SessionRecord {
    pub(super) place: U32,
    prefix: u8,
    protocol: u8,
    state: u8,
    course: u8,
    host: [u8; 16],
    host_port: U16,
    port: U16,
    address: [u8; 4],
    remote: [u8; 4],
    remote_port: U16,
    zero: U16,
    last_seen: U64,
}

/// A port block.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct BlockRecord {
    pub(super) place: U32,
    host: [u8; 16],
    address: [u8; 4],
    first_port: U16,
    size: U16,
    given: U64,
}

/// A port that rests.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RestingRecord {
    address: [u8; 4],
    port: U16,
    protocol: u8,
    zero: u8,
    since: U64,
}

/// An address and who has it, or has had it.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct LeaseRecord {
    address: [u8; 4],
    host: [u8; 16],
    granted: U64,
    last_seen: U64,
}

impl Record for PrefixRecord {}
impl Record for PlaceRecord {}
impl Record for SessionRecord {}
impl Record for BlockRecord {}
impl Record for RestingRecord {}
impl Record for LeaseRecord {}

impl From<Prefix> for PrefixRecord {
    fn from(prefix: Prefix) -> Self {
        let net = ipnet::Ipv6Net::from(prefix);
        Self { address: net.network().octets(), length: net.prefix_len() }
    }
}

impl PrefixRecord {
    pub(super) fn prefix(&self) -> Option<Prefix> {
        let net = ipnet::Ipv6Net::new(Ipv6Addr::from(self.address), self.length).ok()?;
        net.to_string().parse().ok()
    }
}

impl PlaceRecord {
    pub(super) fn new(place: u32) -> Self {
        Self { place: place.into() }
    }
}

impl SessionRecord {
    pub(super) fn new(place: u32, saved: &SavedSession) -> Self {
        let Outbound { prefix, protocol, host, port, remote, remote_port } = saved.outbound;
        Self {
            place: place.into(),
            prefix,
            protocol: protocol as u8,
            state: saved.state as u8,
            course: saved.course.bits(),
            host: host.octets(),
            host_port: port.into(),
            port: saved.port.into(),
            address: saved.address.octets(),
            remote: remote.octets(),
            remote_port: remote_port.into(),
            zero: 0.into(),
            last_seen: saved.last_seen.as_millis().into(),
        }
    }

    /// What it stands for; `None`: nothing that there is.
    pub(super) fn session(&self) -> Option<SavedSession> {
        Some(SavedSession {
            outbound: Outbound {
                prefix: self.prefix,
                protocol: Protocol::from_number(self.protocol)?,
                host: Ipv6Addr::from(self.host),
                port: self.host_port.get(),
                remote: Ipv4Addr::from(self.remote),
                remote_port: self.remote_port.get(),
            },
            address: Ipv4Addr::from(self.address),
            port: self.port.get(),
            state: SessionState::from_number(self.state)?,
            course: Course::from_bits(self.course)?,
            last_seen: Timestamp::from_millis(self.last_seen.get()),
        })
    }
}

impl BlockRecord {
    pub(super) fn new(place: u32, saved: &SavedBlock) -> Self {
        Self {
            place: place.into(),
            host: saved.host.octets(),
            address: saved.address.octets(),
            first_port: saved.first_port.into(),
            size: saved.size.into(),
            given: saved.given.as_millis().into(),
        }
    }

    pub(super) fn block(&self) -> SavedBlock {
        SavedBlock {
            host: Ipv6Addr::from(self.host),
            address: Ipv4Addr::from(self.address),
            first_port: self.first_port.get(),
            size: self.size.get(),
            given: Timestamp::from_millis(self.given.get()),
        }
    }
}

impl From<&RestingPort> for RestingRecord {
    fn from(resting: &RestingPort) -> Self {
        Self {
            address: resting.address.octets(),
            port: resting.port.into(),
            protocol: resting.protocol as u8,
            zero: 0,
            since: resting.since.as_millis().into(),
        }
    }
}

impl RestingRecord {
    /// What it stands for; `None`: nothing that there is.
    pub(super) fn resting(&self) -> Option<RestingPort> {
        Some(RestingPort {
            protocol: Protocol::from_number(self.protocol)?,
            address: Ipv4Addr::from(self.address),
            port: self.port.get(),
            since: Timestamp::from_millis(self.since.get()),
        })
    }
}

impl From<&SavedLease> for LeaseRecord {
    fn from(lease: &SavedLease) -> Self {
        Self {
            address: lease.address.octets(),
            host: lease.host.octets(),
            granted: lease.granted.as_millis().into(),
            last_seen: lease.last_seen.as_millis().into(),
        }
    }
}

impl LeaseRecord {
    pub(super) fn lease(&self) -> SavedLease {
        SavedLease {
            host: Ipv6Addr::from(self.host),
            address: Ipv4Addr::from(self.address),
            granted: Timestamp::from_millis(self.granted.get()),
            last_seen: Timestamp::from_millis(self.last_seen.get()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_that_of_its_version() {
        assert_eq!((Header::LENGTH, FrameHeader::LENGTH), (52, 40));
        let lengths = Kind::ALL.map(Kind::record_length);
        assert_eq!(lengths, [17, 48, 4, 36, 4, 16, 36, 36, 1, 1]);
        assert_eq!(Kind::ALL.map(|kind| kind as u8), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn a_header_is_believed_only_as_it_was_written() {
        let identity = Identity { epoch: 7, generation: 3, boot: [9; 16], configuration: 5 };
        let header = Header::new(FileKind::Journal, &identity);
        assert_eq!(header.check(FileKind::Journal), Ok(identity));
        assert!(header.check(FileKind::Snapshot).unwrap_err().contains("another kind"));
        let newer = Header { version: 2.into(), ..header };
        assert!(newer.check(FileKind::Journal).unwrap_err().contains("version 2"));
        for at in 0..Header::LENGTH * 8 {
            let mut bytes = header.as_bytes().to_vec();
            bytes[at / 8] ^= 1 << (at % 8);
            let flipped = Header::read_from_bytes(&bytes).unwrap();
            assert!(flipped.check(FileKind::Journal).is_err(), "bit {at}");
        }
    }

    #[test]
    fn prefixes_come_back_as_they_were() {
        for text in ["64:ff9b::/96", "2001:db8::/32", "2001:db8:64::/56"] {
            let prefix: Prefix = text.parse().unwrap();
            assert_eq!(PrefixRecord::from(prefix).prefix(), Some(prefix));
        }
        assert_eq!(PrefixRecord { address: [1; 16], length: 200 }.prefix(), None);
    }
}
