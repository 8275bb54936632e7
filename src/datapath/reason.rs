//! Why a packet was not forwarded.
//!
//! The names are, word for word, the metric label and the log field. What is wrong with a packet itself is named by
//! [`interproto::DropReason`]; the rest is the router's own.

use interproto::{Icmpv4Error, Icmpv6Error};

use super::fragments;

/// Why a packet was not forwarded. Every packet that is not ends in exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The packet itself cannot be translated (RFC 7915).
    Packet(interproto::DropReason),
    /// The router refuses it.
    Router(Refusal),
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident => $word:literal, $clause:literal, $v6:expr, $v4:expr;)+) => {
        /// Why the router refuses a packet that could be translated.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Refusal { $($(#[$doc])* $name,)+ }

        impl Refusal {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word in metrics and logs.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// The RFC and section that ask for it.
            pub const fn clause(self) -> &'static str {
                match self { $(Self::$name => $clause,)+ }
            }

            /// The ICMPv6 error that a sender on the IPv6 side is told, or `None`: silent.
            pub const fn answer_v6(self) -> Option<Icmpv6Error> {
                match self { $(Self::$name => $v6,)+ }
            }

            /// The ICMPv4 error that a sender on the IPv4 side is told, or `None`: silent.
            pub const fn answer_v4(self) -> Option<Icmpv4Error> {
                match self { $(Self::$name => $v4,)+ }
            }
        }
    };
}

/// ICMPv6 Destination Unreachable, "communication with destination administratively prohibited" (RFC 4443 §3.1).
const PROHIBITED: Option<Icmpv6Error> = Some(Icmpv6Error::DestinationUnreachable { code: 1 });
/// ICMPv6 Destination Unreachable, "address unreachable" (RFC 6146 §3.5.1.1: no binding could be made).
const UNREACHABLE: Option<Icmpv6Error> = Some(Icmpv6Error::DestinationUnreachable { code: 3 });
/// ICMPv4 Destination Unreachable, "host unreachable" (RFC 6146 §3.5.1.2: no binding exists).
const HOST_UNREACHABLE: Option<Icmpv4Error> = Some(Icmpv4Error::DestinationUnreachable { code: 1 });

/// ICMPv4 Destination Unreachable, "communication administratively prohibited" (RFC 1812 §5.2.7.1).
const FILTERED: Option<Icmpv4Error> = Some(Icmpv4Error::DestinationUnreachable { code: 13 });

