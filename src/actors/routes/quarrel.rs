//! Repairs that somebody undoes again and again: two daemons must not fight over the kernel's state for ever.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// So many repairs of one thing are made at once.
const AT_ONCE: u32 = 3;

/// Each further one waits twice as long after the one before.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// A repair that has lasted for so long was the last one of its row.
const PEACE: Duration = Duration::from_mins(10);

/// What was repaired lately.
#[derive(Debug, Default)]
pub(super) struct Quarrels {
    /// By what the repair is.
    of: HashMap<String, Quarrel>,
    /// When the first repair may be made that was not to be made yet.
    next: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Quarrel {
    repairs: u32,
    last: Instant,
}

impl Quarrel {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= PEACE
    }

    fn wait(&self) -> Duration {
        let doublings = self.repairs.checked_sub(AT_ONCE);
        doublings.map_or(Duration::ZERO, |doublings| {
            FIRST_WAIT.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_WAIT)
        })
    }
}

impl Quarrels {
    /// Whether this repair may be made now. `Err`: not yet, and why.
    pub(super) fn may_repair(&mut self, what: &str, now: Instant) -> Result<(), String> {
        let Some(quarrel) = self.of.get(what).filter(|quarrel| !quarrel.is_over(now)) else { return Ok(()) };
        let due = quarrel.last + quarrel.wait();
        if now >= due {
            return Ok(());
        }
        self.next = Some(self.next.map_or(due, |next| next.min(due)));
        Err(format!(
            "somebody has undone this {} times: {what}; it is made again after longer and longer waits, of {} s at most; \
             find out who changes it (ip monitor, nft monitor)",
            quarrel.repairs,
            LONGEST_WAIT.as_secs()
        ))
    }

    /// How long to wait until something that was put off since the last call may be repaired; `None`: nothing was put off.
    pub(super) fn take_wait(&mut self, now: Instant) -> Option<Duration> {
        self.next.take().map(|next| next.saturating_duration_since(now))
    }

    /// It was made.
    pub(super) fn repaired(&mut self, what: String, now: Instant) {
        self.of.retain(|_, quarrel| !quarrel.is_over(now));
        let quarrel = self.of.entry(what).or_insert(Quarrel { repairs: 0, last: now });
        *quarrel = Quarrel { repairs: quarrel.repairs.saturating_add(1), last: now };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_undoes_it_for_ever_makes_it_rare_and_one_who_stops_is_forgotten() {
        let mut quarrels = Quarrels::default();
        let start = Instant::now();
        let mut now = start;
        let mut made = Vec::new();
        // Undone each tenth of a second, for an hour.
        while now < start + Duration::from_hours(1) {
            if quarrels.may_repair("a route", now).is_ok() {
                quarrels.repaired("a route".to_owned(), now);
                made.push(now.duration_since(start).as_secs());
                assert_eq!(quarrels.take_wait(now), None);
            } else {
                let wait = quarrels.take_wait(now).unwrap();
                assert!(Duration::ZERO < wait && wait <= LONGEST_WAIT, "{wait:?}");
            }
            now += Duration::from_millis(100);
        }
        assert_eq!(made[..12], [0, 0, 0, 1, 3, 7, 15, 31, 63, 127, 255, 511], "{made:?}");
        let gaps: Vec<_> = made.windows(2).skip(12).map(|pair| pair[1].abs_diff(pair[0])).collect();
        assert!(gaps.iter().all(|gap| (300..=301).contains(gap)), "{gaps:?}");
        let why =
            quarrels.may_repair("a route", now.checked_sub(Duration::from_secs(1)).unwrap()).unwrap_err();
        assert!(why.contains("a route") && why.contains(&made.len().to_string()), "{why}");
        assert_eq!(quarrels.may_repair("another", now), Ok(()));
        now += PEACE;
        for _ in 0..AT_ONCE {
            assert_eq!(quarrels.may_repair("a route", now), Ok(()));
            quarrels.repaired("a route".to_owned(), now);
        }
        assert!(quarrels.may_repair("a route", now).is_err());
    }
}
