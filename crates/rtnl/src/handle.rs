//! Requests to the kernel: reading its state and changing it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::AsyncSocket;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::desired::{Change, Plan, RouteOwner};
use crate::error::{ApplyError, Error, FailedChange};
use crate::faults::{self, Point};
use crate::snapshot::{LinkStats, Snapshot};
use crate::wire;

/// How long one request, a whole dump included, may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a dump is begun anew after a change interrupted it.
const DUMP_TRIES: u32 = 8;
/// Bounds of a snapshot. A full Internet table (about 1.3 million routes) fits; at some 120 bytes each the bound is 250
/// MB, which a host that carries such a table can afford for the moment of a comparison.
const MAX_ROUTES: usize = 2 << 20;
const MAX_LINKS: usize = 1 << 16;
const MAX_ADDRESSES: usize = 1 << 18;

mod errno {
    pub(super) const ENOENT: i32 = 2;
    pub(super) const ESRCH: i32 = 3;
    pub(super) const EEXIST: i32 = 17;
    pub(super) const ENODEV: i32 = 19;
    pub(super) const EADDRNOTAVAIL: i32 = 99;
}

/// A netlink socket for requests, bound to the network namespace of the thread that opened it.
///
/// Clones share the socket. The task that serves it ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: rtnetlink::Handle,
    _task: Arc<AbortOnDrop>,
}

