//! The last events of a process, for its last words: what the log had of them may have been limited, or lost.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::Mutex;

/// So many are kept, of so many bytes at most: 20 KiB.
const MOST: usize = 64;
const LONGEST: usize = 320;

/// What has happened, the latest last.
#[derive(Debug, Default)]
pub struct Events(Mutex<VecDeque<(Instant, String)>>);

impl Events {
    /// Something has happened. A text that is too long is cut.
    pub fn note(&self, mut text: String) {
        if text.len() > LONGEST {
            text.truncate(text.floor_char_boundary(LONGEST));
            text.push_str("...");
        }
        let mut events = self.0.lock();
        if events.len() >= MOST {
            events.pop_front();
        }
        events.push_back((Instant::now(), text));
    }

    /// One sentence each, with how long ago that was.
    pub fn told(&self) -> Vec<String> {
        let events = self.0.lock();
        events.iter().map(|(at, text)| format!("{:.1} s ago: {text}", at.elapsed().as_secs_f64())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_in_their_order_and_long_ones_are_cut() {
        let events = Events::default();
        for number in 0..MOST + 3 {
            events.note(format!("event {number}"));
        }
        events.note("ü".repeat(LONGEST));
        let told = events.told();
        assert_eq!(told.len(), MOST);
        assert!(told[0].ends_with(" s ago: event 4"), "{}", told[0]);
        assert!(told[MOST - 1].ends_with("ü..."));
        assert!(told.iter().all(|text| text.len() < LONGEST + 20));
    }
}
