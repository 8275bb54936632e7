//! Leases for whoever keeps a copy of them, and from there back.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use parking_lot::Mutex;

use super::{Ended, InsertError, LeaseTable};
use crate::{Lease, LeaseKind, Timestamp};

/// All that is needed to go on with a dynamic lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedLease {
    /// The holder.
    pub host: Ipv6Addr,
    /// What it holds.
    pub address: Ipv4Addr,
    /// When it was granted.
    pub granted: Timestamp,
    /// When its host last sent a packet.
    pub last_seen: Timestamp,
}

impl From<Lease> for SavedLease {
    fn from(lease: Lease) -> Self {
        let Lease { host, address, granted, last_seen, .. } = lease;
        Self { host, address, granted, last_seen }
    }
}

impl LeaseTable {
    /// From now on it is noted which leases begin and end, for [`Self::take_changed`].
    #[must_use]
    pub fn tracking_changes(self) -> Self {
        Self { changed: Some(Mutex::default()), ..self }
    }

    pub(super) fn note_change(&self, address: Ipv4Addr) {
        if let Some(changed) = &self.changed {
            changed.lock().insert(address);
        }
    }

    /// The addresses of which a dynamic lease has begun or ended since this was last asked.
    pub fn take_changed(&self) -> HashSet<Ipv4Addr> {
        self.changed.as_ref().map(|changed| std::mem::take(&mut *changed.lock())).unwrap_or_default()
    }

    /// Puts a lease back as it was.
    pub(crate) fn restore(&self, saved: &SavedLease) -> Result<Lease, InsertError> {
        let SavedLease { host, address, granted, last_seen } = *saved;
        self.insert_since(host, address, LeaseKind::Dynamic, (granted, last_seen))
    }

    /// Remembers a lease that ended at `at`: after all that ended before.
    pub(crate) fn restore_ended(&self, saved: &SavedLease, at: Timestamp) {
        let SavedLease { host, address, granted, last_seen } = *saved;
        let lease = Lease { host, address, kind: LeaseKind::Dynamic, generation: 0, granted, last_seen };
        let mut ended = self.ended.lock();
        if ended.len() < self.capacity() {
            ended.push_back(Ended { lease, at });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    const HOUR: Duration = Duration::from_hours(1);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn a_lease_that_is_put_back_has_its_times_and_expires_by_them() {
        let table = LeaseTable::new(4, HOUR);
        let saved = SavedLease { host: HOST, address: ADDRESS, granted: at(5), last_seen: at(100) };
        assert_eq!(SavedLease::from(table.restore(&saved).unwrap()), saved);
        assert_eq!(table.expire(at(3699), HOUR, 16).0, []);
        assert_eq!(table.expire(at(3700), HOUR, 16).0.len(), 1);
    }

    #[test]
    fn beginnings_and_ends_of_dynamic_leases_are_noted_where_that_is_wanted() {
        let silent = LeaseTable::new(4, HOUR);
        silent.insert(HOST, ADDRESS, LeaseKind::Dynamic, at(0)).unwrap();
        assert!(silent.take_changed().is_empty());

        let table = LeaseTable::new(4, HOUR).tracking_changes();
        table.insert(HOST, ADDRESS, LeaseKind::Dynamic, at(0)).unwrap();
        assert_eq!(table.take_changed(), HashSet::from([ADDRESS]));
        assert!(table.take_changed().is_empty(), "once");
        table.by_host(HOST, at(9));
        assert!(table.take_changed().is_empty(), "packets are no change");
        table.remove(ADDRESS, at(10)).unwrap();
        assert_eq!(table.take_changed(), HashSet::from([ADDRESS]));
        table.insert(HOST, ADDRESS, LeaseKind::Static, at(11)).unwrap();
        assert!(table.take_changed().is_empty(), "the configuration keeps those");
    }
}
