//! What this process may do: no more than it needs, from before its first thread on.
//!
//! Capabilities belong to threads, and a thread begins with those of the one that starts it. So the process gives up what it never needs
//! first of all, and threads that only move packets or answer questions give up the rest for themselves.

use std::collections::HashSet;

use caps::{CapSet, Capability};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use slog::{Logger, info, warn};

use crate::config::Settings;
use crate::scheduling;

/// Ports below this one need a capability.
const FIRST_FREE_PORT: u16 = 1024;

/// What has become of the capabilities, for the log, which begins later.
#[derive(Debug)]
pub struct Kept(Result<Vec<String>, String>);

impl Kept {
    /// Says it.
    pub fn log(&self, log: &Logger) {
        match &self.0 {
            Ok(kept) if kept.is_empty() => info!(log, "this process has no capabilities"),
            Ok(kept) => {
                info!(log, "capabilities that this process does not need are given up"; "kept" => kept.join(", "));
            }
            Err(why) => {
                warn!(log, "capabilities cannot be given up; the router has more rights than it needs"; "because" => why);
            }
        }
    }
}

/// Gives up, for this thread and all that it will start, what a router with these settings never needs: it keeps `CAP_NET_ADMIN` (device,
/// routes, nftables, sysctls), `CAP_NET_BIND_SERVICE` if metrics are served at a port below 1024, and `CAP_SYS_NICE` if workers cannot have their
/// nice value by the limit for it. No program that it could run would get more.
pub fn keep_what_is_needed(settings: &Settings) -> Kept {
    let mut needed = HashSet::from([Capability::CAP_NET_ADMIN]);
    if settings.prometheus.address().is_some_and(|address| address.port() < FIRST_FREE_PORT) {
        needed.insert(Capability::CAP_NET_BIND_SERVICE);
    }
    if !workers_may_be_nice(settings) {
        needed.insert(Capability::CAP_SYS_NICE);
    }
    Kept(keep(&needed))
}

/// Has the limit of this process allow its workers their nice value, which is less than a capability. `false`: it cannot be raised so far.
fn workers_may_be_nice(settings: &Settings) -> bool {
    let Ok(own) = scheduling::nice() else { return false };
    let nice = settings.worker_nice_from(own);
    // setrlimit(2): the lowest nice value is 20 less the limit.
    let needed = u64::try_from(20 - nice).unwrap_or(0);
    let raised = || {
        getrlimit(Resource::RLIMIT_NICE).is_ok_and(|(now, most)| {
            now >= needed || setrlimit(Resource::RLIMIT_NICE, needed, most.max(needed)).is_ok()
        })
    };
    nice >= own || raised()
}

fn keep(needed: &HashSet<Capability>) -> Result<Vec<String>, String> {
    let text = |error: caps::errors::CapsError| error.to_string();
    let kept: HashSet<_> =
        caps::read(None, CapSet::Permitted).map_err(text)?.intersection(needed).copied().collect();
    // Only who has CAP_SETPCAP may narrow the bounding set; without new privileges it limits nothing more anyway.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(text)? {
        for capability in caps::read(None, CapSet::Bounding).map_err(text)?.difference(needed) {
            caps::drop(None, CapSet::Bounding, *capability).map_err(text)?;
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(text)?;
    caps::clear(None, CapSet::Inheritable).map_err(text)?;
    caps::set(None, CapSet::Effective, &kept).map_err(text)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(text)?;
    nix::sys::prctl::set_no_new_privs().map_err(|error| error.to_string())?;
    let mut names: Vec<_> = kept.iter().map(ToString::to_string).collect();
    names.sort();
    Ok(names)
}

/// Gives up all capabilities of this thread. What it has open stays open.
pub(crate) fn give_up_all(log: &Logger) {
    let gave_up = [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted]
        .into_iter()
        .try_for_each(|set| caps::clear(None, set));
    if let Err(error) = gave_up {
        warn!(log, "a thread cannot give up its capabilities"; "because" => %error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rights of a thread are its own, so each test has one.
    fn in_a_thread(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn what_is_not_needed_is_given_up_and_stays_so() {
        in_a_thread(|| {
            let before = caps::read(None, CapSet::Permitted).unwrap();
            let needed = HashSet::from([Capability::CAP_NET_ADMIN]);
            let kept = keep(&needed).unwrap();
            let now = caps::read(None, CapSet::Permitted).unwrap();
            assert_eq!(now, before.intersection(&needed).copied().collect());
            assert_eq!(kept.len(), now.len());
            assert_eq!(caps::read(None, CapSet::Effective).unwrap(), now);
            assert!(caps::read(None, CapSet::Inheritable).unwrap().is_empty());
            assert!(nix::sys::prctl::get_no_new_privs().unwrap());
            assert!(caps::raise(None, CapSet::Permitted, Capability::CAP_SYS_ADMIN).is_err());
            // Another thread begins with the same.
            std::thread::spawn(move || assert_eq!(caps::read(None, CapSet::Permitted).unwrap(), now))
                .join()
                .unwrap();
        });
    }

    #[test]
    fn a_thread_without_any_leaves_the_others_theirs() {
        in_a_thread(|| {
            let before = caps::read(None, CapSet::Permitted).unwrap();
            in_a_thread(|| {
                give_up_all(&Logger::root(slog::Discard, slog::o!()));
                for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
                    assert!(caps::read(None, set).unwrap().is_empty());
                }
            });
            assert_eq!(caps::read(None, CapSet::Permitted).unwrap(), before);
        });
    }
}
