//! How fast a subscriber may make sessions: a token bucket counted in tenths of a token, since a tick is a tenth of a
//! second.

/// What a new session costs.
const COST: u64 = 10;

/// The tokens of one subscriber.
#[derive(Debug, Clone)]
pub struct Bucket {
    tenths: u64,
    filled: u64,
}

impl Bucket {
    /// A full one.
    pub fn new(burst: u32, tick: u64) -> Self {
        Self { tenths: u64::from(burst) * COST, filled: tick }
    }

    /// Takes one token if there is one. `rate` 0: no bound.
    pub fn take(&mut self, rate: u32, burst: u32, tick: u64) -> bool {
        if rate == 0 {
            return true;
        }
        let gained = u64::from(rate) * tick.saturating_sub(self.filled);
        self.tenths = (self.tenths + gained).min(u64::from(burst) * COST);
        self.filled = self.filled.max(tick);
        if self.tenths < COST {
            return false;
        }
        self.tenths -= COST;
        true
    }
}
