//! The buffer: finds the datagram of a fragment, and sees to it that no bound is passed.

use std::time::Duration;

use fast_nat::Timestamp;
use interproto::{FragmentPart, Ports};

use super::datagram::{Datagram, Fragment, Need, Step, Trouble};
use super::order::{List, Order};
use super::table::{Place, Table};
use crate::faults::{self, Point};

use super::{FragmentRefusal, Key, Limits, Lost, Source, Taken, Usage};

/// What one source has.
#[derive(Debug, Default)]
struct Share {
    datagrams: usize,
    /// Bytes, beside the tables.
    memory: usize,
    by_age: List,
}

/// Where fragments wait. See [the module](super).
///
/// Each call costs a look at the fragments of its own datagram, and beyond that a constant on the average: what it removes was
/// added by a call of its own.
#[derive(Debug)]
pub struct FragmentBuffer {
    limits: Limits,
    fragments_per_datagram: usize,
    timeout: Duration,
    /// Bytes for everything but the tables, which have theirs from the beginning.
    memory: usize,
    /// What a source may have of it.
    memory_per_source: usize,
    datagrams_per_source: usize,
    /// Bytes that are used of it.
    used: usize,
    /// Packets that are parked.
    parked: usize,
    datagrams: Table<Key, Datagram>,
    sources: Table<Source, Share>,
    by_age: List,
    lost: Lost,
    /// The latest moment that was seen. Workers read their clocks before they come here, and may come in another order.
    now: Timestamp,
}

