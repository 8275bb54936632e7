//! Announcements of the kernel: links, addresses and routes of both families as they change.
//!
//! ```text
//! kernel --(socket buffer)--> drain task --(coalescing set, at most MAX_PENDING)--> Watcher::next
//! ```
//!
//! rtnetlink's own event channel has no bound, so the socket is read here. Equal events that wait are one event; when
//! more different ones wait than the bound allows, they become one [`Event::Overrun`].

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::error::Error;
use crate::faults::{self, Point};
use crate::wire;

/// How many different events may wait to be taken.
pub const MAX_PENDING: usize = 256;

/// Something changed. An event says where to look, not what is there now: take a [`Snapshot`](crate::Snapshot).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// The kernel or this watcher could not keep up and events were lost: compare everything.
    Overrun,
    /// An interface appeared, changed or went.
    Link {
        /// Its index.
        index: u32,
    },
    /// An address of an interface appeared, changed or went.
    Address {
        /// Index of the interface.
        link: u32,
    },
    /// A route of the main table appeared, changed or went.
    Route {
        /// Index of the interface it leaves by; `None` for one that drops.
        link: Option<u32>,
    },
}

#[derive(Debug, Default)]
struct Pending {
    events: BTreeSet<Event>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // A set of small values is whole even if its last user panicked.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, event: Event) {
        {
            let mut pending = self.lock();
            if event == Event::Overrun || pending.events.len() >= MAX_PENDING {
                // "Compare everything" contains whatever else waits.
                pending.events.clear();
                pending.events.insert(Event::Overrun);
            } else if !pending.events.contains(&Event::Overrun) {
                pending.events.insert(event);
            }
        }
        self.changed.notify_one();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }
}

/// Watches the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Watcher {
    /// Subscribes and spawns the task that reads the socket on the current tokio runtime.
    ///
    /// Changes after the return are seen; open it before taking the snapshot that they are held against.
    pub fn open() -> Result<Self, Error> {
        faults::fails(Point::Watch).map_err(Error::Open)?;
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(Error::Open)?;
        socket.socket_mut().bind(&SocketAddr::new(0, groups())).map_err(Error::Open)?;
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(drain(socket, Arc::clone(&shared)));
        Ok(Self { shared, task })
    }

    /// Waits for the next event. `None` when the socket failed and no event will come any more; open a new watcher then.
    ///
    /// Dropping the returned future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            {
                let mut pending = self.shared.lock();
                if let Some(event) = pending.events.pop_first() {
                    return Some(event);
                }
                if pending.closed {
                    return None;
                }
            }
            self.shared.changed.notified().await;
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn groups() -> u32 {
    use rtnetlink::MulticastGroup as Group;
    [Group::Link, Group::Ipv4Ifaddr, Group::Ipv6Ifaddr, Group::Ipv4Route, Group::Ipv6Route]
        .into_iter()
        .fold(0, |mask, group| mask | 1 << (group as u32 - 1))
}

async fn drain(socket: TokioSocket, shared: Arc<Shared>) {
    loop {
        let received = socket.recv_from_full().await;
        match faults::fails(Point::Event).and(received) {
            Ok((datagram, _)) if datagram.is_empty() => break,
            Ok((datagram, _)) => events_in(&datagram, |event| shared.push(event)),
            Err(error) if is_overrun(&error) => shared.push(Event::Overrun),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    shared.close();
}

fn is_overrun(error: &io::Error) -> bool {
    const ENOBUFS: i32 = 105;
    error.raw_os_error() == Some(ENOBUFS)
}

/// Reads one datagram, which may hold several messages.
fn events_in(datagram: &[u8], mut push: impl FnMut(Event)) {
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(header) = NetlinkBuffer::new_checked(rest) else {
            // What cannot be read may have been a change.
            push(Event::Overrun);
            return;
        };
        let length = header.length() as usize;
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) {
            Ok(message) => {
                if let Some(event) = event_of(&message.payload) {
                    push(event);
                }
            }
            Err(_) => push(Event::Overrun),
        }
        // Messages are padded to four bytes; a checked header is never shorter than itself, so this always advances.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn event_of(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Event> {
    match payload {
        NetlinkPayload::Overrun(_) => Some(Event::Overrun),
        NetlinkPayload::InnerMessage(message) => match message {
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
                Some(Event::Link { index: link.header.index })
            }
            RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
                Some(Event::Address { link: address.header.index })
            }
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                wire::route_from(route).map(|route| Event::Route { link: route.link() })
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests;
