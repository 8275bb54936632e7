//! Looking at sessions from outside.

use std::sync::atomic::Ordering;

use super::entries::{endpoint_parts, in_use};
use super::{Inbound, Nat64, Outbound, SessionRef, SessionView, moment};

impl Nat64 {
    /// All about this session, if it is not over.
    pub fn session(&self, session: SessionRef) -> Option<SessionView> {
        self.view(session.id).filter(|view| view.reference == session)
    }

    /// All sessions, in no order. What begins or ends meanwhile may or may not be among them.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView> + '_ {
        self.sessions.numbers().filter_map(|id| self.view(id))
    }

    /// The same in steps: looks at `visit` places from `from` on (0 in the beginning), and says where to go on, if there is more.
    pub fn sessions_from(&self, from: u32, visit: u32) -> (Vec<SessionView>, Option<u32>) {
        let numbers = self.sessions.numbers();
        let last = *numbers.end();
        let first = from.max(*numbers.start());
        let end = first.saturating_add(visit.max(1));
        let views = (first..end.min(last.saturating_add(1))).filter_map(|id| self.view(id)).collect();
        (views, (end <= last).then_some(end))
    }

    pub(super) fn view(&self, id: u32) -> Option<SessionView> {
        let session = self.sessions.get(id)?;
        let version = session.version.load(Ordering::Acquire);
        if !in_use(version) {
            return None;
        }
        let bound = self.bindings.get(session.binding.load(Ordering::Relaxed))?.read()?;
        let (remote, remote_port) = endpoint_parts(session.remote.load(Ordering::Relaxed));
        let (address, port) = bound.endpoint();
        let standing = session.standing();
        let protocol = bound.protocol();
        let view = SessionView {
            reference: SessionRef { id, version },
            outbound: Outbound {
                prefix: bound.prefix(),
                protocol,
                host: bound.host,
                port: bound.host_port(),
                remote,
                remote_port,
            },
            inbound: Inbound { protocol, address, port, remote, remote_port },
            state: standing.state(),
            taken_part: standing.taken_part(),
            last_seen: moment(session.last_seen.load(Ordering::Relaxed)),
            packets: [0, 1].map(|n: usize| session.packets[n].load(Ordering::Relaxed)),
            bytes: [0, 1].map(|n: usize| session.bytes[n].load(Ordering::Relaxed)),
        };
        std::sync::atomic::fence(Ordering::Acquire);
        (session.version.load(Ordering::Relaxed) == version).then_some(view)
    }
}