refusals! {
    /// Neither IPv4 nor IPv6.
    NotIp => "not_ip", "none", None, None;
    /// An IPv6 packet whose destination lies outside the translation prefix: the kernel routed it here by mistake.
    NotInPrefix => "not_in_prefix", "RFC 6146 §3.5", None, None;
    /// An IPv6 source inside the translation prefix: forged, or a loop (RFC 6146 §3.5).
    SourceInPrefix => "source_in_prefix", "RFC 6146 §3.5", None, None;
    /// A source that is no single host elsewhere: link-local, multicast, loopback, unspecified or reserved.
    SourceNotEligible => "source_not_eligible", "RFC 6146 §3.5, RFC 4443 §2.4 (e)", None, None;
    /// An IPv6 source outside `allow_from`.
    SourceNotAllowed => "source_not_allowed", "RFC 4443 §3.1", PROHIBITED, None;
    /// An IPv4 destination inside `deny_to`, the built-in list or the router's own addresses.
    DestinationDenied => "destination_denied", "RFC 4443 §3.1", PROHIBITED, None;
    /// A non-global IPv4 address under the well-known prefix (RFC 6052 §3.1), and `allow_non_global` is off.
    NonGlobal => "non_global", "RFC 6052 §3.1", PROHIBITED, None;
    /// No address is free in the pool. New hosts only: those with a lease go on.
    PoolExhausted => "pool_exhausted", "RFC 6146 §3.5.1.1", UNREACHABLE, None;
    /// The sender's /64 already holds as many leases as it may (`max_leases_per_subnet`).
    SubnetLimit => "subnet_limit", "RFC 6888 REQ-4", PROHIBITED, None;
    /// The table of leases, or that of sessions, is at its bound.
    TableFull => "table_full", "RFC 6146 §3.5.1.1, RFC 6888 REQ-11", UNREACHABLE, HOST_UNREACHABLE;
    /// More new hosts, or more first packets of one, than may wait for a lease.
    HoldFull => "hold_full", "none", None, None;
    /// No lease came within the time that a first packet may wait.
    HoldTimeout => "hold_timeout", "RFC 6146 §3.5.1.1", UNREACHABLE, None;
    /// An IPv4 packet to an address that nobody holds.
    NoBinding => "no_binding", "RFC 6146 §3.5.1.2", None, HOST_UNREACHABLE;
    /// An IPv4 packet that filtering keeps out: its host has sent nothing to this address (`sessions.filtering`). Silent where
    /// `sessions.answer_filtered` is off.
    Filtered => "filtered", "RFC 6146 §3.5.1.2, §3.5.2.2", None, FILTERED;
    /// TCP that opens no connection and belongs to none.
    NoSession => "no_session", "RFC 6146 §3.5.2.2", None, None;
    /// A TCP SYN from the IPv4 side that is kept in case its host opens the same connection. If that does not, port unreachable
    /// is sent later.
    SynStored => "syn_stored", "RFC 6146 §3.5.2.2, RFC 5382 REQ-4", None, None;
    /// A TCP SYN from the IPv4 side to a port that nobody has, and there was no room to keep it.
    SynUnwanted => "syn_unwanted", "RFC 5382 REQ-4", None, None;
    /// The sender's subscriber holds as many sessions as it may (`quota.sessions`).
    SessionQuota => "session_quota", "RFC 6888 REQ-4, REQ-11", PROHIBITED, HOST_UNREACHABLE;
    /// The sender's subscriber opens sessions faster than it may (`quota.new_sessions_per_second`).
    RateQuota => "rate_quota", "RFC 6888 REQ-5, REQ-11", PROHIBITED, HOST_UNREACHABLE;
    /// The sender's subscriber has as many ports as it may (`quota.ports`).
    PortQuota => "port_quota", "RFC 6888 REQ-4", PROHIBITED, None;
    /// A protocol without ports, or one whose ports are not translated, of a host that shares its address.
    ProtocolNotShared => "protocol_not_shared", "RFC 6146 §3.5", PROHIBITED, None;
    /// A host with an address for itself has sent to another translation prefix than that of its pool: the answers could not be told
    /// apart (`translation_prefix` of the pool).
    PrefixNotServed => "prefix_not_served", "RFC 6052 §3.3", PROHIBITED, None;
    /// No allocation record could be written, and nothing is given out without one (`records.when_full = "wait"`).
    RecordsFull => "records_full", "RFC 6888 REQ-12", UNREACHABLE, None;
    /// A fragment that overlaps another one of its datagram, or contradicts it.
    FragmentOverlap => "fragment_overlap", "RFC 5722 §4", None, None;
    /// A fragment that has come before.
    FragmentDuplicate => "fragment_duplicate", "RFC 8200 §4.5", None, None;
    /// A fragment that can be a part of no datagram.
    FragmentMalformed => "fragment_malformed", "RFC 8200 §4.5", None, None;
    /// A fragment of a datagram that has more of them than one may have.
    FragmentTooMany => "fragment_too_many", "RFC 6146 §3.4", None, None;
    /// The oldest fragments of a full buffer (`fragments.memory`).
    FragmentBufferFull => "fragment_buffer_full", "RFC 6146 §3.4", None, None;
    /// The oldest fragments of a source that has its share of the buffer.
    FragmentSourceShare => "fragment_source_share", "RFC 6146 §3.4", None, None;
    /// Fragments of which some say that there is congestion and others cannot be told.
    FragmentMixedEcn => "fragment_mixed_ecn", "RFC 3168 §5.3", None, None;
    /// Fragments whose datagram was not complete in time (`timers.fragment`).
    FragmentTimeout => "fragment_timeout", "RFC 6146 §3.4", None, None;
    /// An ICMP error about a packet that nobody behind this router sent.
    UnrelatedError => "unrelated_error", "RFC 5508 REQ-4", None, None;
    /// The worker was replaced while it had this packet in hand.
    Superseded => "superseded", "none", None, None;
    /// The device did not take the translated packet.
    WriteFailed => "write_failed", "none", None, None;
}

impl From<fragments::FragmentRefusal> for Refusal {
    fn from(refusal: fragments::FragmentRefusal) -> Self {
        use fragments::FragmentRefusal as Fragment;
        match refusal {
            Fragment::Overlap => Self::FragmentOverlap,
            Fragment::Duplicate => Self::FragmentDuplicate,
            Fragment::Malformed => Self::FragmentMalformed,
            Fragment::TooManyFragments => Self::FragmentTooMany,
            Fragment::BufferFull => Self::FragmentBufferFull,
            Fragment::SourceShare => Self::FragmentSourceShare,
            Fragment::MixedEcn => Self::FragmentMixedEcn,
            Fragment::TimedOut => Self::FragmentTimeout,
        }
    }
}

