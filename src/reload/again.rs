//! The first generation of a run: the settings, and what was changed while an earlier run held them.
//!
//! A mapping of then is checked as one is that is added now. What no longer fits is dropped, one by one: the file goes first.

use fast_nat::nat64::Protocol;
use rtnl::Snapshot;

use super::change::check;
use crate::config::{Configuration, ForwardProtocol, Mappings, Partial, PartialForward, Placed, StaticPair};
use crate::generation::Generation;
use crate::kernel::preflight::NoDefaultPool;
use crate::plan::Plan;
use crate::state::Changes;

/// The first generation, and what has become of the changes.
#[derive(Debug)]
pub struct Begun {
    /// The generation.
    pub generation: Generation,
    /// Changes that hold again.
    pub restored: u64,
    /// Those that do not: the mapping, and why.
    pub dropped: Vec<(String, String)>,
    /// The settings alone.
    configuration: Configuration,
}

/// One mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mapping {
    Forward(Box<PartialForward>),
    Static(Placed<StaticPair>),
}

impl Mapping {
    fn all(of: Mappings) -> impl Iterator<Item = Self> {
        let pairs = of.static_pairs.into_iter().map(Self::Static);
        pairs.chain(of.forwards.into_iter().map(|forward| Self::Forward(Box::new(forward))))
    }

    fn put_into(self, mappings: &mut Mappings) {
        match self {
            Self::Forward(forward) => mappings.forwards.push(*forward),
            Self::Static(pair) => mappings.static_pairs.push(pair),
        }
    }

    /// Takes it out of these settings. Says whether it was there, as it is.
    fn take_out_of(&self, base: &mut Partial) -> bool {
        match self {
            Self::Forward(gone) => {
                let before = base.forwards.len();
                base.forwards.retain(|forward| !is_same(forward, gone));
                base.forwards.len() < before
            }
            Self::Static(gone) => {
                let before = base.static_pairs.len();
                base.static_pairs.retain(|pair| pair.value != gone.value);
                base.static_pairs.len() < before
            }
        }
    }
}

/// Whether two forwards say the same, wherever they say it.
fn is_same(one: &PartialForward, other: &PartialForward) -> bool {
    let parts = |forward: &PartialForward| {
        let PartialForward { protocol, address, port, host, host_port, prefix } = forward;
        let host_port = host_port.as_ref().map_or(port.value, |port| port.value);
        let prefix = prefix.as_ref().map(|prefix| prefix.value);
        (protocol.value, address.value, port.value, host.value, host_port, prefix)
    };
    parts(one) == parts(other)
}

impl std::fmt::Display for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Forward(forward) => {
                let PartialForward { protocol, address, port, host, host_port, .. } = &**forward;
                let protocol = match protocol.value {
                    ForwardProtocol::Tcp => Protocol::Tcp,
                    ForwardProtocol::Udp => Protocol::Udp,
                };
                let host_port = host_port.as_ref().map_or(port.value, |port| port.value);
                let (address, port, host) = (address.value, port.value, host.value);
                write!(f, "forward {protocol} {address} port {port} to {host} port {host_port}")
            }
            Self::Static(pair) => {
                let StaticPair { host, address } = pair.value;
                write!(f, "static pair {address} = {host}")
            }
        }
    }
}

impl Begun {
    /// The first generation of these settings, with the changes that fit. The error is one of the settings alone.
    pub fn new(
        configuration: Configuration,
        changes: &Changes,
        snapshot: &Snapshot,
    ) -> Result<Self, NoDefaultPool> {
        let mut base = configuration.partial.clone();
        let mut removed = Mappings::default();
        let mut dropped = Vec::new();
        let mut restored = 0;
        for mapping in Mapping::all(changes.removed.mappings()) {
            if mapping.take_out_of(&mut base) {
                mapping.put_into(&mut removed);
                restored += 1;
            } else {
                let why = "it was removed by request, and the settings do not have it any more".to_owned();
                dropped.push((mapping.to_string(), why));
            }
        }
        let generation = |added: &Mappings| -> Result<Generation, String> {
            let configured = base.with(added).configure(Vec::new());
            let Configuration { settings, .. } = configured.map_err(|problems| problems.to_string())?;
            let plan = Plan::settle(&settings, snapshot).map_err(|error| error.to_string())?;
            let configuration = Configuration { partial: base.clone(), settings, text: None };
            let first = Generation::first(configuration, plan);
            let generation = Generation { added: added.clone(), removed: removed.clone(), ..first };
            check(&generation, snapshot).map_err(|refused| refused.to_string())?;
            Ok(generation)
        };
        let wanted = changes.added.mappings();
        if let Ok(generation) = generation(&wanted) {
            restored += changes.added.len() as u64;
            return Ok(Self { generation, restored, dropped, configuration });
        }
        // Settings that are wrong by themselves are not the fault of any mapping: the start fails, and says why.
        let Ok(mut best) = generation(&Mappings::default()) else {
            let plan = Plan::settle(&configuration.settings, snapshot)?;
            let generation = Generation::first(configuration.clone(), plan);
            return Ok(Self { generation, restored: 0, dropped: Vec::new(), configuration });
        };
        for mapping in Mapping::all(wanted) {
            let mut more = best.added.clone();
            mapping.clone().put_into(&mut more);
            match generation(&more) {
                Ok(better) => {
                    best = better;
                    restored += 1;
                }
                Err(why) => dropped.push((mapping.to_string(), why)),
            }
        }
        Ok(Self { generation: best, restored, dropped, configuration })
    }

