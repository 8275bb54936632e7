//! What a lease costs in a /24 and in a /12, in turn: medians of 11 rounds.
//!
//! `cargo run --release -p fast-nat --example lease_cost`
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use fast_nat::{LeasePool, LeaseTable, PoolConfig, Timestamp};

const HOSTS: u128 = 200;

fn round(net: &str) -> Result<Duration, Box<dyn Error>> {
    let table = LeaseTable::new(1 << 20, Duration::ZERO);
    let config = PoolConfig {
        pools: vec![net.parse()?],
        reserved: vec![],
        max_leases_per_subnet: u32::MAX,
        rest: Duration::ZERO,
        lanes: fast_nat::Lanes::ONE,
    };
    let mut pool = LeasePool::new(&config)?;
    let now = Timestamp::from_millis(0);
    let start = Instant::now();
    for turn in 0..100 {
        for n in 0..HOSTS {
            pool.grant(&table, Ipv6Addr::from((0x2001_0db8_u128 << 96) + turn * HOSTS + n + 1), now)?;
        }
        for lease in table.leases().collect::<Vec<_>>() {
            table.remove(lease.address, now);
            pool.free(&table, lease.address, now);
        }
    }
    Ok(start.elapsed() / u32::try_from(100 * HOSTS)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let nets = ["10.0.0.0/24", "10.0.0.0/12"];
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..11 {
        for (net, costs) in nets.iter().zip(&mut costs) {
            costs.push(round(net)?);
        }
    }
    for (net, costs) in nets.iter().zip(&mut costs) {
        costs.sort();
        println!("{net}: {:?} per lease taken and freed (median)", costs[costs.len() / 2]);
    }
    Ok(())
}
