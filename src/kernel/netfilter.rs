//! Conversations with the kernel's `nf_tables` over a netlink socket: one transaction, or one dump.
//!
//! nfnetlink works off a request inside the `send` call and has queued every answer when that returns; a dump is
//! continued inside `recv`. So the socket never blocks, and "nothing to read" means that the answer is complete, or
//! that there is none.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily, NetfilterSubsystem,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

/// How often a dump is begun anew after a change interrupted it.
const DUMP_TRIES: u32 = 8;
/// Bound of a dump. Hosts with many containers have some ten thousand rules.
const MAX_MESSAGES: usize = 1 << 20;

mod errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const ENOENT: i32 = 2;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const EPROTONOSUPPORT: i32 = 93;
    pub(super) const EOPNOTSUPP: i32 = 95;
}

/// What can go wrong with `nf_tables`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetfilterError {
    /// The kernel was built without `nf_tables`, or its module is not there.
    #[error(
        "this kernel has no nf_tables; load it (`modprobe nf_tables`) or run without masquerade (--pool-prefix without --masquerade)"
    )]
    NoNfTables,
    /// The kernel knows `nf_tables`, but not the parts for source NAT.
    #[error(
        "this kernel's nf_tables cannot masquerade; load the modules (`modprobe -a nft_chain_nat nft_masq`) or run without masquerade"
    )]
    NoMasquerade,
    /// The process may not.
    #[error("changing nftables needs CAP_NET_ADMIN; run as root or grant that capability")]
    NotPermitted,
    /// The kernel refused for another reason.
    #[error("the kernel refused to {what}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Its reason.
        #[source]
        source: io::Error,
    },
    /// The socket failed.
    #[error("cannot {what} over the netfilter socket")]
    Socket {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel said something that cannot be read.
    #[error("cannot read the kernel's answer: {0}")]
    Malformed(String),
    /// The kernel did not confirm.
    #[error("the kernel did not answer the request to {0}")]
    NoAnswer(&'static str),
    /// There is more than is read.
    #[error("nftables holds more than {MAX_MESSAGES} objects")]
    TooMany,
    /// The rules kept changing while they were read.
    #[error("the nftables rules kept changing while they were read")]
    Interrupted,
}

fn refused(what: &'static str, code: i32) -> NetfilterError {
    match code {
        errno::EPERM => NetfilterError::NotPermitted,
        errno::EOPNOTSUPP | errno::EPROTONOSUPPORT => NetfilterError::NoNfTables,
        _ => NetfilterError::Refused { what, source: io::Error::from_raw_os_error(code) },
    }
}

impl NetfilterError {
    /// Whether the object asked for is not there.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if source.raw_os_error() == Some(errno::ENOENT))
    }
}

fn open() -> Result<Socket, NetfilterError> {
    let failed = |what| {
        move |source: io::Error| match source.raw_os_error() {
            Some(errno::EPROTONOSUPPORT) => NetfilterError::NoNfTables,
            _ => NetfilterError::Socket { what, source },
        }
    };
    let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed("open"))?;
    socket.bind_auto().map_err(failed("bind"))?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect"))?;
    socket.set_non_blocking(true).map_err(failed("set up"))?;
    Ok(socket)
}

fn send(socket: &Socket, bytes: &[u8]) -> Result<(), NetfilterError> {
    let sent = socket.send(bytes, 0).map_err(|source| match source.raw_os_error() {
        Some(errno::EPERM) => NetfilterError::NotPermitted,
        _ => NetfilterError::Socket { what: "send", source },
    })?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(NetfilterError::Malformed(format!("{sent} of {} bytes were taken", bytes.len())))
    }
}

/// The messages of the next datagram; `None` when nothing waits.
fn receive(socket: &Socket) -> Result<Option<Vec<NetlinkMessage<NetfilterMessage>>>, NetfilterError> {
    let datagram = match socket.recv_from_full() {
        Ok((datagram, _)) => datagram,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(source) => return Err(NetfilterError::Socket { what: "receive", source }),
    };
    let malformed = |error: netlink_packet_core::DecodeError| NetfilterError::Malformed(error.to_string());
    let mut messages = Vec::new();
    let mut rest = datagram.as_slice();
    while !rest.is_empty() {
        // A checked length is at least the header's and at most what is left, so this always advances.
        let length = NetlinkBuffer::new_checked(rest).map_err(malformed)?.length() as usize;
        messages.push(NetlinkMessage::deserialize(rest).map_err(malformed)?);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Some(messages))
}

fn push<M: Into<NetfilterMessageInner>>(
    bytes: &mut Vec<u8>,
    sequence: u32,
    flags: u16,
    header: NetfilterHeader,
    message: M,
) {
    let mut message = NetlinkMessage::from(NetfilterMessage::new(header, message));
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len(), 0);
    message.serialize(&mut bytes[start..]);
}

