//! What ends: by its timer, with its block, with its binding.

use std::net::Ipv6Addr;

use super::api::{Protocol, Seen, SessionState};

use super::events::Kind;
use super::{Model, Outside, Rest, Wrong, tick};

/// References that have ended and are remembered.
const REMEMBERED: usize = 32;

impl Model {
    /// Ends a session, and its binding with the last one.
    pub fn end_session(&mut self, index: usize, tick: u64) {
        self.happens(Kind::Ended, index);
        let session = self.sessions.remove(index);
        if self.dead.len() >= REMEMBERED {
            self.dead.remove(0);
        }
        self.dead.push(session.reference);
        let inside = session.inside;
        if self.sessions.iter().any(|other| other.inside == inside) {
            return;
        }
        let at = self.bindings.iter().position(|binding| binding.inside == inside).unwrap();
        if !self.bindings[at].is_static {
            let binding = self.bindings.remove(at);
            self.free_port(inside.protocol, binding.outside, tick);
            self.forget(inside.host);
        }
    }

    /// A port rests, and its block may be quiet from now on.
    pub fn free_port(&mut self, protocol: Protocol, outside: Outside, tick: u64) {
        self.rests.push(Rest { protocol, outside, freed: tick });
        let Some(at) = self.blocks.iter().position(|block| block.holds(outside)) else { return };
        if !self.bindings.iter().any(|binding| self.blocks[at].holds(binding.outside)) {
            self.blocks[at].quiet_since = tick;
        }
    }

    /// What `expire` must not leave.
    pub fn overdue(&self, tick: u64) -> Option<String> {
        let session = self.sessions.iter().find(|session| self.is_over(session, tick));
        let syn = self.stored.iter().find(|syn| self.is_syn_over(syn.behind, tick));
        session.map(|session| format!("{session:?}")).or(syn.map(|syn| format!("{syn:?}")))
    }

    /// `expire` has ended this session: it must be over.
    pub fn expired(&mut self, index: usize, tick: u64) -> Result<(), Wrong> {
        let session = &self.sessions[index];
        if !self.is_over(session, tick) {
            return Err(format!("{session:?} ended early, in tick {tick}"));
        }
        if session.inside.protocol == Protocol::Tcp && session.state == SessionState::Established {
            return Err(format!("{session:?} ended without a probe"));
        }
        self.end_session(index, tick);
        Ok(())
    }

    /// `expire` has sent a probe on this session (RFC 6146 §3.5.2.2, ESTABLISHED).
    pub fn probed(&mut self, index: usize, tick: u64) -> Result<(), Wrong> {
        let session = &self.sessions[index];
        let is_established =
            session.inside.protocol == Protocol::Tcp && session.state == SessionState::Established;
        if !is_established || !self.is_over(session, tick) {
            return Err(format!("{session:?} was probed in tick {tick}"));
        }
        self.sessions[index].state = SessionState::Trans;
        self.sessions[index].seen = tick;
        self.happens(Kind::Changed, index);
        Ok(())
    }

    /// `expire` has given up a stored SYN.
    pub fn given_up(&mut self, packet: &[u8], tick: u64) -> Result<(), Wrong> {
        let Some(at) = self.stored.iter().position(|syn| syn.packet == packet) else {
            return Err(format!("no SYN is stored that reads {packet:?}"));
        };
        if !self.is_syn_over(self.stored[at].since, tick) {
            return Err(format!("{:?} was given up early, in tick {tick}", self.stored[at]));
        }
        self.stored.remove(at);
        Ok(())
    }

    /// Forgets who has nothing left.
    pub fn forget(&mut self, host: Ipv6Addr) {
        let (key, subscriber) = (self.host_key(host), self.subscriber_key(host));
        let is_used = self.blocks.iter().any(|block| block.owner == key)
            || self.bindings.iter().any(|binding| self.host_key(binding.inside.host) == key);
        if !is_used {
            self.hosts.retain(|host| host.key != key);
        }
        if !self.hosts.iter().any(|host| self.subscriber_key(host.key) == subscriber) {
            self.subscribers.retain(|known| known.key != subscriber);
        }
    }

    /// Drops what has rested: the list stays short.
    pub fn wake(&mut self, tick: u64) {
        self.latest = tick;
        let rests = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp].map(|protocol| self.rest(protocol));
        // A worker's clock may be a little behind.
        self.rests.retain(|rest| tick.saturating_sub(rest.freed) <= rests[rest.protocol as usize] + 10);
    }
}

impl Model {
    /// A faster path has seen packets of this session.
    pub fn report(&mut self, index: usize, seen: &Seen) {
        use SessionState::{Established, OneWay, V4FinRcv, V6FinRcv};
        let session = &mut self.sessions[index];
        // What is being opened or closed is not kept by what passes, and nothing by outsiders alone.
        let keeps = matches!(session.state, Established | OneWay | V4FinRcv | V6FinRcv) && session.sent;
        if keeps && seen.packets != [0, 0] {
            session.seen = session.seen.max(tick(seen.last_seen));
        }
        for way in 0..2 {
            session.packets[way] += seen.packets[way];
            session.bytes[way] += seen.bytes[way];
        }
    }
}