impl DropReason {
    /// How many there are: the length of a table of counters.
    pub const COUNT: usize = interproto::DropReason::ALL.len() + Refusal::ALL.len();

    /// All of them, by [`Self::index`].
    pub fn all() -> impl Iterator<Item = Self> {
        let packet = interproto::DropReason::ALL.iter().copied().map(Self::Packet);
        packet.chain(Refusal::ALL.iter().copied().map(Self::Router))
    }

    /// The place in a table of counters.
    pub const fn index(self) -> usize {
        match self {
            Self::Packet(reason) => reason as usize,
            Self::Router(refusal) => interproto::DropReason::ALL.len() + refusal as usize,
        }
    }

    /// The word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Packet(reason) => reason.as_str(),
            Self::Router(refusal) => refusal.as_str(),
        }
    }

    /// The RFC and section that ask for it; `none` where no RFC is concerned.
    pub const fn clause(self) -> &'static str {
        match self {
            Self::Packet(reason) => reason.clause(),
            Self::Router(refusal) => refusal.clause(),
        }
    }

    /// What a sender on the IPv6 side is told.
    pub fn answer_v6(self) -> Option<Icmpv6Error> {
        match self {
            Self::Packet(reason) => reason.answer_v6(),
            Self::Router(refusal) => refusal.answer_v6(),
        }
    }

    /// What a sender on the IPv4 side is told.
    pub fn answer_v4(self) -> Option<Icmpv4Error> {
        match self {
            Self::Packet(reason) => reason.answer_v4(),
            Self::Router(refusal) => refusal.answer_v4(),
        }
    }
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<interproto::DropReason> for DropReason {
    fn from(reason: interproto::DropReason) -> Self {
        Self::Packet(reason)
    }
}

impl From<Refusal> for DropReason {
    fn from(refusal: Refusal) -> Self {
        Self::Router(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::fmt::Write as _;

    #[test]
    fn every_reason_has_its_own_index_and_its_own_word() {
        let all: Vec<_> = DropReason::all().collect();
        assert_eq!(all.len(), DropReason::COUNT);
        assert!(all.iter().enumerate().all(|(place, reason)| reason.index() == place));
        assert_eq!(all.iter().map(|reason| reason.as_str()).collect::<HashSet<_>>().len(), all.len());
    }

    fn in_v6(answer: Option<Icmpv6Error>) -> String {
        match answer {
            None => "silent".to_owned(),
            Some(Icmpv6Error::DestinationUnreachable { code }) => format!("1/{code} Destination Unreachable"),
            Some(Icmpv6Error::PacketTooBig) => "2/0 Packet Too Big".to_owned(),
            Some(Icmpv6Error::TimeExceeded) => "3/0 Time Exceeded".to_owned(),
            Some(Icmpv6Error::RoutingHeader) => "4/0 Parameter Problem, at Segments Left".to_owned(),
            Some(Icmpv6Error::IncompleteHeaderChain) => "4/3 Parameter Problem".to_owned(),
        }
    }

    fn in_v4(answer: Option<Icmpv4Error>) -> String {
        match answer {
            None => "silent".to_owned(),
            Some(Icmpv4Error::DestinationUnreachable { code }) => format!("3/{code} Destination Unreachable"),
            Some(Icmpv4Error::FragmentationNeeded) => "3/4 Fragmentation Needed".to_owned(),
            Some(Icmpv4Error::TimeExceeded) => "11/0 Time Exceeded".to_owned(),
        }
    }

    /// The table in the documentation is the one in the code. With `PROTOMASK_WRITE_DOCS=1` it is written.
    #[test]
    fn the_documented_table_of_drop_reasons_is_the_one_in_the_code() {
        const MARK: &str = "| reason |";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/drop-reasons.md");
        let documented = std::fs::read_to_string(path).unwrap();
        let (prose, _) = documented.split_once(MARK).unwrap();
        let mut table =
            format!("{MARK} clause | a sender on the IPv6 side is told | ... on the IPv4 side |\n");
        table.push_str("| --- | --- | --- | --- |\n");
        for reason in DropReason::all() {
            let (v6, v4) = (in_v6(reason.answer_v6()), in_v4(reason.answer_v4()));
            writeln!(table, "| `{reason}` | {} | {v6} | {v4} |", reason.clause()).unwrap();
        }
        let expected = format!("{prose}{table}");
        if std::env::var_os("PROTOMASK_WRITE_DOCS").is_some() {
            std::fs::write(path, &expected).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap() == expected,
            "docs/drop-reasons.md is not what the code says; PROTOMASK_WRITE_DOCS=1 writes it"
        );
    }
}
