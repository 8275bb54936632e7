//! What a lease costs, by the size of the pool: whole addresses and blocks of ports, and addresses of the original crate.

use std::net::Ipv6Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fast_nat::nat64::{Nat64, PortClass, Timers};
use fast_nat::{Granted, LeasePool, LeaseTable, PoolConfig, Timestamp};
use ipnet::Ipv4Net;
use original::CrossProtocolNetworkAddressTableWithIpv4Pool as OriginalTable;

use crate::clock::{Cost, Stopwatch};
use crate::router;
use crate::traffic::host;

/// Leases that are taken and ended again.
const LEASES: u32 = 128;

/// How often that is done in one measurement.
const TURNS: u32 = 50;

/// Leases that the original takes in one measurement: it cannot end one before its time, so each round has the next ones.
pub(crate) const OF_ORIGINAL: u32 = 16;

/// A pool of addresses and the table of its leases.
#[derive(Debug)]
pub(crate) struct Addresses {
    table: LeaseTable,
    pool: LeasePool,
    /// Leases that stay.
    standing: u32,
}

impl Addresses {
    /// A pool in which so many leases are held already.
    pub(crate) fn new(net: Ipv4Net, standing: u32) -> Result<Self> {
        let config = PoolConfig {
            pools: vec![net],
            reserved: vec![],
            max_leases_per_subnet: u32::MAX,
            rest: Duration::ZERO,
            lanes: fast_nat::Lanes::ONE,
        };
        let mut pool = LeasePool::new(&config)?;
        let table = LeaseTable::new(1 << 21, Duration::ZERO);
        for number in 0..standing {
            pool.grant(&table, host(number), Timestamp::from_millis(0))?;
        }
        Ok(Self { table, pool, standing })
    }

    /// The cost of taking one lease, and ending it.
    pub(crate) fn run(&mut self) -> Result<Cost> {
        let now = Timestamp::from_millis(0);
        let hosts: Vec<_> = (0..LEASES).map(|number| host(self.standing + number)).collect();
        let mut held = Vec::with_capacity(hosts.len());
        let mut clock = Stopwatch::start()?;
        for _ in 0..TURNS {
            for host in &hosts {
                held.push(self.pool.grant(&self.table, *host, now)?.address);
            }
            for address in held.drain(..) {
                self.table.remove(address, now).context("a lease was gone")?;
                self.pool.free(&self.table, address, now);
            }
        }
        Ok(clock.lap()?.each((LEASES * TURNS) as usize))
    }
}

/// The table of the original crate.
#[derive(Debug)]
pub(crate) struct Original {
    table: OriginalTable,
    leases: u32,
}

impl Original {
    /// A pool in which so many leases are held already: placed as static ones, which is the fastest way.
    pub(crate) fn new(net: Ipv4Net, standing: u32) -> Result<Self> {
        let mut table = OriginalTable::new(&[net], Duration::from_hours(2));
        for (number, address) in (0..standing).zip(net.hosts()) {
            table.insert_static(address, host(number))?;
        }
        Ok(Self { table, leases: standing })
    }

    /// The cost of the next leases.
    pub(crate) fn run(&mut self) -> Result<Cost> {
        let hosts: Vec<_> = (0..OF_ORIGINAL).map(|number| host(self.leases + number)).collect();
        let mut clock = Stopwatch::start()?;
        for host in &hosts {
            self.table.get_or_create_ipv4(host)?;
        }
        let cost = clock.lap()?.each(hosts.len());
        self.leases += OF_ORIGINAL;
        Ok(cost)
    }
}

/// A pool of blocks and the engine that holds them.
#[derive(Debug)]
pub(crate) struct Blocks {
    pub(crate) nat: Nat64,
    pool: fast_nat::BlockPool,
    hosts: Vec<Ipv6Addr>,
    now: u64,
}

impl Blocks {
    /// A pool in which so many hosts hold a block already.
    pub(crate) fn new(net: &str, standing: u32) -> Result<Self> {
        let timers = Timers {
            block_idle: Duration::ZERO,
            port_rest: Duration::ZERO,
            tcp_port_rest: Duration::ZERO,
            ..Timers::default()
        };
        let nat = Nat64::new(router::config(1024, timers))?;
        let mut pool = router::pool(net)?;
        for number in 0..standing {
            pool.grant(&nat, host(number), PortClass::High, Timestamp::from_millis(0))?;
        }
        let hosts = (standing..standing + LEASES).map(host).collect();
        Ok(Self { nat, pool, hosts, now: 0 })
    }

    /// The cost of leasing one block, and of taking it back.
    pub(crate) fn run(&mut self) -> Result<Cost> {
        let mut held = Vec::with_capacity(self.hosts.len());
        let mut clock = Stopwatch::start()?;
        for _ in 0..TURNS {
            let now = Timestamp::from_millis(self.now);
            for host in &self.hosts {
                match self.pool.grant(&self.nat, *host, PortClass::High, now)? {
                    Granted::New { reference, .. } => held.push(reference),
                    Granted::Already => bail!("a host had a block already"),
                }
            }
            self.now += 1000;
            let now = Timestamp::from_millis(self.now);
            for block in held.drain(..) {
                let taken = self.pool.take_back(&self.nat, block, now);
                ensure!(taken.is_some(), "an idle block could not be taken back");
            }
        }
        Ok(clock.lap()?.each(self.hosts.len() * TURNS as usize))
    }
}
