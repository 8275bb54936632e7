//! What `pool` is to be asked for.
//!
//! A turn asks by one message, and a turn is short where packets come one by one: dozens of new hosts can be met before `pool` has run once, and
//! its mailbox is short. What it has no room for waits here for the next turn, together with what that one asks for.

use std::time::Duration;

use fast_nat::Timestamp;

use crate::datapath::Ask;
use crate::supervision::Unavailable;

/// Hosts and ports that `pool` is asked for by one message.
const PER_MESSAGE: usize = 64;

/// So many wait at most; those of further hosts are asked for again by the hold, and blocks ahead when the next session needs one.
const MOST: usize = 1024;

/// A worker without packets looks again so soon.
const SOON: Duration = Duration::from_millis(1);

/// For so long a mailbox may be full. The hold asks again for all that it has as often, so what waits is let go then.
const PATIENCE: Duration = Duration::from_millis(100);

/// What waits to be asked for.
#[derive(Debug)]
pub(super) struct Asks {
    waiting: Vec<Ask>,
    /// Since when `pool` has had no room.
    full_since: Option<Timestamp>,
}

impl Asks {
    pub(super) fn new() -> Self {
        Self { waiting: Vec::with_capacity(PER_MESSAGE), full_since: None }
    }

    pub(super) fn push(&mut self, ask: Ask) {
        self.waiting.push(ask);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes all of them over.
    pub(super) fn append(&mut self, asks: &mut Vec<Ask>) {
        self.waiting.append(asks);
    }

    /// After how long [`Self::send`] wants to be called again; `None` while nothing waits.
    pub(super) fn wake_after(&self) -> Option<Duration> {
        (!self.is_empty()).then_some(SOON)
    }

    /// Sends what waits by `message`; answers with how many were sent. An error means that the rest was let go.
    pub(super) fn send(
        &mut self,
        now: Timestamp,
        mut message: impl FnMut(Vec<Ask>) -> Result<(), Unavailable>,
    ) -> (usize, Result<(), Unavailable>) {
        let mut sent = 0;
        let refused = self.waiting.chunks(PER_MESSAGE).find_map(|asks| {
            let outcome = message(asks.to_vec());
            if outcome.is_ok() {
                sent += asks.len();
            }
            outcome.err()
        });
        let full_since = *self.full_since.get_or_insert(now);
        match refused {
            Some(Unavailable::Full) if now.since(full_since) < PATIENCE => {
                self.waiting.drain(..sent);
                self.waiting.truncate(MOST);
                (sent, Ok(()))
            }
            outcome => {
                self.waiting.clear();
                self.full_since = None;
                (sent, outcome.map_or(Ok(()), Err))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use fast_nat::nat64::PortClass;

    use super::*;

    fn ask(n: usize) -> Ask {
        Ask { host: Ipv6Addr::from(n as u128), class: PortClass::High }
    }

    fn with(count: usize) -> Asks {
        let mut asks = Asks::new();
        asks.append(&mut (0..count).map(ask).collect());
        asks
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    /// `pool`, whose mailbox has room for so many messages.
    struct Mailbox {
        room: usize,
        got: Vec<Vec<Ask>>,
    }

    impl Mailbox {
        fn with_room(room: usize) -> Self {
            Self { room, got: Vec::new() }
        }

        fn take(&mut self, message: Vec<Ask>) -> Result<(), Unavailable> {
            if self.got.len() == self.room {
                return Err(Unavailable::Full);
            }
            self.got.push(message);
            Ok(())
        }
    }

    #[test]
    fn a_message_has_so_many_and_all_are_sent_in_their_order() {
        let mut pool = Mailbox::with_room(3);
        let mut asks = with(130);
        assert_eq!(asks.wake_after(), Some(SOON));
        assert_eq!(asks.send(at(0), |message| pool.take(message)), (130, Ok(())));
        assert_eq!(pool.got.iter().map(Vec::len).collect::<Vec<_>>(), [64, 64, 2]);
        assert_eq!(pool.got.concat(), (0..130).map(ask).collect::<Vec<_>>());
        assert_eq!(asks.wake_after(), None);
    }

    #[test]
    fn what_finds_no_room_is_sent_with_what_comes_later() {
        let mut asks = with(65);
        assert_eq!(asks.send(at(0), |message| Mailbox::with_room(0).take(message)), (0, Ok(())));
        let mut pool = Mailbox::with_room(1);
        assert_eq!(asks.send(at(1), |message| pool.take(message)), (64, Ok(())));
        assert_eq!(asks.wake_after(), Some(SOON));
        asks.push(ask(65));
        pool.room = 2;
        assert_eq!(asks.send(at(2), |message| pool.take(message)), (2, Ok(())));
        assert_eq!(pool.got.concat(), (0..66).map(ask).collect::<Vec<_>>());
    }

    #[test]
    fn a_mailbox_that_stays_full_is_told_of_and_the_next_patience_begins_anew() {
        let mut asks = with(1);
        let full = |_| Err(Unavailable::Full);
        assert_eq!(asks.send(at(1000), full), (0, Ok(())));
        assert_eq!(asks.send(at(1099), full), (0, Ok(())));
        assert_eq!(asks.send(at(1100), full), (0, Err(Unavailable::Full)));
        assert_eq!(asks.wake_after(), None, "let go");
        asks.push(ask(1));
        assert_eq!(asks.send(at(1150), full), (0, Ok(())));
        assert_eq!(asks.send(at(1200), |_| Ok(())), (1, Ok(())));
        // Being full for a while now and then is not being full for long.
        asks.push(ask(2));
        assert_eq!(asks.send(at(1260), full), (0, Ok(())));
        assert_eq!(asks.send(at(1359), full), (0, Ok(())));
    }

    #[test]
    fn who_is_not_there_is_told_of_at_once_and_what_was_to_be_asked_is_let_go() {
        for why in [Unavailable::Absent, Unavailable::Ended] {
            let mut asks = with(65);
            let mut first = true;
            let once = |_| if std::mem::take(&mut first) { Ok(()) } else { Err(why) };
            assert_eq!(asks.send(at(0), once), (64, Err(why)));
            assert_eq!(asks.wake_after(), None);
        }
    }

    #[test]
    fn no_more_wait_than_the_bound() {
        let mut asks = with(MOST + 100);
        assert_eq!(asks.send(at(0), |_| Err(Unavailable::Full)), (0, Ok(())));
        assert_eq!(asks.send(at(1), |_| Ok(())), (MOST, Ok(())));
    }
}
