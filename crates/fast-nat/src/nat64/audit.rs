//! Whether everything in an engine that stands still belongs together: for tests, after a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::atomic::Ordering;

use super::entries::{Standing, in_use};
use super::slab::{Entry, Slab};
use super::{Binding, Ipv4Addr, Nat64, Protocol, SHARDS, ShardCell};

/// What is wrong, one sentence each.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    #[allow(clippy::needless_pass_by_value, reason = "what is compared is most often made for that")]
    fn check<T: PartialEq + Debug>(&mut self, what: impl FnOnce() -> String, is: T, should: T) {
        if is != should {
            self.0.push(format!("{}: {is:?} instead of {should:?}", what()));
        }
    }
}

impl Nat64 {
    /// What does not belong together, one sentence each; nothing if all is well. Nobody may use the engine meanwhile. `may_be_kept` says
    /// which ports are in no place, since they were [reserved](Self::reserve).
    ///
    /// It looks at every entry, and at every number that should be nobody's, counts anew all that is counted, and follows all lists.
    pub fn audit(&self, may_be_kept: impl Fn(Protocol, Ipv4Addr, u16) -> bool) -> Vec<String> {
        let mut findings = Findings::default();
        self.audit_sessions(&mut findings);
        self.audit_bindings(&mut findings);
        self.audit_lessees(&mut findings);
        self.audit_blocks(&mut findings, &may_be_kept);
        self.audit_permits(&mut findings);
        findings.check(|| "the stored SYNs are sound".into(), self.stored.is_sound(), true);
        findings.0
    }

    fn audit_sessions(&self, findings: &mut Findings) {
        let mut of_shard = vec![BTreeSet::new(); SHARDS];
        let mut counts = vec![[0; 3]; SHARDS];
        let mut found = BTreeSet::new();
        let mut remotes = BTreeSet::new();
        for id in self.sessions.numbers() {
            let Some(session) = self.sessions.get(id) else { continue };
            if !in_use(session.version.load(Ordering::Acquire)) {
                continue;
            }
            found.insert(id);
            let binding = session.binding.load(Ordering::Relaxed);
            let Some(bound) = self.bindings.get(binding).and_then(Binding::read) else {
                findings.0.push(format!("session {id} has no binding"));
                continue;
            };
            let remote = session.remote.load(Ordering::Relaxed);
            findings.check(
                || format!("session {id} is the only one"),
                remotes.insert((binding, remote)),
                true,
            );
            let indexed = self.by_remote.find(self.place_by_remote(&bound, remote), |other| other == id);
            findings.check(|| format!("session {id} can be found"), indexed, Some(id));
            let shard = self.shard_of(self.subscriber_prefix(bound.host)) as usize;
            of_shard[shard].insert(id);
            counts[shard][session.standing().protocol() as usize] += 1;
            findings.check(
                || format!("session {id} has its binding's protocol"),
                session.standing().protocol(),
                bound.protocol(),
            );
        }
        findings.check(|| "sessions that can be found".into(), self.by_remote.count(), found.len());
        audit_numbers(findings, "session", &self.sessions, &found);
        for (number, cell) in self.shards.iter().enumerate() {
            let timed = cell.shard.lock().wheel.all(&self.sessions);
            let ids: BTreeSet<u32> = timed.iter().map(|(id, _)| *id).collect();
            findings.check(
                || format!("sessions of shard {number} with a timer"),
                timed.len(),
                of_shard[number].len(),
            );
            findings.check(|| format!("sessions of shard {number} with a timer"), &ids, &of_shard[number]);
            for (id, slot) in timed {
                if let (Some(session), Some(slot)) = (self.sessions.get(id), slot) {
                    findings.check(|| format!("the slot of session {id}"), session.standing().slot(), slot);
                }
            }
            let counted: [u32; 3] = std::array::from_fn(|n| cell.sessions[n].load(Ordering::Relaxed));
            findings.check(|| format!("sessions of shard {number} by protocol"), counted, counts[number]);
        }
    }

    fn audit_bindings(&self, findings: &mut Findings) {
        let mut found = BTreeSet::new();
        for id in self.bindings.numbers() {
            let Some(binding) = self.bindings.get(id) else { continue };
            let Some(bound) = binding.read() else { continue };
            found.insert(id);
            let (inside, outside) = self.places_of(&bound);
            let indexed = [
                self.by_host.find(inside, |other| other == id),
                self.by_address.find(outside, |other| other == id),
            ];
            findings.check(|| format!("binding {id} can be found"), indexed, [Some(id); 2]);
            let of_it: Vec<Standing> = self
                .sessions
                .numbers()
                .filter_map(|session| self.sessions.get(session))
                .filter(|session| in_use(session.version.load(Ordering::Acquire)))
                .filter(|session| session.binding.load(Ordering::Relaxed) == id)
                .map(super::entries::Session::standing)
                .collect();
            let taken_part = of_it.iter().filter(|standing| standing.taken_part()).count() as u32;
            let counted = [&binding.sessions, &binding.taken_part].map(|count| count.load(Ordering::Relaxed));
            findings.check(|| format!("sessions of binding {id}"), counted, [of_it.len() as u32, taken_part]);
            if of_it.is_empty() && !bound.is_static() {
                findings.0.push(format!("nothing keeps binding {id}"));
            }
            findings.check(
                || format!("the lessee of binding {id} is there"),
                self.live_host(bound.owner),
                true,
            );
        }
        let counts = [self.by_host.count(), self.by_address.count()];
        findings.check(|| "bindings that can be found".into(), counts, [found.len(); 2]);
        audit_numbers(findings, "binding", &self.bindings, &found);
    }

