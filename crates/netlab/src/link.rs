//! Links, addresses and routes, over a netlink socket opened inside the namespace.

use std::future::Future;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use futures::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth};
use netlink_packet_route::route::RouteType;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::{Error, Namespace, Result};

/// How long the kernel may take to answer one netlink request; it answers in microseconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// How long the kernel may take to make an IPv6 address its own; it takes a millisecond, or several on a busy machine.
const LOCAL_LIMIT: Duration = Duration::from_secs(5);

/// How often that is looked at.
const LOCAL_PACE: Duration = Duration::from_millis(1);

/// Joins two namespaces by a veth pair, both ends up, both with this MTU (bytes). No addresses yet.
pub fn veth(a: &Namespace, name_a: &str, b: &Namespace, name_b: &str, mtu: u32) -> Result<()> {
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(name_b.to_owned())
        .mtu(mtu)
        .setns_by_fd(b.as_fd().as_raw_fd())
        .build();
    let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(name_a.to_owned())
        .mtu(mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    let action = format!("joining {name_a} in {} and {name_b} in {}", a.label(), b.label());
    a.request(&action, |handle| async move { handle.link().add(pair).execute().await })?;
    a.up(name_a)?;
    b.up(name_b)
}

impl Namespace {
    /// Brings a link up.
    pub fn up(&self, link: &str) -> Result<()> {
        let index = self.index(link)?;
        let message = LinkUnspec::new_with_index(index).up().build();
        self.request(&format!("bringing up {link}"), |handle| async move {
            handle.link().set(message).execute().await
        })
    }

    /// Takes a link down.
    pub fn down(&self, link: &str) -> Result<()> {
        let index = self.index(link)?;
        let message = LinkUnspec::new_with_index(index).down().build();
        self.request(&format!("taking down {link}"), |handle| async move {
            handle.link().set(message).execute().await
        })
    }

    /// Removes a link, and the other end of it if it is a veth.
    pub fn delete_link(&self, link: &str) -> Result<()> {
        let index = self.index(link)?;
        self.request(
            &format!("removing {link}"),
            |handle| async move { handle.link().del(index).execute().await },
        )
    }

    /// Sets a link's MTU, in bytes.
    pub fn set_mtu(&self, link: &str, mtu: u32) -> Result<()> {
        let index = self.index(link)?;
        let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
        self.request(&format!("setting the MTU of {link} to {mtu}"), |handle| async move {
            handle.link().set(message).execute().await
        })
    }

    /// The kernel's index of a link. [`Error::System`] with `ENODEV` where there is none of that name.
    pub fn index(&self, link: &str) -> Result<u32> {
        self.try_run(|| nix::net::if_::if_nametoindex(link))?.map_err(|error| {
            Error::system(format!("looking for link {link} in namespace {}", self.label()), error)
        })
    }

    /// Gives a link that is up an address with its prefix length. Afterwards it is usable at once: no duplicate address
    /// detection (RFC 4862 section 5.4) is made, and the kernel takes packets for it.
    pub fn add_address(&self, link: &str, address: impl Into<IpNet>) -> Result<()> {
        let address = address.into();
        let index = self.index(link)?;
        self.request(&format!("adding {address} to {link}"), |handle| async move {
            let mut request = handle.address().add(index, address.addr(), address.prefix_len());
            if address.addr().is_ipv6() {
                let message = request.message_mut();
                message.header.flags |= AddressHeaderFlags::Nodad;
                message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
            request.execute().await?;
            if let IpAddr::V6(address) = address.addr() {
                // On a link that is down the kernel never gets so far, and that is no error.
                let _ = tokio::time::timeout(LOCAL_LIMIT, until_local(&handle, address)).await;
            }
            Ok(())
        })
    }

    /// Adds a route to the main table, by a gateway or, without one, on the link itself. `0.0.0.0/0` and `::/0` are
    /// the default routes.
    pub fn add_route(&self, destination: impl Into<IpNet>, via: Option<IpAddr>, link: &str) -> Result<()> {
        let destination = destination.into();
        let action = format!("adding a route to {destination} by {link}");
        let refused = |error| Error::Invalid(format!("{action}: {error}"));
        let mut route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination.network(), destination.prefix_len())
            .map_err(refused)?
            .output_interface(self.index(link)?);
        if let Some(gateway) = via {
            route = route.gateway(gateway).map_err(refused)?;
        }
        let route = route.build();
        self.request(&action, |handle| async move { handle.route().add(route).execute().await })
    }

    /// Runs one netlink request on a socket inside the namespace.
    fn request<F, W>(&self, action: &str, work: W) -> Result<()>
    where
        W: FnOnce(Handle) -> F + Send,
        F: Future<Output = std::result::Result<(), rtnetlink::Error>> + Send,
    {
        let action = format!("{action} in namespace {}", self.label());
        self.try_block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()
                .map_err(|error| Error::system("opening a route netlink socket", error))?;
            let connection = tokio::spawn(connection);
            let answer = tokio::time::timeout(ANSWER_LIMIT, work(handle)).await;
            connection.abort();
            match answer {
                Ok(answer) => answer.map_err(|error| Error::netlink(action, error)),
                Err(_) => Err(Error::Timeout { action, limit: ANSWER_LIMIT }),
            }
        })?
    }
}

/// Waits until packets to this address are taken in. The request that adds an address is answered before that: the local
/// route is made by a kernel thread of its own, and until then a packet for the address is lost.
async fn until_local(handle: &Handle, address: Ipv6Addr) {
    let question = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128).build();
    loop {
        // "Unreachable" is an answer, too: not yet.
        let answer = handle.route().get(question.clone()).execute().try_next().await;
        if answer.is_ok_and(|route| route.is_some_and(|route| route.header.kind == RouteType::Local)) {
            return;
        }
        tokio::time::sleep(LOCAL_PACE).await;
    }
}