impl FragmentBuffer {
    /// Bytes of the tables for each datagram, which may be the only one of its source.
    pub(super) const PER_DATAGRAM: usize =
        Table::<Key, Datagram>::memory_per_entry() + Table::<Source, Share>::memory_per_entry();

    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        let datagrams = limits.datagrams.min(limits.memory / 2 / Self::PER_DATAGRAM);
        let memory = limits.memory - datagrams * Self::PER_DATAGRAM;
        let shares = limits.shares.max(1);
        Self {
            limits,
            fragments_per_datagram: limits.fragments_per_datagram,
            timeout: limits.timeout,
            memory,
            memory_per_source: memory / shares,
            datagrams_per_source: (datagrams / shares).max(1),
            used: 0,
            parked: 0,
            datagrams: Table::new(datagrams),
            sources: Table::new(datagrams),
            by_age: List::default(),
            lost: Lost::default(),
            now: Timestamp::default(),
        }
    }

    /// Takes a fragment of a datagram that is translated fragment by fragment. `ports` are those of this fragment, which only the
    /// first one has; `storage` is what it was checked in.
    ///
    /// The answer is [`Taken::Whole`] where this was the last fragment that was missing of a datagram whose first one came to
    /// [`Self::collect`].
    pub fn pass(
        &mut self,
        key: &Key,
        part: &FragmentPart,
        ports: Ports,
        storage: &[u8],
        now: Timestamp,
    ) -> Taken {
        self.take(key, part, Need::Ports(ports), storage, now)
    }

    /// Takes a fragment that cannot be translated without the others (`interproto::Verdict::Hold`): of ICMP, and the first one of
    /// IPv4 UDP without a checksum. `storage` is what it was checked in.
    ///
    /// The answer is [`Taken::Parked`], [`Taken::Whole`] or [`Taken::Refused`].
    pub fn collect(&mut self, key: &Key, part: &FragmentPart, storage: &[u8], now: Timestamp) -> Taken {
        self.take(key, part, Need::Whole, storage, now)
    }

    /// Fragments that come from now on wait so long for the others.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Ends what is over, and says what was lost since the last call without having been reported by any other.
    pub fn expire(&mut self, now: Timestamp) -> Lost {
        self.end_overdue(now);
        std::mem::take(&mut self.lost)
    }

    /// After how long [`Self::expire`] finds something. `None`: there is nothing.
    pub fn wake_after(&self, now: Timestamp) -> Option<Duration> {
        let oldest = self.datagrams.get(self.by_age.oldest()?)?;
        Some(oldest.until.since(now))
    }

    /// Begins anew, after a panic in the midst of a change: what is parked is lost, and counts as if its time were over.
    pub(super) fn abandon(&mut self) {
        let mut lost = std::mem::take(&mut self.lost);
        lost.timed_out += self.parked as u64;
        let limits = Limits { timeout: self.timeout, ..self.limits };
        *self = Self { lost, now: self.now, ..Self::new(limits) };
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let tables = Self::PER_DATAGRAM * self.datagrams.most();
        Usage { datagrams: self.datagrams.len(), packets: self.parked, memory: tables + self.used }
    }

    fn take(&mut self, key: &Key, part: &FragmentPart, need: Need, storage: &[u8], now: Timestamp) -> Taken {
        self.end_overdue(now);
        let Some(fragment) = Fragment::read(part, storage) else {
            return refused(FragmentRefusal::Malformed, 1);
        };
        let Some(place) = self.datagrams.find(key).or_else(|| self.open(key)) else {
            return refused(FragmentRefusal::BufferFull, 1);
        };
        match self.place(place, &fragment, need) {
            Ok(step) => self.done(key, place, step),
            Err(Trouble::Refuse(reason)) => refused(reason, 1),
            Err(Trouble::Lose(reason)) => refused(reason, 1 + self.lose(place, reason)),
        }
    }

    /// Puts a fragment to the others of its datagram.
    fn place(&mut self, place: Place, fragment: &Fragment<'_>, need: Need) -> Result<Step, Trouble> {
        // It was found or made just now.
        const GONE: Trouble = Trouble::Refuse(FragmentRefusal::BufferFull);
        let datagram = self.datagrams.get(place).ok_or(GONE)?;
        let step = datagram.judge(fragment, need, self.fragments_per_datagram)?;
        self.charge(place, datagram.charge(step, fragment)).map_err(Trouble::Lose)?;
        self.datagrams.get_mut(place).ok_or(GONE)?.place(fragment, need, step);
        self.parked += usize::from(matches!(step, Step::Park));
        Ok(step)
    }

    /// What has become of a fragment that was put to the others.
    fn done(&mut self, key: &Key, place: Place, step: Step) -> Taken {
        let Some(datagram) = self.datagrams.get_mut(place) else {
            return refused(FragmentRefusal::BufferFull, 1);
        };
        let is_complete = datagram.is_complete();
        let taken = match step {
            Step::Pass(ports) => Taken::Now(ports),
            Step::Release(ports) => {
                let parked = datagram.release();
                self.parked -= parked.len();
                if parked.is_empty() { Taken::Now(ports) } else { Taken::Release { ports, parked } }
            }
            Step::Park if is_complete => match datagram.put_together(key) {
                Ok(whole) => Taken::Whole(whole),
                Err(reason) => refused(reason, datagram.parked()),
            },
            Step::Park => Taken::Parked,
        };
        if is_complete {
            self.remove(place);
        }
        taken
    }

    /// Makes room for a datagram. `None`: there is no room for any.
    fn open(&mut self, key: &Key) -> Option<Place> {
        let source = key.source();
        if let Some(share) = self.share_of(source)
            && share.datagrams >= self.datagrams_per_source
            && let Some(oldest) = share.by_age.oldest()
        {
            self.lost.source_share += self.remove(oldest);
        }
        if self.datagrams.is_full()
            && let Some(oldest) = self.by_age.oldest()
        {
            self.lost.buffer_full += self.remove(oldest);
        }
        let owner = match self.sources.find(&source) {
            Some(owner) => owner,
            None => self.sources.insert(source, Share::default())?,
        };
        let share = self.sources.get_mut(owner)?;
        let place = self.datagrams.insert(*key, Datagram::new(owner, self.now + self.timeout))?;
        faults::at(Point::FragmentOpen);
        share.datagrams += 1;
        share.by_age.append(place, Order::Source, &mut self.datagrams);
        self.by_age.append(place, Order::Age, &mut self.datagrams);
        Some(place)
    }

    fn share_of(&self, source: Source) -> Option<&Share> {
        self.sources.get(self.sources.find(&source)?)
    }

    /// Charges a datagram for so many bytes, and removes older ones until there is room.
    fn charge(&mut self, place: Place, bytes: usize) -> Result<(), FragmentRefusal> {
        let Some(datagram) = self.datagrams.get(place) else { return Ok(()) };
        let (owner, before) = (datagram.source, datagram.charged);
        while let Some(share) = self.sources.get(owner)
            && share.memory - before + bytes > self.memory_per_source
        {
            let oldest = share.by_age.oldest_but(place, Order::Source, &self.datagrams);
            self.lost.source_share += self.remove(oldest.ok_or(FragmentRefusal::SourceShare)?);
        }
        while self.used - before + bytes > self.memory {
            let oldest = self.by_age.oldest_but(place, Order::Age, &self.datagrams);
            self.lost.buffer_full += self.remove(oldest.ok_or(FragmentRefusal::BufferFull)?);
        }
        self.recharge(place, bytes);
        Ok(())
    }

    fn recharge(&mut self, place: Place, bytes: usize) {
        let Some(datagram) = self.datagrams.get_mut(place) else { return };
        let before = std::mem::replace(&mut datagram.charged, bytes);
        self.used = self.used - before + bytes;
        if let Some(share) = self.sources.get_mut(datagram.source) {
            share.memory = share.memory - before + bytes;
        }
    }

    /// Loses a datagram, and remembers it. Answers with how many packets were parked.
    fn lose(&mut self, place: Place, reason: FragmentRefusal) -> usize {
        let lost = self.datagrams.get_mut(place).map_or(0, |datagram| datagram.lose(reason));
        self.parked -= lost;
        self.recharge(place, 0);
        lost
    }

    /// Forgets a datagram. Answers with how many packets were parked.
    fn remove(&mut self, place: Place) -> u64 {
        self.recharge(place, 0);
        self.by_age.unlink(place, Order::Age, &mut self.datagrams);
        faults::at(Point::FragmentEnd);
        let Some(owner) = self.datagrams.get(place).map(|datagram| datagram.source) else { return 0 };
        if let Some(share) = self.sources.get_mut(owner) {
            share.by_age.unlink(place, Order::Source, &mut self.datagrams);
            share.datagrams -= 1;
            if share.datagrams == 0 {
                self.sources.remove(owner);
            }
        }
        let parked = self.datagrams.remove(place).map_or(0, |datagram| datagram.parked());
        self.parked -= parked;
        parked as u64
    }

    fn end_overdue(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        while let Some(oldest) = self.by_age.oldest()
            && self.datagrams.get(oldest).is_some_and(|datagram| datagram.until <= self.now)
        {
            self.lost.timed_out += self.remove(oldest);
        }
    }
}