/// Makes all changes or none (`NFNL_MSG_BATCH_BEGIN` ... `END`). Each step is a message with its flags.
pub(super) fn transaction(
    what: &'static str,
    family: NetfilterProtoFamily,
    steps: Vec<(NfTablesMessage, u16)>,
) -> Result<(), NetfilterError> {
    let socket = open()?;
    let batch =
        || NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NetfilterSubsystem::NfTables.into_id());
    let mut bytes = Vec::new();
    let mut sequence = 1;
    push(&mut bytes, sequence, 0, batch(), ControlMessage::BatchBegin);
    let count = steps.len();
    for (index, (message, flags)) in steps.into_iter().enumerate() {
        sequence += 1;
        // Failures are always reported; one acknowledgement is enough to know that the kernel got to the end.
        let ack = if index + 1 == count { NLM_F_ACK } else { 0 };
        push(&mut bytes, sequence, flags | ack, NetfilterHeader::new(family, 0, 0), message);
    }
    let last = sequence;
    push(&mut bytes, sequence + 1, 0, batch(), ControlMessage::BatchEnd);
    send(&socket, &bytes)?;

    let mut acknowledged = false;
    while let Some(messages) = receive(&socket)? {
        for message in messages {
            if let NetlinkPayload::Error(error) = message.payload {
                match error.code {
                    Some(code) => return Err(refused(what, code.get().saturating_abs())),
                    None => acknowledged |= message.header.sequence_number == last,
                }
            }
        }
    }
    if acknowledged { Ok(()) } else { Err(NetfilterError::NoAnswer(what)) }
}

/// One object of a dump with its family.
pub(super) type Dumped = (NetfilterProtoFamily, NfTablesMessage);

/// Lists objects. `Unspec` lists those of all families.
pub(super) fn dump(
    what: &'static str,
    family: NetfilterProtoFamily,
    query: &NfTablesMessage,
) -> Result<Vec<Dumped>, NetfilterError> {
    for _ in 0..DUMP_TRIES {
        if let Some(objects) = dump_once(what, family, query)? {
            return Ok(objects);
        }
    }
    Err(NetfilterError::Interrupted)
}

/// `None` when a change interrupted the dump.
fn dump_once(
    what: &'static str,
    family: NetfilterProtoFamily,
    query: &NfTablesMessage,
) -> Result<Option<Vec<Dumped>>, NetfilterError> {
    let socket = open()?;
    let mut bytes = Vec::new();
    push(&mut bytes, 1, NLM_F_DUMP, NetfilterHeader::new(family, 0, 0), query.clone());
    send(&socket, &bytes)?;
    let mut objects = Vec::new();
    let mut consistent = true;
    while let Some(messages) = receive(&socket)? {
        for message in messages {
            consistent &= message.header.flags & NLM_F_DUMP_INTR == 0;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(consistent.then_some(objects)),
                NetlinkPayload::Error(error) => {
                    return match error.code.map(|code| code.get().saturating_abs()) {
                        // What nfnetlink answers for a subsystem that is not there.
                        Some(errno::EINVAL) => Err(NetfilterError::NoNfTables),
                        Some(code) => Err(refused(what, code)),
                        None => Ok(Some(objects)),
                    };
                }
                NetlinkPayload::InnerMessage(message) => {
                    if let NetfilterMessageInner::NfTables(object) = message.inner {
                        if objects.len() == MAX_MESSAGES {
                            return Err(NetfilterError::TooMany);
                        }
                        objects.push((message.header.family, object));
                    }
                }
                _ => {}
            }
        }
    }
    Err(NetfilterError::NoAnswer(what))
}

trait SubsystemId {
    fn into_id(self) -> u16;
}

impl SubsystemId for NetfilterSubsystem {
    fn into_id(self) -> u16 {
        u16::from(u8::from(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        assert!(matches!(refused("x", errno::EPERM), NetfilterError::NotPermitted));
        assert!(matches!(refused("x", errno::EOPNOTSUPP), NetfilterError::NoNfTables));
        assert!(refused("x", errno::ENOENT).is_missing());
        assert!(!refused("x", errno::EINVAL).is_missing());
        assert!(refused("x", errno::EOPNOTSUPP).to_string().contains("modprobe"));
    }

    #[test]
    fn messages_are_laid_one_behind_the_other_with_their_lengths() {
        let mut bytes = Vec::new();
        let header = || NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 10);
        push(&mut bytes, 1, 0, header(), ControlMessage::BatchBegin);
        push(&mut bytes, 2, NLM_F_ACK, header(), ControlMessage::BatchEnd);
        assert_eq!(bytes.len(), 40);
        assert_eq!(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), 20);
        // nfgenmsg.res_id names the subsystem, in network byte order.
        assert_eq!(&bytes[16..20], &[0, 0, 0, 10]);
    }
}
