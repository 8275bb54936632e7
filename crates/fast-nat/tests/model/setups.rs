//! Configurations in which everything is scarce.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::api::{
    BlockPoolConfig, DeterministicConfig, DeterministicNet, Filtering, Lanes, NatConfig, PortNet, Quota,
    Timers,
};

use super::run::Setup;

/// The size of all blocks.
const BLOCK: u16 = 16;

fn nat() -> NatConfig {
    NatConfig {
        max_sessions: 40,
        max_bindings: 30,
        max_hosts: 5,
        max_blocks: 9,
        max_stored_syns: 4,
        filtering: Filtering::EndpointIndependent,
        timers: Timers {
            // A twentieth of a tick more than whole ones: rounded up.
            icmp: Duration::from_millis(60_005),
            ..Timers::DEFAULT
        },
        quota: Quota { sessions: 18, new_sessions_per_second: 1, burst: 5 },
        subscriber_prefix_len: 64,
        lease_prefix_len: 128,
        low_ports: true,
        lanes: Lanes::ONE,
        max_resting_ports: u16::MAX,
        events: 48,
        track_changes: true,
        seed: None,
    }
}

fn pool() -> BlockPoolConfig {
    BlockPoolConfig {
        nets: vec![PortNet {
            net: "198.51.100.0/29".parse().unwrap(),
            // One block of low ports and three of high ones for each address.
            first_port: 1024 - BLOCK,
            last_port: 1024 + 3 * BLOCK - 1,
            reserved_ports: vec![1023, 1030, 1031],
        }],
        block_size: BLOCK,
        max_ports_per_subscriber: u32::from(BLOCK) * 5,
        reserved_addresses: [4, 5, 6].map(|last| Ipv4Addr::new(198, 51, 100, last)).to_vec(),
        reserved_endpoints: vec![(Ipv4Addr::new(198, 51, 100, 2), 1040)],
        seed: None,
    }
}

/// A subscriber has the ports of one block and no more.
fn tight_pool() -> BlockPoolConfig {
    BlockPoolConfig { max_ports_per_subscriber: BLOCK.into(), ..pool() }
}

/// Four blocks of each of two addresses.
fn computed_pool() -> BlockPoolConfig {
    let mut pool = pool();
    pool.nets[0].net = "203.0.113.16/31".parse().unwrap();
    pool.nets[0].first_port = 1024;
    pool.nets[0].last_port = 1024 + 4 * BLOCK - 1;
    pool.reserved_addresses.clear();
    pool
}

/// A few blocks of one address: both are soon exhausted.
fn small_pool() -> BlockPoolConfig {
    BlockPoolConfig {
        nets: vec![PortNet {
            net: "203.0.113.16/32".parse().unwrap(),
            first_port: 1024 - BLOCK,
            last_port: 1024 + 4 * BLOCK - 1,
            reserved_ports: vec![1025],
        }],
        max_ports_per_subscriber: u32::from(BLOCK) * 4,
        reserved_addresses: Vec::new(),
        reserved_endpoints: Vec::new(),
        ..pool()
    }
}

/// Two networks; in the second one the blocks are not whole.
fn ragged_pool() -> BlockPoolConfig {
    let mut pool = pool();
    pool.nets[0].net = "198.51.100.0/30".parse().unwrap();
    pool.nets.push(PortNet {
        net: "203.0.113.16/31".parse().unwrap(),
        first_port: 1024 - 4,
        last_port: 1024 + BLOCK + 4,
        reserved_ports: Vec::new(),
    });
    pool.reserved_addresses.clear();
    pool
}

/// Two blocks of one address for each subscriber but the last one of `HOSTS`, by computation.
fn plan(pool: &BlockPoolConfig) -> DeterministicConfig {
    let net = &pool.nets[0];
    DeterministicConfig {
        hosts: vec!["2001:db8::/62".parse().unwrap()],
        subscriber_prefix_len: 64,
        nets: vec![DeterministicNet {
            net: net.net,
            first_port: net.first_port,
            last_port: net.last_port,
            reserved_ports: net.reserved_ports.clone(),
        }],
        reserved_addresses: pool.reserved_addresses.clone(),
        ports_per_subscriber: u32::from(BLOCK) * 2,
        block_size: BLOCK,
    }
}

/// All of them.
pub fn setups() -> Vec<Setup> {
    let independent = nat();
    let dependent = NatConfig {
        filtering: Filtering::AddressDependent,
        low_ports: false,
        // Short rests, and blocks that may go sooner than their ports have rested.
        timers: Timers {
            port_rest: Duration::from_millis(30_001),
            tcp_port_rest: Duration::from_secs(90),
            block_idle: Duration::from_secs(20),
            ..Timers::DEFAULT
        },
        quota: Quota { sessions: 25, new_sessions_per_second: 0, burst: 1 },
        events: 0,
        ..nat()
    };
    let shared = NatConfig {
        lease_prefix_len: 64,
        max_hosts: 8,
        max_blocks: 30,
        quota: Quota { sessions: 30, new_sessions_per_second: 7, burst: 3 },
        lanes: Lanes::new(2).unwrap(),
        ..nat()
    };
    let dependent_shared = NatConfig {
        filtering: Filtering::AddressDependent,
        subscriber_prefix_len: 56,
        lease_prefix_len: 56,
        max_bindings: 40,
        max_resting_ports: 1,
        ..nat()
    };
    let dependent_single = NatConfig {
        filtering: Filtering::AddressDependent,
        max_hosts: 8,
        max_blocks: 30,
        max_resting_ports: 3,
        lanes: Lanes::new(Lanes::MOST).unwrap(),
        quota: Quota { sessions: 6, new_sessions_per_second: 2, burst: 2 },
        ..nat()
    };
    let computed = NatConfig {
        quota: Quota { sessions: 30, new_sessions_per_second: 0, burst: 1 },
        lease_prefix_len: 64,
        low_ports: false,
        max_hosts: 3,
        max_blocks: 5,
        ..nat()
    };
    let computed_pool = computed_pool();
    [
        ("endpoint-independent", independent, tight_pool()),
        ("address-dependent", dependent, ragged_pool()),
        ("shared blocks", shared, small_pool()),
        ("address-dependent, shared blocks", dependent_shared, pool()),
        ("address-dependent, few ports", dependent_single, small_pool()),
    ]
    .into_iter()
    .map(|(name, nat, pool)| Setup { name, nat, pool, plan: None })
    .chain([Setup {
        name: "computed blocks",
        nat: computed,
        plan: Some(plan(&computed_pool)),
        pool: computed_pool,
    }])
    .collect()
}
