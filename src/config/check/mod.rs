//! What is checked of settings: each value, and values against each other.

mod hosts;
mod limits;
mod pools;
mod routers;
mod timers;

use std::path::PathBuf;
use std::time::Duration;

use humantime::format_duration;
use ipnet::Ipv4Net;

use super::{DEFAULT_INTERFACE, PartialState, Placed, Problem};
use crate::state::DEFAULT_FOLDER;

pub(super) use hosts::OwnAddresses;

pub(super) fn values<T>(placed: Vec<Placed<T>>) -> Vec<T> {
    placed.into_iter().map(|placed| placed.value).collect()
}

pub(super) fn is_true(placed: Option<&Placed<bool>>) -> bool {
    placed.is_some_and(|placed| placed.value)
}

pub(super) struct Check<'p> {
    pub(super) problems: &'p mut Vec<Problem>,
}

impl Check<'_> {
    pub(super) fn wrong<T>(&mut self, placed: &Placed<T>, message: String) {
        self.problems.push(Problem { place: placed.place.clone(), message });
    }

    /// The folder for state that outlives the process, if any is kept.
    pub(super) fn state(
        &mut self,
        PartialState { dir: folder, none: no_state }: PartialState,
    ) -> Option<PathBuf> {
        if let Some(placed) = &folder {
            let path = placed.value.display();
            if !placed.value.is_absolute() {
                let message = format!(
                    "state_dir: {path} does not begin with /; a service starts in no certain directory"
                );
                self.wrong(placed, message);
            }
            if let Some(no_state) = no_state.as_ref().filter(|no_state| no_state.value) {
                self.wrong(
                    no_state,
                    "state_dir says where state is kept, and no_state that none is: not both".to_owned(),
                );
            }
        }
        let is_wanted = !is_true(no_state.as_ref());
        is_wanted.then(|| folder.map_or_else(|| DEFAULT_FOLDER.into(), |placed| placed.value))
    }

    /// The value, or the default where none was given, or where it is out of bounds.
    pub(super) fn between<T: PartialOrd + std::fmt::Debug + Copy>(
        &mut self,
        placed: Option<Placed<T>>,
        default: T,
        (least, most): (T, T),
        name: &str,
    ) -> T {
        let Some(placed) = placed else { return default };
        if placed.value < least || placed.value > most {
            let value = placed.value;
            self.wrong(&placed, format!("{name}: {value:?} is not between {least:?} and {most:?}"));
            return default;
        }
        placed.value
    }

    /// The same for a duration, which is written as a person writes it.
    fn lasts_between(
        &mut self,
        placed: Option<&Placed<Duration>>,
        default: Duration,
        (least, most): (Duration, Duration),
        name: &str,
    ) -> Duration {
        let Some(placed) = placed else { return default };
        if placed.value < least || placed.value > most {
            let [value, least, most] = [placed.value, least, most].map(format_duration);
            self.wrong(placed, format!("{name}: {value} is not between {least} and {most}"));
            return default;
        }
        placed.value
    }

    pub(super) fn interface(&mut self, placed: Option<Placed<String>>) -> String {
        let Some(placed) = placed else { return DEFAULT_INTERFACE.to_owned() };
        if let Err(error) = easy_tun::check_name(&placed.value) {
            self.wrong(&placed, format!("interface: {error}"));
        } else if placed.value.contains('%') {
            self.wrong(
                &placed,
                "interface: the name of a service's device is fixed; % is not allowed".to_owned(),
            );
        }
        placed.value
    }
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The network that no host or router can have an address of, if `net` has addresses in common with one.
fn unusable(net: Ipv4Net) -> Option<Ipv4Net> {
    super::built_in_denied().into_iter().find(|denied| overlap(*denied, net))
}