#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Handle {
    /// Opens a socket and spawns the task that serves it on the current tokio runtime, which must have its I/O and time
    /// drivers on.
    pub fn open() -> Result<Self, Error> {
        faults::fails(Point::Open).map_err(Error::Open)?;
        let (mut connection, requests, _unsolicited) = rtnetlink::new_connection().map_err(Error::Open)?;
        // An ended stream alone would not tell a finished dump from a dead socket.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        // Kernels before 4.20 cannot filter by table; all that is lost then is time.
        let _ = connection.socket_mut().socket_mut().set_netlink_get_strict_chk(true);
        let task = tokio::spawn(connection);
        Ok(Self { requests, _task: Arc::new(AbortOnDrop(task)) })
    }

    /// Reads links, addresses and the main routing table.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        unless_refused(Point::Snapshot, "list the links")?;
        let links = self
            .dump(
                "links",
                MAX_LINKS,
                || RouteNetlinkMessage::GetLink(wire::link_query(None)),
                |message| match message {
                    RouteNetlinkMessage::NewLink(link) => Some(wire::link_from(&link)),
                    _ => None,
                },
            )
            .await?;
        let addresses = self
            .dump(
                "addresses",
                MAX_ADDRESSES,
                || RouteNetlinkMessage::GetAddress(AddressMessage::default()),
                |message| match message {
                    RouteNetlinkMessage::NewAddress(address) => wire::address_from(&address),
                    _ => None,
                },
            )
            .await?;
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let query = || RouteNetlinkMessage::GetRoute(wire::route_query(family));
            let dumped = self
                .dump("routes", MAX_ROUTES, query, |message| match message {
                    RouteNetlinkMessage::NewRoute(route) => wire::route_from(&route),
                    _ => None,
                })
                .await;
            match dumped {
                Ok(dumped) => routes.extend(dumped),
                // A namespace in which no route was ever made has no main table.
                Err(error) if error.errno() == Some(errno::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Snapshot { links, addresses, routes })
    }

    /// Reads the counters of one interface.
    pub async fn link_stats(&self, index: u32) -> Result<LinkStats, Error> {
        unless_refused(Point::LinkStats, "read the counters of an interface")?;
        let message = RouteNetlinkMessage::GetLink(wire::link_query(Some(index)));
        let answer = self.request("read the counters of an interface", message, NLM_F_ACK).await;
        match answer {
            Ok(messages) => messages
                .into_iter()
                .find_map(|message| match message {
                    RouteNetlinkMessage::NewLink(link) => Some(wire::link_from(&link).stats),
                    _ => None,
                })
                .ok_or(Error::NoSuchLink(index)),
            Err(error) if error.errno() == Some(errno::ENODEV) => Err(Error::NoSuchLink(index)),
            Err(error) => Err(error),
        }
    }

    /// Makes the changes of a plan one after the other and goes on after one that failed.
    ///
    /// A change whose end state is there already counts as made. Returns how many were made.
    pub async fn apply(&self, plan: &Plan) -> Result<usize, ApplyError> {
        let mut done = 0;
        let mut failed = Vec::new();
        for change in &plan.changes {
            match self.make(change).await {
                Ok(()) => done += 1,
                Err(source) => failed.push(FailedChange { change: change.clone(), source }),
            }
        }
        if failed.is_empty() { Ok(done) } else { Err(ApplyError { done, failed }) }
    }

    /// Makes one change.
    pub async fn make(&self, change: &Change) -> Result<(), Error> {
        let what = || change.to_string();
        unless_refused(point_of(change), change)?;
        match change {
            Change::SetAlias { link, alias } => {
                let message = wire::link_with(*link, LinkAttribute::IfAlias(alias.clone()));
                self.command(&what(), RouteNetlinkMessage::SetLink(message), 0).await
            }
            Change::DisableLinkLocal { link } => {
                let message = wire::link_without_link_local(*link);
                self.command(&what(), RouteNetlinkMessage::SetLink(message), 0).await
            }
            Change::SetMtu { link, mtu } => {
                let message = wire::link_with(*link, LinkAttribute::Mtu(*mtu));
                self.command(&what(), RouteNetlinkMessage::SetLink(message), 0).await
            }
            Change::SetUp { link, up } => {
                let message = wire::link_up_down(*link, *up);
                self.command(&what(), RouteNetlinkMessage::SetLink(message), 0).await
            }
            Change::RemoveAddress { link, address } => {
                let message = RouteNetlinkMessage::DelAddress(wire::address_of(*link, address));
                gone_is_fine(self.command(&what(), message, 0).await)
            }
            Change::AddAddress { link, address } => self.add_address(&what(), *link, address).await,
            Change::RemoveRoute { link, destination } => {
                let message = RouteNetlinkMessage::DelRoute(wire::route_of(*link, destination));
                gone_is_fine(self.command(&what(), message, 0).await)
            }
            Change::AddRoute { link, destination } => self.add_route(&what(), *link, destination).await,
        }
    }

    async fn add_address(&self, what: &str, link: u32, address: &IpNet) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewAddress(wire::address_of(link, address));
        match self.command(what, message, NLM_F_CREATE | NLM_F_EXCL).await {
            Err(error) if error.errno() == Some(errno::EEXIST) => {
                let snapshot = self.snapshot().await?;
                let mut same = snapshot
                    .addresses
                    .iter()
                    .filter(|found| found.link == link && found.net.addr() == address.addr());
                match same.next() {
                    Some(found) if found.net == *address => Ok(()),
                    Some(found) => Err(Error::AddressTaken { found: found.net }),
                    None => Err(error),
                }
            }
            other => other,
        }
    }

    async fn add_route(&self, what: &str, link: u32, destination: &IpNet) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewRoute(wire::route_of(link, destination));
        // CREATE with EXCL and without REPLACE: a route that somebody made since the comparison survives.
        match self.command(what, message, NLM_F_CREATE | NLM_F_EXCL).await {
            Err(error) if error.errno() == Some(errno::EEXIST) => {
                let snapshot = self.snapshot().await?;
                let destination = destination.trunc();
                let mut same = snapshot.routes.iter().filter(|route| route.destination == destination);
                if same.clone().any(|route| route.is_ours(link)) {
                    return Ok(());
                }
                match same.find(|route| route.metric == crate::ROUTE_METRIC) {
                    Some(route) => Err(Error::RouteTaken { owner: RouteOwner::of(route, &snapshot) }),
                    None => Err(error),
                }
            }
            other => other,
        }
    }

    /// Removes an interface, for example a persistent TUN device. One that is not there counts as removed.
    pub async fn remove_link(&self, index: u32) -> Result<(), Error> {
        unless_refused(Point::RemoveLink, format_args!("remove interface {index}"))?;
        let message = RouteNetlinkMessage::DelLink(wire::link_query(Some(index)));
        gone_is_fine(self.command(&format!("remove interface {index}"), message, 0).await)
    }

    async fn command(&self, what: &str, message: RouteNetlinkMessage, flags: u16) -> Result<(), Error> {
        self.request(what, message, flags | NLM_F_ACK).await.map(drop)
    }

    async fn request(
        &self,
        what: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let mut answers = Vec::new();
        self.exchange(what, message, flags | NLM_F_REQUEST, |answer| {
            answers.push(answer);
            Ok(())
        })
        .await?;
        Ok(answers)
    }

    /// Dumps until one dump was not interrupted by a change.
    async fn dump<T>(
        &self,
        what: &'static str,
        limit: usize,
        query: impl Fn() -> RouteNetlinkMessage,
        convert: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..DUMP_TRIES {
            let mut items = Vec::new();
            let consistent = self
                .exchange(&format!("list the {what}"), query(), NLM_F_REQUEST | NLM_F_DUMP, |answer| {
                    if let Some(item) = convert(answer) {
                        if items.len() == limit {
                            return Err(Error::TooMany { what, limit });
                        }
                        items.push(item);
                    }
                    Ok(())
                })
                .await?;
            if consistent {
                return Ok(items);
            }
        }
        Err(Error::Interrupted { what, tries: DUMP_TRIES })
    }

    /// Sends one message and feeds the answers to `each` until the kernel says that it is done. Returns whether the
    /// answers are consistent in themselves.
    async fn exchange(
        &self,
        what: &str,
        message: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(RouteNetlinkMessage) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let mut answers = self.requests.clone().request(request).map_err(|_| Error::Closed)?;
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let mut consistent = true;
        loop {
            let answer =
                timeout_at(deadline, answers.next()).await.map_err(|_| Error::Timeout(REQUEST_TIMEOUT))?;
            let Some(answer) = answer else { return Err(Error::Closed) };
            consistent &= answer.header.flags & NLM_F_DUMP_INTR == 0;
            match answer.payload {
                NetlinkPayload::Done(done) => {
                    return if done.code == 0 {
                        Ok(consistent)
                    } else {
                        Err(refused(what, io::Error::from_raw_os_error(done.code.abs())))
                    };
                }
                NetlinkPayload::Error(error) => {
                    return match error.code {
                        None => Ok(consistent),
                        Some(code) => {
                            Err(refused(what, io::Error::from_raw_os_error(code.get().saturating_abs())))
                        }
                    };
                }
                NetlinkPayload::Overrun(_) => consistent = false,
                NetlinkPayload::InnerMessage(inner) => each(inner)?,
                _ => {}
            }
        }
    }
}

/// Where a test can have a change refused.
const fn point_of(change: &Change) -> Point {
    match change {
        Change::SetAlias { .. }
        | Change::DisableLinkLocal { .. }
        | Change::SetMtu { .. }
        | Change::SetUp { .. } => Point::ChangeLink,
        Change::RemoveAddress { .. } => Point::RemoveAddress,
        Change::AddAddress { .. } => Point::AddAddress,
        Change::RemoveRoute { .. } => Point::RemoveRoute,
        Change::AddRoute { .. } => Point::AddRoute,
    }
}

/// An error, if a test wants this refused.
fn unless_refused(point: Point, what: impl std::fmt::Display) -> Result<(), Error> {
    faults::fails(point).map_err(|source| refused(&what.to_string(), source))
}

fn refused(what: &str, source: io::Error) -> Error {
    Error::Refused { what: what.to_owned(), source }
}

/// What was to be removed is not there, so the wanted end state is.
fn gone_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error)
            if matches!(
                error.errno(),
                Some(errno::ESRCH | errno::ENODEV | errno::EADDRNOTAVAIL | errno::ENOENT)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}
