//! A second engine goes on where the first one ends: from a copy that was kept by what the first one said had changed.

use std::collections::BTreeMap;

use super::api::{
    Block, Nat64, NatConfig, NotRestored, Protocol, RestingPort, SavedBlock, SavedSession, SessionState,
    StaticBinding, Timestamp,
};
use super::bucket::Bucket;
use super::events::Queue;
use super::run::Run;
use super::{Inside, Outside, Remote, Wrong};

/// How far workers' clocks may be apart: ports may begin to rest in another order than that of their times.
const APART: u64 = 1000;

/// A copy of an engine's state, place by place.
#[derive(Debug, Default)]
pub struct Copy {
    sessions: BTreeMap<u32, SavedSession>,
    blocks: BTreeMap<u32, SavedBlock>,
    /// By protocol, address and port: since when.
    resting: BTreeMap<(Protocol, Outside), Timestamp>,
    /// When it was last brought up to date.
    at: u64,
}

impl Copy {
    /// Reads what has changed.
    pub fn catch_up(&mut self, engine: &Nat64, now: u64) {
        engine.take_changed_sessions(|place| match engine.saved_session(place) {
            Some(saved) => drop(self.sessions.insert(place, saved)),
            None => drop(self.sessions.remove(&place)),
        });
        let since = Timestamp::from_millis(self.at.saturating_sub(APART));
        let mut resting = Vec::new();
        engine.take_changed_blocks(|place| {
            match engine.saved_block(place) {
                Some(saved) => drop(self.blocks.insert(place, saved)),
                None => drop(self.blocks.remove(&place)),
            }
            engine.resting_ports(place, since, &mut resting);
        });
        for RestingPort { protocol, address, port, since } in resting {
            self.resting.insert((protocol, Outside { address, port }), since);
        }
        self.at = now;
    }
}

fn times_apart(saved: &SavedSession) -> SavedSession {
    SavedSession { last_seen: Timestamp::default(), ..*saved }
}

impl Run {
    /// The copy is what the engine has, but for what it need not be told of.
    pub(super) fn compare_copy(&mut self) -> Result<(), Wrong> {
        self.copy.catch_up(&self.engine, self.now);
        let engine = &self.engine;
        let sessions =
            (1..=engine.session_places()).filter_map(|place| Some((place, engine.saved_session(place)?)));
        let sessions: BTreeMap<_, _> = sessions.map(|(place, saved)| (place, times_apart(&saved))).collect();
        let copied = self.copy.sessions.iter().map(|(place, saved)| (*place, times_apart(saved))).collect();
        if sessions != copied {
            return Err(format!("the copy has {copied:?} instead of {sessions:?}"));
        }
        let blocks =
            (1..=engine.block_places()).filter_map(|place| Some((place, engine.saved_block(place)?)));
        let blocks: BTreeMap<_, _> = blocks.collect();
        if blocks != self.copy.blocks {
            return Err(format!("the copy has {:?} instead of {blocks:?}", self.copy.blocks));
        }
        let mut resting = Vec::new();
        (1..=engine.block_places())
            .for_each(|place| engine.resting_ports(place, Timestamp::default(), &mut resting));
        for RestingPort { protocol, address, port, since } in resting {
            let copied = self.copy.resting.get(&(protocol, Outside { address, port }));
            if copied != Some(&since) {
                return Err(format!("{protocol} {address} {port} rests since {since:?}, not {copied:?}"));
            }
        }
        Ok(())
    }

    /// Another engine with the same settings takes over from the copy.
    pub fn restart(&mut self, seed: u64) -> Result<(), Wrong> {
        self.settle()?;
        let now = self.at();
        let engine = Nat64::new(NatConfig { seed: Some(seed), ..self.model.config.clone() }).unwrap();
        engine.begin_restore(now);
        self.model.forget_what_is_not_kept(self.tick());
        for binding in self.model.bindings.iter().filter(|binding| binding.is_static) {
            let (Inside { prefix, protocol, host, port: host_port }, Outside { address, port }) =
                (binding.inside, binding.outside);
            let forward = StaticBinding { prefix, protocol, address, port, host, host_port };
            engine.add_static(&forward, now).map_err(|error| format!("{forward:?}: {error}"))?;
        }
        self.restore_blocks(&engine)?;
        self.restore_sessions(&engine)?;
        let mut resting: Vec<_> = self.copy.resting.iter().collect();
        // Those first that have rested longest, as the engine wants them.
        resting.sort_by_key(|(_, since)| **since);
        for ((protocol, Outside { address, port }), since) in resting {
            let block = self
                .model
                .blocks
                .iter()
                .find(|block| block.holds(Outside { address: *address, port: *port }));
            let Some(block) = block else { continue };
            let resting = RestingPort { protocol: *protocol, address: *address, port: *port, since: *since };
            engine.restore_resting(block.owner, &resting, now);
        }
        self.engine = engine;
        self.copy = Copy::default();
        self.lost = 0;
        self.rebuild();
        self.count("restart");
        self.compare()
    }