    /// The same without what was added, which cannot be placed: why.
    pub fn without_added(self, why: &str, snapshot: &Snapshot) -> Result<Self, NoDefaultPool> {
        let mut dropped = self.dropped;
        let added = Mapping::all(self.generation.added.clone());
        dropped.extend(added.map(|mapping| (mapping.to_string(), why.to_owned())));
        let changes = Changes { added: crate::state::Set::default(), ..Changes::of(&self.generation) };
        let without = Self::new(self.configuration, &changes, snapshot)?;
        Ok(Self { dropped, ..without })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::control::{Forward, Pair};
    use crate::state::Set;

    const FILE: &str = "[[pool]]\nprefix = \"203.0.113.0/24\"\n[[forward]]\nprotocol = \"tcp\"\n\
                        address = \"203.0.113.1\"\nport = 80\nhost = \"2001:db8::1\"\n\
                        [[static]]\naddress = \"192.0.2.9\"\nhost = \"2001:db8::9\"\n";

    fn forward(address: [u8; 4], port: u16, host: &str) -> Forward {
        let (address, host) = (address.into(), host.parse().unwrap());
        Forward { protocol: ForwardProtocol::Tcp, address, port, host, host_port: None, prefix: None }
    }

    fn begin(text: &str, changes: &Changes) -> Begun {
        let (partial, problems) = crate::config::parse(Path::new("t.toml"), text);
        Begun::new(partial.configure(problems).unwrap(), changes, &Snapshot::default()).unwrap()
    }

    fn ports(begun: &Begun) -> Vec<u16> {
        begun.generation.settings.forwards.iter().map(|forward| forward.port).collect()
    }

    #[test]
    fn what_was_added_and_removed_holds_again() {
        let changes = Changes {
            added: Set {
                forwards: vec![forward([203, 0, 113, 1], 81, "2001:db8::1")],
                static_pairs: vec![Pair {
                    address: [192, 0, 2, 10].into(),
                    host: "2001:db8::a".parse().unwrap(),
                }],
            },
            removed: Set {
                forwards: vec![forward([203, 0, 113, 1], 80, "2001:db8::1")],
                static_pairs: vec![Pair {
                    address: [192, 0, 2, 9].into(),
                    host: "2001:db8::9".parse().unwrap(),
                }],
            },
        };
        let begun = begin(FILE, &changes);
        assert_eq!((begun.restored, begun.dropped.len(), ports(&begun)), (4, 0, vec![81]));
        assert_eq!(begun.generation.settings.static_pairs.len(), 1);
        assert_eq!(Changes::of(&begun.generation), changes, "and would be written so");
    }

    #[test]
    fn what_no_longer_fits_is_dropped_one_by_one_with_its_reason() {
        let changes = Changes {
            added: Set {
                forwards: vec![
                    forward([203, 0, 113, 2], 1, "2001:db8::1"),
                    // The file has another host there now.
                    forward([203, 0, 113, 1], 80, "2001:db8::2"),
                    forward([198, 51, 100, 1], 2, "2001:db8::1"),
                    forward([203, 0, 113, 2], 3, "2001:db8::1"),
                ],
                static_pairs: Vec::new(),
            },
            removed: Set { forwards: vec![forward([203, 0, 113, 1], 80, "2001:db8::3")], ..Set::default() },
        };
        let begun = begin(FILE, &changes);
        let mut restored = ports(&begun);
        restored.sort_unstable();
        assert_eq!((begun.restored, restored), (2, vec![1, 3, 80]), "{:?}", begun.dropped);
        let [removed, taken, elsewhere] = &begun.dropped[..] else { panic!("{:?}", begun.dropped) };
        assert!(removed.1.contains("the settings do not have it any more"), "{removed:?}");
        assert!(
            taken.0.contains("port 80 to 2001:db8::2") && taken.1.contains("is forwarded already"),
            "{taken:?}"
        );
        assert!(elsewhere.1.contains("is in none of the pools"), "{elsewhere:?}");
    }

    #[test]
    fn what_cannot_be_placed_is_dropped_as_a_whole_and_what_was_removed_stays_so() {
        let changes = Changes {
            added: Set { forwards: vec![forward([203, 0, 113, 2], 1, "2001:db8::1")], ..Set::default() },
            removed: Set { forwards: vec![forward([203, 0, 113, 1], 80, "2001:db8::1")], ..Set::default() },
        };
        let begun = begin(FILE, &changes).without_added("no room", &Snapshot::default()).unwrap();
        assert_eq!((begun.restored, ports(&begun)), (1, vec![]));
        assert_eq!(begun.dropped[0].1, "no room");
    }
}
