//! The rate limit of ICMP errors: a token bucket (RFC 4443 §2.4 (f)).

use fast_nat::Timestamp;

/// A token bucket: `rate` tokens a second, `burst` at most. One per worker and address family.
#[derive(Debug)]
pub struct TokenBucket {
    rate: u64,
    /// Thousandths of a token, so that a call every millisecond still adds up.
    level: u64,
    full: u64,
    filled: Timestamp,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(rate: u32, burst: u32, now: Timestamp) -> Self {
        let full = u64::from(burst) * 1000;
        Self { rate: u64::from(rate), level: full, full, filled: now }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Timestamp) -> bool {
        let elapsed = now.as_millis().saturating_sub(self.filled.as_millis());
        self.filled = now;
        self.level = self.level.saturating_add(elapsed.saturating_mul(self.rate)).min(self.full);
        match self.level.checked_sub(1000) {
            Some(rest) => {
                self.level = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_burst_passes_then_the_rate() {
        let start = Timestamp::from_millis(1_000_000);
        let mut bucket = TokenBucket::new(10, 5, start);
        assert_eq!((0..10).filter(|_| bucket.take(start)).count(), 5);
        let passed = (1..=1000).filter(|ms| bucket.take(Timestamp::from_millis(1_000_000 + ms))).count();
        assert_eq!(passed, 10, "ten a second, although no single call saw a whole token's time");
    }
}
