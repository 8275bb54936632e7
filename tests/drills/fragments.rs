//! The buffer of fragments after a panic in the midst of a change: nothing in it is left half done, and what was parked is told as lost.

use std::net::Ipv4Addr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fast_nat::Timestamp;
use interproto::{FragmentPart, Ports};
use protomask::datapath::fragments::{Fragments, Key, Limits, Taken};
use protomask::faults::{Point, arm, struck};

use crate::alone;

/// So many datagrams fit at a time.
const ROOM: u16 = 8;

fn buffer() -> Fragments {
    Fragments::new(Limits { datagrams: ROOM.into(), shares: 1, ..Limits::DEFAULT })
}

/// The second half of a datagram, which waits for the first.
fn park(fragments: &Fragments, identification: u16, seconds: u64) -> (Taken, u64) {
    let (source, destination) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
    let key = Key::V4 { source, destination, protocol: 17, identification };
    let part = FragmentPart {
        identification: identification.into(),
        offset: 8,
        more: false,
        headers: 20,
        payload: 20..28,
    };
    let now = Timestamp::from_millis(seconds * 1000);
    let (taken, lost) = fragments.take(&key, &part, Some(Ports::None), &[0; 28], now);
    (taken, lost.timed_out + lost.buffer_full + lost.source_share)
}

#[test]
fn a_panic_in_the_buffer_of_fragments_leaves_an_empty_one_and_says_what_was_lost() {
    let _alone = alone();
    for point in [Point::FragmentOpen, Point::FragmentEnd] {
        let fragments = buffer();
        let mut lost = 0;
        for n in 0..3 {
            assert_eq!(park(&fragments, n, 1), (Taken::Parked, 0));
        }
        let before = struck(point);
        arm(point, 1);
        // One more comes in, or what is parked is over.
        let seconds = if point == Point::FragmentOpen { 1 } else { 60 };
        assert!(catch_unwind(AssertUnwindSafe(|| park(&fragments, 7, seconds))).is_err());
        assert_eq!(struck(point), before + 1);
        let usage = fragments.usage();
        assert_eq!((usage.datagrams, usage.packets), (0, 0), "{point:?}");
        let told = fragments.expire(Timestamp::from_millis(60_000)).expect("something to tell");
        assert_eq!(told.timed_out, 3, "{point:?}: what was parked");
        // All of its room is there again, and each datagram that it gives up is told.
        for n in 0..3 * ROOM {
            let (taken, gone) = park(&fragments, 100 + n, 61);
            assert_eq!(taken, Taken::Parked, "{point:?}");
            lost += gone;
        }
        assert_eq!((fragments.usage().datagrams, lost), (ROOM.into(), u64::from(2 * ROOM)), "{point:?}");
        let told = fragments.expire(Timestamp::from_millis(120_000)).expect("something to tell");
        assert_eq!((told.timed_out, fragments.due()), (ROOM.into(), None), "{point:?}");
    }
}
