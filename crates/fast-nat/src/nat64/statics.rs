//! Static bindings: port forwards.

use std::sync::atomic::Ordering;

use super::entries::{Bound, binding_key};
use super::{Inbound, Ipv4Addr, Nat64, Outbound, StaticBinding, StaticError, Timestamp, tick};
use crate::faults::{self, Point};

impl Nat64 {
    /// Places a static binding. May be repeated. Its port must be reserved in whatever block it lies in.
    pub fn add_static(&self, forward: &StaticBinding, now: Timestamp) -> Result<(), StaticError> {
        let prefix = self.subscriber_prefix(forward.host);
        let mut held = self.hold(self.shard_of(prefix)).ok_or(StaticError::Full)?;
        let (inside, outside) = flows(forward);
        let by_address = self.binding_by_address(&outside);
        if let Some((id, bound)) = self.binding_by_host(&inside) {
            let (address, port) = bound.endpoint();
            if (address, port) != (forward.address, forward.port) {
                return Err(StaticError::Bound { address, port });
            }
            // It is there, or was taken away while its sessions went on.
            if let Some(binding) = self.bindings.get(id) {
                binding.make_static();
            }
            return Ok(());
        }
        if let Some((_, bound)) = by_address {
            return Err(StaticError::Taken { host: bound.host, port: bound.host_port() });
        }
        let owner = held.host_or_new(forward.host, tick(now)).ok_or(StaticError::Full)?;
        let key = binding_key(forward.prefix, forward.protocol, forward.host_port);
        let bound = Bound::new(key, forward.host, forward.address, forward.port, owner).made_static();
        let begun = held.begin_binding(&bound, self.place_by_host(&inside), 0);
        faults::at(Point::StaticBegin);
        if begun.is_ok() {
            held.with_host(owner, |host| host.bindings += 1);
        } else {
            held.forget_host(owner);
        }
        begun.map(drop).map_err(|_| StaticError::Full)
    }

    /// Takes a static binding away. Its sessions go on until they end, and no new one begins from the IPv4 side when the
    /// last that its host takes part in has ended. `false`: it is not there.
    pub fn remove_static(&self, forward: &StaticBinding, now: Timestamp) -> bool {
        let prefix = self.subscriber_prefix(forward.host);
        let Some(mut held) = self.hold(self.shard_of(prefix)) else { return false };
        let (inside, _) = flows(forward);
        let Some((id, bound)) = self.binding_by_host(&inside) else { return false };
        if !bound.is_static() || bound.endpoint() != (forward.address, forward.port) {
            return false;
        }
        let Some(binding) = self.bindings.get(id) else { return false };
        binding.make_dynamic();
        faults::at(Point::StaticEnd);
        if binding.sessions.load(Ordering::Relaxed) == 0 {
            held.end_binding(id, &bound, tick(now));
        }
        true
    }
}

fn flows(forward: &StaticBinding) -> (Outbound, Inbound) {
    let StaticBinding { prefix, protocol, address, port, host, host_port } = *forward;
    let (remote, remote_port) = (Ipv4Addr::UNSPECIFIED, 0);
    let inside = Outbound { prefix, protocol, host, port: host_port, remote, remote_port };
    (inside, Inbound { protocol, address, port, remote, remote_port })
}
