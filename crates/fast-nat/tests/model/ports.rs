//! Which port a new binding may get.

use std::net::Ipv6Addr;

use super::api::{Mapped, PortClass, Protocol, Refused};

use super::{Fairness, Inside, Model, Outside, OwnedBlock, Remote, Rest, Wrong, ticks};

/// A port that is free; not certainly if another one may be free in its place.
#[derive(Debug, Clone, Copy)]
pub struct Free {
    pub outside: Outside,
    pub is_certain: bool,
    /// It has rested by the clock of others only.
    pub is_late: bool,
}

impl Model {
    pub fn blocks_of(&self, host: Ipv6Addr) -> impl Iterator<Item = &OwnedBlock> {
        let key = self.host_key(host);
        self.blocks.iter().filter(move |block| block.owner == key)
    }

    /// How long a port of this protocol rests, in ticks.
    pub fn rest(&self, protocol: Protocol) -> u64 {
        let timers = &self.config.timers;
        ticks(if protocol == Protocol::Tcp { timers.tcp_port_rest } else { timers.port_rest })
    }

    /// The free ports of this host's blocks for this protocol: nobody has them, and they have rested.
    pub fn free_ports(&self, host: Ipv6Addr, protocol: Protocol, tick: u64) -> Vec<Free> {
        let rest = self.rest(protocol);
        let bound: Vec<Outside> = self
            .bindings
            .iter()
            .filter(|binding| binding.inside.protocol == protocol)
            .map(|binding| binding.outside)
            .collect();
        let mut free = Vec::new();
        for block in self.blocks_of(host) {
            let resting: Vec<&Rest> = self
                .rests
                .iter()
                .filter(|resting| {
                    resting.protocol == protocol
                        && block.holds(resting.outside)
                        && tick.saturating_sub(resting.freed) <= rest
                })
                .collect();
            for port in block.first_port..=block.last_port() {
                let outside = Outside { address: block.address, port };
                if block.reserved.contains(&port) || bound.contains(&outside) {
                    continue;
                }
                let Some(own) = resting.iter().find(|resting| resting.outside == outside) else {
                    free.push(Free { outside, is_certain: true, is_late: false });
                    continue;
                };
                // Of too many that rest those are free that have rested longest; of those that were freed in the same
                // tick any may have been the first.
                if self.latest.saturating_sub(own.freed) > rest {
                    // It has rested for those whose clock is ahead, who may have set it free.
                    free.push(Free { outside, is_certain: false, is_late: true });
                    continue;
                }
                let later = resting.iter().filter(|other| other.freed > own.freed).count();
                let as_late = resting.iter().filter(|other| other.freed == own.freed).count();
                let most = usize::from(self.config.max_resting_ports);
                if later >= most {
                    free.push(Free { outside, is_certain: true, is_late: false });
                } else if later + as_late > most {
                    free.push(Free { outside, is_certain: false, is_late: false });
                }
            }
        }
        free
    }

    /// The ports that a new binding may get, all equally good.
    pub fn choice(
        &self,
        inside: Inside,
        remote: Remote,
        tick: u64,
        answer: &Result<Mapped, Refused>,
    ) -> Result<Vec<Outside>, Refused> {
        let free = self.free_ports(inside.host, inside.protocol, tick);
        let of_class = |class| -> Vec<Free> {
            let is_taken = answer.is_ok_and(|mapped| PortClass::of(mapped.port) == class);
            let is_missing =
                !is_taken && *answer != Err(Refused::RateQuota) && *answer != Err(Refused::TableFull);
            let ports = free.iter().filter(|port| PortClass::of(port.outside.port) == class).copied();
            let ports: Vec<_> = ports.collect();
            // What has rested by the clock of others only may be free or not, as the engine has it.
            if is_missing && ports.iter().all(|port| port.is_late) { Vec::new() } else { ports }
        };
        let mut wanted = Vec::new();
        // An ICMP identifier is no port: RFC 4787 REQ-3 says nothing of it.
        let wants_low = inside.protocol != Protocol::Icmp && PortClass::of(inside.port) == PortClass::Low;
        if self.config.low_ports && wants_low {
            wanted = of_class(PortClass::Low);
            if wanted.is_empty() && !self.is_low_denied(inside.host) {
                return Err(Refused::NeedsBlock(PortClass::Low));
            }
        }
        if wanted.is_empty() {
            wanted = of_class(PortClass::High);
        }
        if wanted.is_empty() {
            return Err(Refused::NeedsBlock(PortClass::High));
        }
        let is_same = |port: &&Free| port.outside.port % 2 == inside.port % 2;
        let must_be_same = wanted.iter().any(|port| port.is_certain && is_same(&port));
        let mut choice: Vec<Outside> =
            wanted.iter().filter(|port| !must_be_same || is_same(port)).map(|port| port.outside).collect();
        if inside.protocol == Protocol::Tcp {
            // The remote has sent a SYN to one of them: the host may be opening this very connection.
            self.prefer_awaited(&wanted, remote, &mut choice);
        }
        Ok(choice)
    }

    /// The port that the remote has last sent a SYN to comes before all others. If it has sent more than one, or that
    /// one waits no more, those that it has sent a SYN to may be chosen beside the others.
    fn prefer_awaited(&self, wanted: &[Free], remote: Remote, choice: &mut Vec<Outside>) {
        let of_remote: Vec<_> = self.stored.iter().filter(|syn| syn.remote == remote).collect();
        let newest = self.newest.iter().find(|(other, _)| *other == remote).map(|(_, first)| *first);
        let last = of_remote.iter().map(|syn| syn.last).max();
        for syn in of_remote {
            let Some(port) = wanted.iter().find(|port| port.outside == syn.outside) else { continue };
            if Some(syn.first) == newest && Some(syn.last) == last && port.is_certain {
                *choice = vec![syn.outside];
                return;
            }
            if !choice.contains(&syn.outside) {
                choice.push(syn.outside);
            }
        }
    }

    pub fn is_low_denied(&self, host: Ipv6Addr) -> bool {
        let key = self.host_key(host);
        self.hosts.iter().any(|host| host.key == key && host.no_low)
    }
}

impl Fairness {
    /// The engine has taken `taken` of these.
    pub fn count(&mut self, among: &[Outside], taken: Outside) {
        if among.len() < 2 {
            return;
        }
        self.choices += 1.0;
        self.expected += 1.0 / among.len() as f64;
        self.lowest += f64::from(u8::from(among.iter().min() == Some(&taken)));
        self.highest += f64::from(u8::from(among.iter().max() == Some(&taken)));
    }

    pub fn add(&mut self, other: &Self) {
        self.choices += other.choices;
        self.expected += other.expected;
        self.lowest += other.lowest;
        self.highest += other.highest;
    }

    /// RFC 6056: which port comes next is not to be guessed. A port behind one that is taken comes more often than others,
    /// so twice as often is not too much; always is.
    pub fn check(&self) -> Result<(), Wrong> {
        let is_fair = |times: f64| times > self.expected / 2.0 && times < self.expected * 2.0;
        if self.choices < 100.0 || is_fair(self.lowest) && is_fair(self.highest) {
            Ok(())
        } else {
            Err(format!("the choice of ports is not random: {self:?}"))
        }
    }
}