    fn live_host(&self, id: u32) -> bool {
        let Some(host) = self.hosts.get(id) else { return false };
        let prefix = host.data.lock().prefix;
        let place = self.host_index.place(self.hasher.prefix(prefix));
        self.host_index.find(place, |other| other == id).is_some()
    }

    fn live_subscriber(&self, id: u32) -> bool {
        let Some(subscriber) = self.subscribers.get(id) else { return false };
        let prefix = subscriber.data.lock().prefix.to_bits();
        let place = self.subscriber_index.place(self.hasher.prefix(prefix));
        self.subscriber_index.find(place, |other| other == id).is_some()
    }

    fn audit_lessees(&self, findings: &mut Findings) {
        let hosts: BTreeSet<u32> = self.hosts.numbers().filter(|id| self.live_host(*id)).collect();
        let subscribers: BTreeSet<u32> =
            self.subscribers.numbers().filter(|id| self.live_subscriber(*id)).collect();
        // Hosts, sessions by side, and ports.
        let mut sums: BTreeMap<u32, (u32, [u32; 2], u32)> = BTreeMap::new();
        for id in &hosts {
            let Some(host) = self.hosts.get(*id) else { continue };
            let data = host.data.lock();
            let bindings: Vec<_> = self
                .bindings
                .numbers()
                .filter_map(|binding| self.bindings.get(binding)?.read())
                .filter(|bound| bound.owner == *id)
                .collect();
            findings.check(|| format!("bindings of host {id}"), data.bindings, bindings.len() as u32);
            let mut blocks = BTreeSet::new();
            let (mut free, mut ports) = ([[0; 3]; 2], 0);
            let mut at = host.first_block.load(Ordering::Relaxed);
            while let Some(block) = self.blocks.get(at).filter(|_| !blocks.contains(&at)) {
                blocks.insert(at);
                let data = block.data.lock();
                ports += u32::from(data.size);
                let usable = u32::from(data.size) - data.reserved().len() as u32;
                for (sum, set) in free[data.class() as usize].iter_mut().zip(&data.ports) {
                    *sum += match set.is_made() {
                        _ if data.retired => 0,
                        true => u32::from(set.free()),
                        false => usable,
                    };
                }
                at = data.next;
            }
            let owned: BTreeSet<u32> = self
                .blocks
                .numbers()
                .filter(|block| {
                    self.blocks.get(*block).is_some_and(|block| {
                        in_use(block.version.load(Ordering::Acquire))
                            && block.owner.load(Ordering::Relaxed) == *id
                    })
                })
                .collect();
            findings.check(
                || format!("blocks of host {id}"),
                (data.blocks, &blocks),
                (owned.len() as u32, &owned),
            );
            findings.check(|| format!("free ports of host {id}"), data.free, free);
            findings.check(|| format!("host {id} has something"), data.blocks + data.bindings > 0, true);
            let subscriber = host.subscriber.load(Ordering::Relaxed);
            findings.check(
                || format!("the subscriber of host {id} is there"),
                subscribers.contains(&subscriber),
                true,
            );
            let sum = sums.entry(subscriber).or_default();
            sum.0 += 1;
            sum.2 += ports;
        }
        for view in self.sessions.numbers().filter_map(|id| self.sessions.get(id)) {
            if !in_use(view.version.load(Ordering::Acquire)) {
                continue;
            }
            let bound = self.bindings.get(view.binding.load(Ordering::Relaxed)).and_then(Binding::read);
            let host = bound.and_then(|bound| self.hosts.get(bound.owner));
            let Some(host) = host else { continue };
            let sum = sums.entry(host.subscriber.load(Ordering::Relaxed)).or_default();
            sum.1[view.standing().opened_by().index()] += 1;
        }
        for id in &subscribers {
            let Some(subscriber) = self.subscribers.get(*id) else { continue };
            let data = subscriber.data.lock();
            let counted = (data.hosts, data.opened, data.ports);
            findings.check(
                || format!("what subscriber {id} has"),
                counted,
                sums.get(id).copied().unwrap_or_default(),
            );
            findings.check(|| format!("subscriber {id} has a host"), data.hosts > 0, true);
        }
        findings.check(|| "hosts that can be found".into(), self.host_index.count(), hosts.len());
        findings.check(
            || "subscribers that can be found".into(),
            self.subscriber_index.count(),
            subscribers.len(),
        );
        audit_numbers(findings, "host", &self.hosts, &hosts);
        audit_numbers(findings, "subscriber", &self.subscribers, &subscribers);
    }

