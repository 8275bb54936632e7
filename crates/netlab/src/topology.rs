//! The laboratory of a NAT64: IPv6-only hosts, a router, an IPv4-only server.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::{Namespace, Result, veth};

/// What a [`Topology`] looks like where it departs from the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyOptions {
    /// How many client namespaces, each on a link and a /64 of its own (1 to 256).
    pub clients: u16,
    /// How many addresses each client has in its /64: `::2`, `::3`, and so on (at least 1).
    pub addresses_per_client: u16,
    /// MTU of the client links, in bytes.
    pub client_mtu: u32,
    /// MTU of the server link, in bytes.
    pub server_mtu: u32,
    /// Whether the router namespace forwards IPv4 and IPv6.
    pub forwarding: bool,
    /// IPv4 networks that the server reaches by the router in so many words, beside its default route.
    pub pools: Vec<Ipv4Net>,
}

impl Default for TopologyOptions {
    fn default() -> Self {
        Self {
            clients: 1,
            addresses_per_client: 1,
            client_mtu: 1500,
            server_mtu: 1500,
            forwarding: true,
            pools: vec![Topology::POOL],
        }
    }
}

/// One IPv6-only host.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its namespace; its link in there is called `eth0`.
    pub namespace: Namespace,
    /// Its global addresses, the first of them `::2` of its /64.
    pub addresses: Vec<Ipv6Addr>,
    /// The router's address on its link (`::1`).
    pub gateway: Ipv6Addr,
    /// The router's end of its link: `client0`, `client1`, and so on.
    pub router_link: String,
}

/// IPv6-only clients, a router and an IPv4-only server, in namespaces of their own with documentation addresses
/// (RFC 3849, RFC 5737) and default routes by the router:
///
/// ```text
/// client 0  2001:db8:1::2/64 -- 2001:db8:1::1 client0 +--------+ server 198.51.100.1 -- 198.51.100.2/24  server
/// client 1  2001:db8:2::2/64 -- 2001:db8:2::1 client1 | router |
/// ```
#[derive(Debug)]
pub struct Topology {
    /// The IPv6-only hosts, at least one.
    pub clients: Vec<Client>,
    /// Where the router runs. Links: `client0` and on, and `server`.
    pub router: Namespace,
    /// The IPv4-only host; its link is called `eth0`.
    pub server: Namespace,
}

impl Topology {
    /// The first client's network.
    pub const CLIENT_NET: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0), 64);
    /// The router's address on the first client's link.
    pub const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
    /// The first client's first address.
    pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
    /// The server's network.
    pub const SERVER_NET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 0), 24);
    /// The router's address on the server's link.
    pub const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    /// The server's address.
    pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    /// The pool that the server has a route for unless the options say otherwise.
    pub const POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 0), 24);

    /// One client with one address, MTU 1500 everywhere, a router that forwards.
    pub fn new() -> Result<Self> {
        Self::with(&TopologyOptions::default())
    }

    /// Builds the namespaces as the options say.
    pub fn with(options: &TopologyOptions) -> Result<Self> {
        if options.clients == 0 || options.clients > 256 || options.addresses_per_client == 0 {
            return Err(crate::Error::Invalid(
                "a topology has 1 to 256 clients with an address each".to_owned(),
            ));
        }
        let router = Namespace::new("router")?;
        let server = Namespace::new("server")?;
        if options.forwarding {
            router.sysctl("net.ipv4.ip_forward", "1")?;
            router.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        }

        server.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        server.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        veth(&router, "server", &server, "eth0", options.server_mtu)?;
        router.add_address("server", Ipv4Net::new_assert(Self::ROUTER_V4, 24))?;
        server.add_address("eth0", Ipv4Net::new_assert(Self::SERVER_V4, 24))?;
        server.add_route(Ipv4Net::default(), Some(Self::ROUTER_V4.into()), "eth0")?;
        for pool in &options.pools {
            server.add_route(*pool, Some(Self::ROUTER_V4.into()), "eth0")?;
        }

        let clients = (0..options.clients)
            .map(|number| client(&router, number, options))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { clients, router, server })
    }

    /// The first client's namespace.
    pub fn client(&self) -> &Namespace {
        &self.clients[0].namespace
    }
}

fn client(router: &Namespace, number: u16, options: &TopologyOptions) -> Result<Client> {
    let address = |host: u16| Ipv6Addr::new(0x2001, 0xdb8, 1 + number, 0, 0, 0, 0, host);
    let namespace = Namespace::new(&format!("client{number}"))?;
    let router_link = format!("client{number}");
    veth(router, &router_link, &namespace, "eth0", options.client_mtu)?;
    let gateway = address(1);
    router.add_address(&router_link, Ipv6Net::new_assert(gateway, 64))?;
    let addresses: Vec<_> =
        (0..options.addresses_per_client).map(|host| address(host.saturating_add(2))).collect();
    for address in &addresses {
        namespace.add_address("eth0", Ipv6Net::new_assert(*address, 64))?;
    }
    namespace.add_route(Ipv6Net::default(), Some(gateway.into()), "eth0")?;
    Ok(Client { namespace, addresses, gateway, router_link })
}
