//! Who leases blocks, and who quotas are counted for.

use std::sync::atomic::Ordering;

use super::super::entries::{Bucket, HostData, SubscriberData};
use super::super::tcp::Side;
use super::super::{Ipv6Addr, Refused};
use super::Held;
use crate::faults::{self, Point};

impl Held<'_> {
    pub(in crate::nat64) fn with_host<T>(&self, id: u32, work: impl FnOnce(&mut HostData) -> T) -> Option<T> {
        self.nat.hosts.get(id).map(|host| work(&mut host.data.lock()))
    }

    pub(in crate::nat64) fn with_subscriber<T>(
        &self,
        id: u32,
        work: impl FnOnce(&mut SubscriberData) -> T,
    ) -> Option<T> {
        self.nat.subscribers.get(id).map(|subscriber| work(&mut subscriber.data.lock()))
    }

    pub(in crate::nat64) fn with_subscriber_of<T>(
        &self,
        host: u32,
        work: impl FnOnce(&mut SubscriberData) -> T,
    ) -> Option<T> {
        self.with_subscriber(self.subscriber_of(host), work)
    }

    /// A host's subscriber.
    pub(in crate::nat64) fn subscriber_of(&self, host: u32) -> u32 {
        self.nat.hosts.get(host).map_or(0, |host| host.subscriber.load(Ordering::Relaxed))
    }

    /// The first block of a host.
    pub(in crate::nat64) fn first_block(&self, host: u32) -> u32 {
        self.nat.hosts.get(host).map_or(0, |host| host.first_block.load(Ordering::Relaxed))
    }

    /// The lessee with this prefix.
    pub(in crate::nat64) fn host(&self, prefix: u128) -> Option<u32> {
        let place = self.nat.host_index.place(self.nat.hasher.prefix(prefix));
        self.nat.host_index.find(place, |id| {
            // An entry of another shard may be in the course of a change: its lock is waited for, never for long.
            self.with_host(id, |host| host.prefix == prefix).unwrap_or_default()
        })
    }

    pub(in crate::nat64) fn subscriber(&self, prefix: u128) -> Option<u32> {
        let place = self.nat.subscriber_index.place(self.nat.hasher.prefix(prefix));
        self.nat.subscriber_index.find(place, |id| {
            self.with_subscriber(id, |subscriber| subscriber.prefix.to_bits() == prefix).unwrap_or_default()
        })
    }

    /// The lessee with this prefix, made where there is none.
    pub(in crate::nat64) fn host_or_new(&mut self, host: Ipv6Addr, tick: u32) -> Option<u32> {
        let nat = self.nat;
        let prefix = nat.lease_prefix(host);
        self.touch(1);
        if let Some(id) = self.host(prefix) {
            return Some(id);
        }
        let subscriber = self.subscriber_or_new(nat.subscriber_prefix(host), tick)?;
        let made = self.new_host(prefix, subscriber);
        if made.is_none() {
            self.forget_subscriber(subscriber);
        }
        made
    }

    pub(super) fn new_host(&mut self, prefix: u128, subscriber: u32) -> Option<u32> {
        let nat = self.nat;
        let id = nat.hosts.take()?;
        self.hand.host = id;
        let host = nat.hosts.get(id)?;
        *host.data.lock() = HostData { prefix, ..HostData::default() };
        host.subscriber.store(subscriber, Ordering::Relaxed);
        host.first_block.store(0, Ordering::Relaxed);
        host.shard.store(self.number, Ordering::Release);
        faults::at(Point::HostBegin);
        if !nat.host_index.insert(nat.host_index.place(nat.hasher.prefix(prefix)), id) {
            nat.hosts.give_back(id);
            self.hand.host = 0;
            return None;
        }
        self.with_subscriber(subscriber, |subscriber| subscriber.hosts += 1);
        self.hand.host = 0;
        Some(id)
    }

    pub(super) fn subscriber_or_new(&mut self, prefix: u128, tick: u32) -> Option<u32> {
        if let Some(id) = self.subscriber(prefix) {
            return Some(id);
        }
        let nat = self.nat;
        let id = nat.subscribers.take()?;
        self.hand.subscriber = id;
        let full = Bucket { tokens: nat.limits.burst.get() * 10, filled: tick };
        *nat.subscribers.get(id)?.data.lock() = SubscriberData {
            prefix: Ipv6Addr::from_bits(prefix),
            buckets: [full; 2],
            ..SubscriberData::default()
        };
        faults::at(Point::SubscriberBegin);
        if !nat.subscriber_index.insert(nat.subscriber_index.place(nat.hasher.prefix(prefix)), id) {
            nat.subscribers.give_back(id);
            self.hand.subscriber = 0;
            return None;
        }
        self.hand.subscriber = 0;
        Some(id)
    }

    /// Forgets a lessee without a block or a binding.
    pub(in crate::nat64) fn forget_host(&mut self, id: u32) {
        if self.lose_host(id) {
            self.end_host(id);
        }
    }

    /// Nobody finds a lessee without a block or a binding any more. `false`: it has one.
    pub(in crate::nat64) fn lose_host(&mut self, id: u32) -> bool {
        let nat = self.nat;
        let Some(host) = nat.hosts.get(id) else { return false };
        let data = host.data.lock();
        if data.blocks > 0 || data.bindings > 0 {
            return false;
        }
        let prefix = data.prefix;
        drop(data);
        self.hand.host = id;
        nat.host_index.remove(nat.host_index.place(nat.hasher.prefix(prefix)), id);
        faults::at(Point::HostEnd);
        true
    }

    /// Ends a lessee that nobody finds any more.
    pub(in crate::nat64) fn end_host(&mut self, id: u32) {
        let subscriber = self.subscriber_of(id);
        self.nat.hosts.give_back(id);
        self.hand.host = 0;
        self.with_subscriber(subscriber, |subscriber| subscriber.hosts -= 1);
        self.forget_subscriber(subscriber);
    }

    pub(super) fn forget_subscriber(&mut self, id: u32) {
        let nat = self.nat;
        let Some(prefix) =
            self.with_subscriber(id, |data| (data.hosts == 0).then_some(data.prefix.to_bits())).flatten()
        else {
            return;
        };
        self.hand.subscriber = id;
        nat.subscriber_index.remove(nat.subscriber_index.place(nat.hasher.prefix(prefix)), id);
        nat.subscribers.give_back(id);
        self.hand.subscriber = 0;
    }

    /// Whether a subscriber may have one session more that this side opens (RFC 6888 REQ-4).
    pub(in crate::nat64) fn check_sessions(&self, subscriber: u32, side: Side) -> Result<(), Refused> {
        let most = self.nat.limits.sessions.get();
        let is_full =
            self.with_subscriber(subscriber, |data| data.opened[side.index()] >= most).unwrap_or_default();
        if is_full { Err(Refused::SessionQuota) } else { Ok(()) }
    }

    /// Counts a session that this side opens, and takes a token of the rate that it may do so at (RFC 6888 REQ-5).
    pub(in crate::nat64) fn charge(&self, subscriber: u32, side: Side, tick: u32) -> Result<(), Refused> {
        let limits = &self.nat.limits;
        let rate = u64::from(limits.rate.get());
        let full = limits.burst.get() * 10;
        let charged = self.with_subscriber(subscriber, |data| {
            if rate > 0 {
                // A tick is a tenth of a second, and a token is counted in tenths.
                let bucket = &mut data.buckets[side.index()];
                let gained = u64::from(tick.saturating_sub(bucket.filled)) * rate;
                bucket.tokens = (u64::from(bucket.tokens) + gained).min(full.into()) as u32;
                bucket.filled = bucket.filled.max(tick);
                bucket.tokens = bucket.tokens.checked_sub(10)?;
            }
            data.opened[side.index()] += 1;
            Some(())
        });
        charged.flatten().ok_or(Refused::RateQuota)
    }

    /// The session has not come about. Its token is spent.
    pub(in crate::nat64) fn refund(&self, subscriber: u32, side: Side) {
        self.with_subscriber(subscriber, |data| data.opened[side.index()] -= 1);
    }
}