    fn audit_blocks(&self, findings: &mut Findings, may_be_kept: &dyn Fn(Protocol, Ipv4Addr, u16) -> bool) {
        let mut found = BTreeSet::new();
        let mut idle = vec![BTreeSet::new(); SHARDS];
        for id in self.blocks.numbers() {
            let Some(block) = self.blocks.get(id) else { continue };
            if !in_use(block.version.load(Ordering::Acquire)) {
                continue;
            }
            found.insert(id);
            let owner = block.owner.load(Ordering::Relaxed);
            findings.check(|| format!("the lessee of block {id} is there"), self.live_host(owner), true);
            let data = block.data.lock();
            if data.is_idle()
                && let Some(host) = self.hosts.get(owner)
            {
                idle[host.shard.load(Ordering::Acquire) as usize].insert(id);
            }
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
                let of_it: BTreeSet<u16> = self
                    .bindings
                    .numbers()
                    .filter_map(|binding| {
                        let binding = self.bindings.get(binding)?;
                        (binding.block.load(Ordering::Relaxed) == id).then(|| binding.read())?
                    })
                    .filter(|bound| bound.protocol() == protocol)
                    .map(|bound| bound.endpoint().1)
                    .collect();
                let used = usize::from(data.used[protocol as usize]);
                findings.check(|| format!("{protocol:?} ports in use of block {id}"), used, of_it.len());
                let is_taken = |place: u16| {
                    let port = data.first_port + place;
                    of_it.contains(&port) || data.reserved().contains(&port)
                };
                let is_kept = |place: u16| {
                    may_be_kept(protocol, Ipv4Addr::from_bits(data.address), data.first_port + place)
                };
                let ports = &data.ports[protocol as usize];
                let is_sound = !ports.is_made() || ports.is_sound(is_taken, is_kept);
                findings.check(|| format!("the {protocol:?} ports of block {id} are sound"), is_sound, true);
            }
        }
        audit_numbers(findings, "block", &self.blocks, &found);
        for (number, cell) in self.shards.iter().enumerate() {
            let (listed, is_linked) = self.idle_of(cell);
            findings.check(|| format!("idle blocks of shard {number}"), &listed, &idle[number]);
            findings.check(
                || format!("the idle blocks of shard {number} are linked both ways"),
                is_linked,
                true,
            );
        }
    }

    /// The list of idle blocks, and whether it says the same from either end.
    fn idle_of(&self, cell: &ShardCell) -> (BTreeSet<u32>, bool) {
        let shard = cell.shard.lock();
        let (mut listed, mut before, mut is_linked) = (BTreeSet::new(), 0, true);
        let mut at = shard.idle_first;
        while let Some(block) = self.blocks.get(at).filter(|_| !listed.contains(&at)) {
            let data = block.data.lock();
            is_linked &= data.idle_before == before;
            listed.insert(at);
            (before, at) = (at, data.idle_behind);
        }
        (listed, is_linked && shard.idle_last() == before)
    }

    fn audit_permits(&self, findings: &mut Findings) {
        let Some((permits, index)) = &self.permits else { return };
        let mut should: BTreeMap<(u32, u32), u32> = BTreeMap::new();
        for session in self.sessions.numbers().filter_map(|id| self.sessions.get(id)) {
            if in_use(session.version.load(Ordering::Acquire)) && session.standing().taken_part() {
                let key = (session.binding.load(Ordering::Relaxed), session.remote_address().to_bits());
                *should.entry(key).or_default() += 1;
            }
        }
        let (mut is, mut found) = (BTreeMap::new(), BTreeSet::new());
        for id in permits.numbers() {
            let Some(permit) = permits.get(id) else { continue };
            let [binding, address, sessions] = [&permit.binding, &permit.address, &permit.sessions]
                .map(|value| value.load(Ordering::Relaxed));
            if binding != 0 {
                found.insert(id);
                is.insert((binding, address), sessions);
            }
        }
        findings.check(|| "who is let in".into(), &is, &should);
        findings.check(|| "permits that can be found".into(), index.count(), should.len());
        audit_numbers(findings, "permit", permits, &found);
    }
}

/// A number is an entry's in use or a free one.
fn audit_numbers<T: Entry>(findings: &mut Findings, what: &str, slab: &Slab<T>, found: &BTreeSet<u32>) {
    let free = slab.free_numbers();
    let free_set: BTreeSet<u32> = free.iter().copied().collect();
    findings.check(|| format!("free {what} numbers that are there once"), free.len(), free_set.len());
    findings.check(|| format!("{what} numbers in use"), slab.live() as usize, found.len());
    let nobody: Vec<u32> = slab.numbers().filter(|id| found.contains(id) == free_set.contains(id)).collect();
    findings.check(|| format!("{what} numbers that are nobody's, or in use and free"), nobody, Vec::new());
}