    fn restore_blocks(&mut self, engine: &Nat64) -> Result<(), Wrong> {
        let (now, tick) = (self.at(), self.tick());
        for saved in self.copy.blocks.values() {
            let is_it = |first_port| saved.first_port == first_port;
            let blocks = self.model.blocks.iter_mut();
            let mut same = blocks.filter(|block| block.address == saved.address && is_it(block.first_port));
            let Some(block) = same.next() else { return Err(format!("{saved:?} is nobody's")) };
            let SavedBlock { host, address, first_port, size, given } = *saved;
            let again = Block { address, first_port, size, reserved: block.reserved.clone() };
            let restored = engine.restore_block(host, &again, given, now);
            block.reference = restored.map_err(|error| format!("{saved:?}: {error}"))?;
            (block.tried, block.quiet_since) = (0, tick);
        }
        Ok(())
    }

    fn restore_sessions(&mut self, engine: &Nat64) -> Result<(), Wrong> {
        let (now, tick) = (self.at(), self.tick());
        // Those that are over have their ports back at once: nobody is told of their end.
        let rests = self.model.rests.clone();
        for (place, saved) in self.copy.sessions.clone() {
            // A timer may have begun anew since; that is not kept from moment to moment.
            let last_seen =
                self.engine.saved_session(place).map_or(saved.last_seen, |session| session.last_seen);
            let saved = SavedSession { last_seen, ..saved };
            let answer = engine.restore_session(&saved, now);
            let index = self.model.session(Inside::from(&saved.outbound), Remote::from(&saved.outbound));
            let Some(index) = index else { return Err(format!("{saved:?} is nobody's")) };
            let session = &self.model.sessions[index];
            let outside = self.model.outside_of(session.inside);
            let is_static = self.model.binding(session.inside).is_some_and(|binding| binding.is_static);
            let has_place = is_static || self.model.blocks.iter().any(|block| block.holds(outside));
            let expected = match (self.model.is_over(session, tick), has_place) {
                (true, _) => Err(NotRestored::Over),
                (false, true) => Ok(()),
                // A static binding that was taken away: nothing says any more that the port is its host's.
                (false, false) => match answer {
                    Err(NotRestored::NoBlock | NotRestored::PortTaken) => answer,
                    _ => Err(NotRestored::NoBlock),
                },
            };
            if answer != expected {
                return Err(format!("{answer:?} instead of {expected:?} for {saved:?}"));
            }
            if answer.is_err() {
                self.model.end_session(index, tick);
                self.count("restart: session that is over, or without a place");
                continue;
            }
            let twice = engine.restore_session(&saved, now);
            if twice != Err(NotRestored::Twice) && twice != Err(NotRestored::Quota) {
                return Err(format!("{twice:?} for {saved:?}, which is there"));
            }
            let found = engine.find_outbound(&saved.outbound).and_then(|mapped| mapped.session);
            let session = &mut self.model.sessions[index];
            session.reference = found.ok_or_else(|| format!("{saved:?} is not found"))?;
            (session.packets, session.bytes) = ([0; 2], [0; 2]);
            self.count(match saved.state {
                SessionState::Established => "restart: established session",
                _ => "restart: session",
            });
        }
        self.model.rests = rests;
        self.model.happened.clear();
        self.model.dead.clear();
        Ok(())
    }
}

impl super::Model {
    fn forget_what_is_not_kept(&mut self, tick: u64) {
        self.stored.clear();
        self.newest.clear();
        self.stale_syns.clear();
        self.queue = Queue::default();
        self.asked = None;
        for host in &mut self.hosts {
            (host.no_low, host.is_certain) = (false, true);
        }
        for subscriber in &mut self.subscribers {
            subscriber.buckets =
                [Bucket::new(self.config.quota.burst, tick), Bucket::new(self.config.quota.burst, tick)];
        }
    }
}
