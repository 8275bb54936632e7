//! The buffer as all workers share it.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fast_nat::Timestamp;
use interproto::{FragmentPart, Ports};
use parking_lot::{Mutex, MutexGuard};

use super::{FragmentBuffer, Key, Limits, Lost, Taken, Usage};

/// Nothing waits.
const NEVER: u64 = u64::MAX;

/// One [`FragmentBuffer`] behind a lock. Fragments are rare, and so is waiting for it: who has none asks [`Self::expire`] and
/// [`Self::due`] at every turn, and these read one number.
#[derive(Debug)]
pub struct Fragments {
    buffer: Mutex<FragmentBuffer>,
    /// When something will be over, in milliseconds.
    due: AtomicU64,
}

impl Fragments {
    /// An empty buffer.
    pub fn new(limits: Limits) -> Self {
        Self { buffer: Mutex::new(FragmentBuffer::new(limits)), due: AtomicU64::new(NEVER) }
    }

    /// Takes a fragment: with its ports, to be translated by itself ([`FragmentBuffer::pass`]), or without, because the whole datagram
    /// is needed ([`FragmentBuffer::collect`]). Says what was lost meanwhile, too.
    pub fn take(
        &self,
        key: &Key,
        part: &FragmentPart,
        ports: Option<Ports>,
        storage: &[u8],
        now: Timestamp,
    ) -> (Taken, Lost) {
        let mut buffer = self.lock();
        let taken = match ports {
            Some(ports) => buffer.pass(key, part, ports, storage, now),
            None => buffer.collect(key, part, storage, now),
        };
        (taken, self.end(&mut buffer, now))
    }

    /// Ends what is over, and says what was lost by that; `None`: nothing is over.
    pub fn expire(&self, now: Timestamp) -> Option<Lost> {
        let is_due = self.due.load(Ordering::Relaxed) <= now.as_millis();
        is_due.then(|| self.end(&mut self.lock(), now))
    }

    /// When [`Self::expire`] will find something; `None`: nothing waits.
    pub fn due(&self) -> Option<Timestamp> {
        let due = self.due.load(Ordering::Relaxed);
        (due != NEVER).then(|| Timestamp::from_millis(due))
    }

    /// Whether its lock is held by a thread that does not give it back within `patience`.
    pub fn is_stuck(&self, patience: Duration) -> bool {
        self.buffer.try_lock_for(patience).is_none()
    }

    /// Datagrams that begin from now on have so much time.
    pub fn set_timeout(&self, timeout: Duration) {
        self.buffer.lock().set_timeout(timeout);
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        self.buffer.lock().usage()
    }

    fn lock(&self) -> Locked<'_> {
        Locked { buffer: self.buffer.lock(), due: &self.due }
    }

    fn end(&self, buffer: &mut FragmentBuffer, now: Timestamp) -> Lost {
        let lost = buffer.expire(now);
        let due = buffer.wake_after(now).map_or(NEVER, |after| (now + after).as_millis());
        self.due.store(due, Ordering::Relaxed);
        lost
    }
}

/// Under the lock. What a panic leaves half done nobody else sees.
struct Locked<'f> {
    buffer: MutexGuard<'f, FragmentBuffer>,
    due: &'f AtomicU64,
}

impl Deref for Locked<'_> {
    type Target = FragmentBuffer;
    fn deref(&self) -> &FragmentBuffer {
        &self.buffer
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut FragmentBuffer {
        &mut self.buffer
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.buffer.abandon();
            // What was lost is told at the next look.
            self.due.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_looked_at_when_its_time_is_over_and_not_before() {
        let fragments = Fragments::new(Limits::DEFAULT);
        let at = Timestamp::from_millis;
        assert_eq!((fragments.expire(at(0)), fragments.due()), (None, None));
        let key = Key::V4 {
            source: std::net::Ipv4Addr::new(192, 0, 2, 1),
            destination: std::net::Ipv4Addr::new(192, 0, 2, 2),
            protocol: 17,
            identification: 7,
        };
        let part = FragmentPart { identification: 7, offset: 8, more: false, headers: 20, payload: 84..92 };
        let (taken, lost) = fragments.take(&key, &part, Some(Ports::None), &[0; 92], at(1000));
        assert_eq!((taken, lost), (Taken::Parked, Lost::default()));
        assert_eq!(fragments.due(), Some(at(3000)));
        assert_eq!(fragments.expire(at(2999)), None);
        let lost = Lost { timed_out: 1, ..Lost::default() };
        assert_eq!((fragments.expire(at(3000)), fragments.due()), (Some(lost), None));
        assert_eq!(fragments.usage().packets, 0);
    }
}
