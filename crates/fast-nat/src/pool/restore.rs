//! Leases of an earlier table are given to their hosts again, as far as they still are in the pool.

use ipnet::Ipv4Net;

use super::{LeasePool, State};
use crate::nat64::NotRestored;
use crate::{InsertError, LeaseTable, SavedLease, Timestamp, is_eligible_host, subnet};

impl LeasePool {
    /// Gives a host the address that it had. `may_use`: whether it may have addresses of this network.
    pub fn restore(
        &mut self,
        table: &LeaseTable,
        saved: &SavedLease,
        may_use: impl Fn(Ipv4Net) -> bool,
    ) -> Result<(), NotRestored> {
        let SavedLease { host, address, .. } = *saved;
        if !is_eligible_host(host) || !self.leases(address, may_use) {
            return Err(NotRestored::NotInPool);
        }
        match self.state.get(&address) {
            Some(State::Used { host: holder }) if *holder == host => return Err(NotRestored::Twice),
            Some(State::Used { .. }) => return Err(NotRestored::PortTaken),
            Some(State::Freed { .. }) | None => {}
        }
        if self.subnets.get(&subnet(host)).is_some_and(|held| *held >= self.config.max_leases_per_subnet) {
            return Err(NotRestored::Quota);
        }
        table.restore(saved).map_err(|error| match error {
            InsertError::HostHasLease(_) => NotRestored::OtherAddress,
            InsertError::AddressTaken(_) => NotRestored::PortTaken,
            InsertError::Full(_) => NotRestored::Full,
        })?;
        self.mark_used(address, host);
        Ok(())
    }

    /// Lets an address rest that a host had until `at`, those first that have rested longest. `false`: it is in no pool, or somebody
    /// has it. This pool learns of it when it is [rebuilt](Self::rebuild).
    pub fn restore_resting(&self, table: &LeaseTable, saved: &SavedLease, at: Timestamp) -> bool {
        let rests = self.leases(saved.address, |_| true) && table.by_address(saved.address).is_none();
        if rests {
            table.restore_ended(saved, at);
        }
        rests
    }

    /// Whether this is an address that is leased, of a network that may be used.
    fn leases(&self, address: std::net::Ipv4Addr, may_use: impl Fn(Ipv4Net) -> bool) -> bool {
        let nets = || self.config.pools.iter().filter(|net| net.contains(&address));
        !self.reserved.contains(&address)
            && nets().any(|net| {
                let is_edge = address == net.network() || address == net.broadcast();
                may_use(*net) && (net.prefix_len() >= 31 || !is_edge)
            })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    use super::*;
    use crate::PoolConfig;

    fn host(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn saved(n: u16, last: u8) -> SavedLease {
        let address = Ipv4Addr::new(198, 51, 100, last);
        SavedLease { host: host(n), address, granted: at(1), last_seen: at(50) }
    }

    fn pool() -> (LeasePool, LeaseTable) {
        let config = PoolConfig {
            pools: vec!["198.51.100.0/28".parse().unwrap()],
            reserved: vec![Ipv4Addr::new(198, 51, 100, 14)],
            max_leases_per_subnet: 3,
            rest: Duration::from_secs(100),
            lanes: crate::Lanes::ONE,
        };
        (LeasePool::new(&config).unwrap(), LeaseTable::new(4, Duration::from_secs(100)))
    }

    #[test]
    fn a_host_has_its_address_again_and_nobody_else_gets_it() {
        let (mut pool, table) = pool();
        pool.restore(&table, &saved(1, 5), |_| true).unwrap();
        assert_eq!(SavedLease::from(table.by_address(saved(1, 5).address).unwrap()), saved(1, 5));
        assert_eq!(pool.grant(&table, host(1), at(60)).unwrap().address, saved(1, 5).address);
        pool.rebuild(&table, at(60));
        for n in [2, 3] {
            assert_ne!(pool.grant(&table, host(n), at(60)).unwrap().address, saved(1, 5).address);
        }
    }

    #[test]
    fn what_no_longer_fits_is_refused_one_by_one() {
        let (mut pool, table) = pool();
        let mut refused = |lease| pool.restore(&table, &lease, |_| true).unwrap_err();
        for last in [0, 15, 14, 77] {
            assert_eq!(refused(saved(1, last)), NotRestored::NotInPool, "{last}");
        }
        assert_eq!(refused(SavedLease { host: Ipv6Addr::LOCALHOST, ..saved(1, 5) }), NotRestored::NotInPool);
        assert_eq!(pool.restore(&table, &saved(1, 5), |_| false), Err(NotRestored::NotInPool));
        pool.restore(&table, &saved(1, 5), |_| true).unwrap();
        let mut refused = |lease| pool.restore(&table, &lease, |_| true).unwrap_err();
        assert_eq!(refused(saved(1, 5)), NotRestored::Twice);
        assert_eq!(refused(saved(2, 5)), NotRestored::PortTaken);
        assert_eq!(refused(saved(1, 6)), NotRestored::OtherAddress);
        for n in [2, 3] {
            pool.restore(&table, &saved(n, n as u8), |_| true).unwrap();
        }
        assert_eq!(pool.restore(&table, &saved(4, 4), |_| true), Err(NotRestored::Quota));
        let elsewhere = SavedLease { host: Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1), ..saved(0, 4) };
        pool.restore(&table, &elsewhere, |_| true).unwrap();
        let one_more = SavedLease { host: Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1), ..saved(0, 7) };
        assert_eq!(pool.restore(&table, &one_more, |_| true), Err(NotRestored::Full));
        assert_eq!(table.len(), 4);
    }

    #[test]
    fn an_address_rests_on() {
        let (mut pool, table) = pool();
        pool.restore(&table, &saved(1, 5), |_| true).unwrap();
        assert!(pool.restore_resting(&table, &saved(2, 1), at(60)));
        assert!(!pool.restore_resting(&table, &saved(2, 5), at(60)), "somebody has it");
        assert!(!pool.restore_resting(&table, &saved(2, 77), at(60)), "it is in no pool");
        pool.rebuild(&table, at(70));
        assert_eq!(pool.usage(at(70))[0].resting, 1);
        assert_ne!(pool.grant(&table, host(3), at(70)).unwrap().address, saved(2, 1).address);
        assert_eq!(
            pool.grant(&table, host(2), at(70)).unwrap().address,
            saved(2, 1).address,
            "its last host's"
        );
    }
}
