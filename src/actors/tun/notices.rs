//! Drops that an RFC wants told to the operator one by one, and not only counted.

use std::ops::Range;

use fast_nat::Timestamp;
use interproto::{Ipv4Packet, Ports};
use slog::{Logger, warn};

use crate::datapath::{DropReason, TokenBucket};

/// Records per second and worker, and at once.
const PER_SECOND: u32 = 1;
const BURST: u32 = 10;

/// Writes the log records of one worker's dropped packets, at a limited rate.
#[derive(Debug)]
pub(super) struct Notices {
    limit: TokenBucket,
    /// Records that the limit has held back since the last one.
    held_back: u64,
}

impl Notices {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { limit: TokenBucket::new(PER_SECOND, BURST, now), held_back: 0 }
    }

    /// Tells of a UDP datagram that was dropped because it has no checksum, with its addresses and ports (RFC 7915 §4.5).
    /// Of other packets the counters tell. The packet still lies where it came, unchanged.
    pub(super) fn dropped(
        &mut self,
        reason: DropReason,
        storage: &mut [u8],
        packet: Range<usize>,
        now: Timestamp,
        log: &Logger,
    ) {
        use interproto::DropReason::{UdpZeroChecksum, UdpZeroChecksumFragment};
        if !matches!(reason, DropReason::Packet(UdpZeroChecksum | UdpZeroChecksumFragment)) {
            return;
        }
        if !self.limit.take(now) {
            self.held_back += 1;
            return;
        }
        let Ok(checked) = Ipv4Packet::check(storage, packet) else { return };
        let tuple = checked.tuple();
        // A first fragment that is refused has ports all the same.
        let (source_port, destination_port) = match tuple.ports {
            Ports::Pair { source, destination } => (source, destination),
            _ => (0, 0),
        };
        warn!(log, "dropped a UDP datagram without a checksum, which IPv6 does not carry";
            "reason" => reason.as_str(),
            "source" => %tuple.source, "source_port" => source_port,
            "destination" => %tuple.destination, "destination_port" => destination_port,
            "records_held_back" => self.held_back);
        self.held_back = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use etherparse::PacketBuilder;
    use interproto::HEADROOM;
    use slog::{Drain, KV as _, Never, OwnedKVList, Record, Serializer, o};

    use super::*;

    /// Keeps what is logged, as text.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<String>>>);

    struct Text(String);

    impl Serializer for Text {
        fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
            self.0 = format!("{}{key}={value} ", self.0);
            Ok(())
        }
    }

    impl Drain for Kept {
        type Ok = ();
        type Err = Never;

        fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
            let mut text = Text(String::new());
            record.kv().serialize(record, &mut text).unwrap();
            self.0.lock().unwrap().push(text.0);
            Ok(())
        }
    }

    #[test]
    fn udp_without_a_checksum_that_is_dropped_is_logged_with_addresses_and_ports_at_a_limited_rate() {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([198, 51, 100, 2], [203, 0, 113, 7], 64)
            .udp(53, 4242)
            .write(&mut packet, b"data")
            .unwrap();
        packet[26..28].fill(0);
        let mut storage = [&[0; HEADROOM][..], &packet].concat();
        let kept = Kept::default();
        let log = Logger::root(kept.clone().fuse(), o!());
        let start = Timestamp::from_millis(1_000_000);
        let mut notices = Notices::new(start);
        let reason = interproto::DropReason::UdpZeroChecksum;
        let mut drop = |reason: DropReason, now| {
            notices.dropped(reason, &mut storage, HEADROOM..HEADROOM + packet.len(), now, &log);
        };
        drop(interproto::DropReason::HopLimitExceeded.into(), start);
        assert_eq!(kept.0.lock().unwrap().len(), 0, "only counted");
        for _ in 0..100 {
            drop(reason.into(), start);
        }
        drop(reason.into(), Timestamp::from_millis(1_001_000));
        let records = kept.0.lock().unwrap();
        assert_eq!(records.len(), BURST as usize + 1);
        for expected in ["reason=udp_zero_checksum ", "source=198.51.100.2 ", "source_port=53 "] {
            assert!(records[0].contains(expected), "{}", records[0]);
        }
        assert!(
            records[0].contains("destination=203.0.113.7 destination_port=4242 ")
                || records[0].contains("destination_port=4242 destination=203.0.113.7 "),
            "{}",
            records[0]
        );
        assert!(records.last().unwrap().contains("records_held_back=90 "), "{records:?}");
    }
}
