//! Does what ends, what is reported, and what is told.

use super::api::{Output, Seen, SessionState, Timestamp};
use super::events::{Happened, Kind};
use super::run::Run;
use super::{Wrong, outbound_of, ticks};

impl Run {
    pub(super) fn expire(&mut self, budget: Option<usize>) -> Result<(), Wrong> {
        let (now, tick) = (self.at(), self.tick());
        let mut more = self.engine.expire(now, budget.unwrap_or(8));
        if budget.is_none() {
            let mut calls = 1;
            while more {
                more = self.engine.expire(now, 8);
                calls += 1;
                if calls > 100_000 {
                    return Err("expire comes to no end".into());
                }
            }
        }
        let mut visited = 0;
        let mut probed = Vec::new();
        // Backwards, since what ends leaves the list.
        for index in (0..self.model.sessions.len()).rev() {
            let reference = self.model.sessions[index].reference;
            match self.engine.session(reference) {
                None => {
                    let session = &self.model.sessions[index];
                    if tick - session.seen == self.model.lifetime(session) + 1 {
                        self.count("expire: session, as soon as it is over");
                    }
                    self.model.expired(index, tick)?;
                    self.count("expire: session");
                    visited += 1;
                }
                Some(view) => {
                    let session = &self.model.sessions[index];
                    if tick.saturating_sub(session.seen) == self.model.lifetime(session) {
                        self.count("expire: session in its last tick stays");
                    }
                    if view.state == SessionState::Trans
                        && self.model.sessions[index].state == SessionState::Established
                    {
                        self.model.probed(index, tick)?;
                        let session = &self.model.sessions[index];
                        probed.push(outbound_of(session.inside, session.remote));
                        self.count("expire: probe");
                        visited += 1;
                    }
                }
            }
        }
        while let Some(output) = self.engine.poll_output(now) {
            match output {
                Output::Probe(flow) => {
                    let Some(at) = probed.iter().position(|probed| *probed == flow) else {
                        return Err(format!("a probe of {flow:?} without a cause"));
                    };
                    probed.swap_remove(at);
                }
                Output::Unreachable(packet) => {
                    self.model.given_up(&packet, tick)?;
                    self.count("expire: stored SYN");
                    visited += 1;
                }
            }
        }
        if !probed.is_empty() {
            return Err(format!("{probed:?} were not probed"));
        }
        if budget.is_some_and(|budget| visited > budget.max(1)) {
            return Err(format!("{visited} entries visited with a budget of {budget:?}"));
        }
        let lasts = ticks(self.model.config.timers.tcp_incoming_syn);
        if self.model.stored.iter().any(|syn| tick.saturating_sub(syn.since) == lasts) {
            self.count("expire: stored SYN in its last tick stays");
        }
        if !more && let Some(overdue) = self.model.overdue(tick) {
            return Err(format!("expire leaves, in tick {tick}, {overdue}"));
        }
        if !more {
            let model = &mut self.model;
            let mut stale = std::mem::take(&mut model.stale_syns);
            stale.retain(|since| !model.is_syn_over(*since, tick));
            model.stale_syns = stale;
        }
        self.count(if more { "expire: more is due" } else { "expire: nothing is due" });
        Ok(())
    }

    pub(super) fn report(&mut self, session: usize, ago: u64, packets: u32, bytes: u32) -> Result<(), Wrong> {
        let now = self.at();
        let last_seen = Timestamp::from_millis(self.now - ago * 100);
        let seen = Seen {
            last_seen,
            packets: [u64::from(packets), u64::from(packets / 2)],
            bytes: [u64::from(bytes), u64::from(bytes / 2)],
        };
        let Some(live) = self.model.sessions.get(session) else {
            // One that is over: nothing happens.
            if let Some(dead) = self.model.dead.get(session % self.model.dead.len().max(1)) {
                self.engine.report(*dead, &seen);
                if self.engine.session(*dead).is_some() {
                    return Err(format!("{dead:?} is alive again"));
                }
                self.count("report: of a session that is over");
            }
            return Ok(());
        };
        let reference = live.reference;
        self.engine.report(reference, &seen);
        self.model.report(session, &seen);
        self.count("report: of a session");
        let (view, expected) = (self.engine.session(reference), self.model.view(session));
        let _ = now;
        if view == Some(expected) { Ok(()) } else { Err(format!("{view:?} instead of {expected:?}")) }
    }

    pub(super) fn end(&mut self, at: usize) -> Result<(), Wrong> {
        let reference = match self.model.sessions.get(at) {
            Some(session) => session.reference,
            None => match self.model.dead.first() {
                Some(dead) => *dead,
                None => return Ok(()),
            },
        };
        let expected = at < self.model.sessions.len();
        let ended = self.engine.end_session(reference, self.at());
        if ended != expected {
            return Err(format!("{ended} instead of {expected}"));
        }
        if expected {
            let tick = self.tick();
            self.model.end_session(at, tick);
        }
        self.count(if expected { "end: ended" } else { "end: over already" });
        Ok(())
    }

    /// All of the state, and the events that have not been looked at yet.
    pub fn settle(&mut self) -> Result<(), Wrong> {
        self.compare()?;
        self.drain_events()
    }

    /// The end: what is left is compared, and ends when its time has come.
    pub fn close(&mut self) -> Result<(), Wrong> {
        self.settle()?;
        // Long enough for everything, once more for what is probed.
        for _ in 0..2 {
            self.now += 3 * 60 * 60 * 1000;
            self.expire(None)?;
            self.finish()?;
            self.drain_events()?;
        }
        self.compare()?;
        if !self.model.sessions.is_empty() || !self.model.stored.is_empty() {
            return Err("something never ends".into());
        }
        Ok(())
    }

    pub(super) fn drain_events(&mut self) -> Result<(), Wrong> {
        self.count("events: drained");
        let mut seen = Vec::new();
        while let Some(event) = self.engine.poll_event() {
            let happened = Happened::from(event);
            self.count(match happened.kind {
                Kind::Started => "event: started",
                Kind::Established => "event: established",
                Kind::Changed => "event: changed",
                Kind::Ended => "event: ended",
            });
            seen.push(happened);
        }
        self.model.queue.drain(seen)
    }
}