fn refused(reason: FragmentRefusal, packets: usize) -> Taken {
    Taken::Refused { reason, packets }
}

#[cfg(test)]
impl FragmentBuffer {
    /// Panics unless all counts are what a count says, and within their bounds.
    pub(super) fn verify(&self, limits: &Limits) {
        let datagrams = || self.datagrams.values();
        assert_eq!(self.used, datagrams().map(|datagram| datagram.charged).sum::<usize>(), "bytes");
        assert_eq!(self.parked, datagrams().map(Datagram::parked).sum::<usize>(), "packets");
        let mut allocated = self.datagrams.memory() + self.sources.memory();
        for datagram in datagrams() {
            assert!(datagram.allocated() <= datagram.charged, "a datagram has more than it is charged for");
            allocated += datagram.allocated();
        }
        let usage = self.usage();
        assert!(allocated <= usage.memory, "{allocated} bytes of {}", usage.memory);
        assert!(usage.memory <= limits.memory, "{usage:?}");
        assert!(usage.datagrams <= limits.datagrams, "{usage:?}");
        let by_age = self.by_age.places(Order::Age, &self.datagrams);
        assert_eq!(by_age.len(), self.datagrams.len(), "every datagram has its place by age");
        assert!(by_age.is_sorted_by_key(|place| self.datagrams.get(*place).map(|datagram| datagram.until)));
        let mut of_sources = 0;
        for share in self.sources.values() {
            let own = share.by_age.places(Order::Source, &self.datagrams);
            let memory = own.iter().filter_map(|place| self.datagrams.get(*place));
            assert_eq!(share.memory, memory.map(|datagram| datagram.charged).sum::<usize>());
            assert_eq!(share.datagrams, own.len());
            assert!(share.datagrams > 0 && share.datagrams <= self.datagrams_per_source);
            assert!(share.memory <= self.memory_per_source);
            of_sources += own.len();
        }
        assert_eq!(of_sources, self.datagrams.len(), "every datagram is one source's");
    }
}
