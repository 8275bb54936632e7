//! What a packet of a remote does (RFC 6146 §3.5.1.2, §3.5.2.2, §3.5.3).

use super::api::{Filtering, Inbound, Passing, Protocol, Reached, Refused, SessionRef, SessionState, Signal};

use super::tcp::{Side, first};
use super::{Binding, Model, Outside, Remote, StoredSyn, Wrong};

impl From<&Inbound> for Outside {
    fn from(flow: &Inbound) -> Self {
        Self { address: flow.address, port: flow.port }
    }
}

impl From<&Inbound> for Remote {
    fn from(flow: &Inbound) -> Self {
        Self { address: flow.remote, port: flow.remote_port }
    }
}

impl Model {
    /// Does what the packet does, and compares the engine's answer.
    pub fn inbound(
        &mut self,
        flow: &Inbound,
        packet: &Passing<'_>,
        tick: u64,
        answer: &Result<Reached, Refused>,
    ) -> Result<(), Wrong> {
        let (outside, remote) = (Outside::from(flow), Remote::from(flow));
        let opens = flow.protocol != Protocol::Tcp || packet.signal == Signal::Syn;
        let expected = match self.binding_of(flow.protocol, outside).copied() {
            None if !opens => Err(Refused::NoSession),
            None => Err(self.store(flow, packet, Refused::NoBinding, tick, answer)),
            Some(binding) => match self.session(binding.inside, remote) {
                Some(index) => {
                    self.passes(index, Side::V4, packet, tick);
                    Ok(reached(&binding, Some(self.sessions[index].reference), false))
                }
                None if !self.is_allowed(&binding, remote) => {
                    Err(self.store(flow, packet, Refused::Filtered, tick, answer))
                }
                None if !opens => Ok(reached(&binding, None, false)),
                None => match self.may_enter(&binding, tick) {
                    Ok(()) => {
                        let reference = answer.as_ref().ok().and_then(|reached| reached.session);
                        let Some(reference) = reference else {
                            return Err(format!("{answer:?} instead of a new session"));
                        };
                        self.expect_new(reference)?;
                        // It waits no more: it was let in when it was sent again.
                        if flow.protocol == Protocol::Tcp {
                            self.take_up(outside, remote);
                        }
                        self.enters(&binding, remote, packet, tick, reference);
                        Ok(reached(&binding, Some(reference), true))
                    }
                    // Nobody takes part: as if there were no binding, since outsiders cannot keep it alive.
                    Err(Refused::NoBinding) => {
                        Err(self.store(flow, packet, Refused::NoBinding, tick, answer))
                    }
                    Err(refused) => Err(refused),
                },
            },
        };
        if *answer == expected { Ok(()) } else { Err(format!("{answer:?} instead of {expected:?}")) }
    }

    /// RFC 6146 §3.5.2.2, §3.5.3: address-dependent filtering asks for a session with this address, any port,
    /// on which the host has sent. What is configured is open to
    /// everybody.
    fn is_allowed(&self, binding: &Binding, remote: Remote) -> bool {
        binding.is_static
            || self.config.filtering == Filtering::EndpointIndependent
            || self.sessions.iter().any(|session| {
                session.inside == binding.inside && session.sent && session.remote.address == remote.address
            })
    }

    /// Whether a remote may open a session on this binding.
    fn may_enter(&mut self, binding: &Binding, tick: u64) -> Result<(), Refused> {
        let is_kept = binding.is_static
            || self.sessions.iter().any(|session| session.inside == binding.inside && session.sent);
        if !is_kept {
            return Err(Refused::NoBinding);
        }
        self.has_quota(binding.inside.host, Side::V4)?;
        self.pay(binding.inside.host, Side::V4, tick)
    }

    fn enters(
        &mut self,
        binding: &Binding,
        remote: Remote,
        packet: &Passing<'_>,
        tick: u64,
        reference: SessionRef,
    ) {
        let is_tcp = binding.inside.protocol == Protocol::Tcp;
        let state = if is_tcp { first(Side::V4) } else { SessionState::OneWay };
        self.begin(binding.inside, remote, state, Side::V4, packet, tick, reference);
    }

    /// Keeps the SYN if it is one and there is room; `otherwise` is why the packet is not forwarded if not.
    fn store(
        &mut self,
        flow: &Inbound,
        packet: &Passing<'_>,
        otherwise: Refused,
        tick: u64,
        answer: &Result<Reached, Refused>,
    ) -> Refused {
        if flow.protocol != Protocol::Tcp || packet.signal != Signal::Syn {
            return otherwise;
        }
        let (outside, remote) = (Outside::from(flow), Remote::from(flow));
        self.syns += 1;
        if let Some(syn) = self.stored.iter_mut().find(|syn| syn.outside == outside && syn.remote == remote) {
            packet.packet.clone_into(&mut syn.packet);
            syn.last = self.syns;
            return Refused::Stored;
        }
        let most = self.config.max_stored_syns as usize;
        // Places of those that were taken up are free again at the latest when their time is over.
        let may_refuse = self.stored.len() + self.stale_syns.len() >= 2 * most;
        if self.stored.len() >= most || may_refuse && *answer == Err(otherwise) {
            return otherwise;
        }
        self.newest.retain(|(other, _)| *other != remote);
        self.newest.push((remote, self.syns));
        self.latest_syn = self.latest_syn.max(tick);
        self.stored.push(StoredSyn {
            outside,
            remote,
            packet: packet.packet.to_vec(),
            since: tick,
            behind: self.latest_syn,
            first: self.syns,
            last: self.syns,
        });
        Refused::Stored
    }
}

impl Model {
    /// The SYN of this flow waits no more. Whether it did.
    pub fn take_up(&mut self, outside: Outside, remote: Remote) -> bool {
        let at = self.stored.iter().position(|syn| syn.outside == outside && syn.remote == remote);
        if let Some(at) = at {
            self.stale_syns.push(self.stored.remove(at).behind);
        }
        at.is_some()
    }
}

fn reached(binding: &Binding, session: Option<SessionRef>, created: bool) -> Reached {
    let inside = binding.inside;
    Reached { prefix: inside.prefix, host: inside.host, port: inside.port, session, created }
}
