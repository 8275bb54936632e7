//! Packets that the engine wants sent.

use etherparse::PacketBuilder;
use fast_nat::nat64::{Outbound, Output as Wanted};
use interproto::{HEADROOM, Icmpv4Error, Ipv4Packet, VirtioNetHdr};

use super::{Output, Router, Rules};

/// The hop limit of what the router itself sends (IANA's default).
const HOP_LIMIT: u8 = 64;

impl Router<'_> {
    /// Sends what the engine wants sent: `most` packets at a time.
    pub fn send_outputs(&mut self, most: usize, out: &mut (impl Output + ?Sized)) {
        for _ in 0..most {
            match self.tables.nat.poll_output(self.now) {
                None => return,
                Some(Wanted::Probe(flow)) => self.probe(&flow, out),
                Some(Wanted::Unreachable(syn)) => self.unreachable(&syn, out),
            }
        }
    }

    /// Asks the host of a connection whether it is still there: a segment without data and with a sequence number that it will
    /// not accept. A living host answers (RFC 6146 §3.5.2.2, RFC 9293 §3.10.7.4).
    fn probe(&self, flow: &Outbound, out: &mut (impl Output + ?Sized)) {
        let source = self.rules.prefix(flow.prefix).embed(flow.remote);
        let builder = PacketBuilder::ipv6(source.octets(), flow.host.octets(), HOP_LIMIT)
            .tcp(flow.remote_port, flow.port, 0, 0)
            .ack(0);
        let mut frame = Vec::with_capacity(VirtioNetHdr::LENGTH + builder.size(0));
        frame.extend(VirtioNetHdr::default().to_bytes());
        if builder.write(&mut frame, &[]).is_ok() && self.send_own(&frame, out) {
            self.counters.probes.add(1);
        }
    }

    /// Nobody has taken up a stored SYN.
    fn unreachable(&mut self, syn: &[u8], out: &mut (impl Output + ?Sized)) {
        let mut storage = vec![0; HEADROOM + syn.len()];
        storage[HEADROOM..].copy_from_slice(syn);
        let end = storage.len();
        let Ok(checked) = Ipv4Packet::check(&mut storage, HEADROOM..end) else { return };
        if !checked.may_be_answered() {
            return;
        }
        let port_unreachable = Icmpv4Error::DestinationUnreachable { code: 3 };
        let make =
            |rules: &Rules| checked.error_framed(port_unreachable, rules.icmp_source_v4, &rules.params);
        self.send_error(|limiters| &mut limiters.v4, make, out);
    }
}
