//! Checks of sessions, quotas, records and the deterministic mode.

use super::super::partial::{PartialDeterministic, PartialQuota, PartialRecords, PartialSessions};
use super::super::{
    BlockFor, DeterministicSettings, Placed, PoolSettings, QuotaSettings, RecordSettings, RecordSink,
    SessionSettings, Sharing,
};
use super::{Check, hosts::overlap_v6, is_true, values};

/// The most entries of any table: what the keys of its entries can tell apart, with room to spare.
const MOST_ENTRIES: u32 = 16_000_000;

impl Check<'_> {
    pub(in super::super) fn sessions(
        &mut self,
        given: PartialSessions,
        is_deterministic: bool,
    ) -> SessionSettings {
        let default = SessionSettings::default();
        let mut block_size = default.block_size;
        if let Some(placed) = given.block_size {
            if placed.value.is_power_of_two() && (16..=4096).contains(&placed.value) {
                block_size = placed.value;
            } else {
                let wrong = placed.value;
                let message = format!(
                    "sessions.block_size: {wrong} is none of 16, 32, 64, 128, 256, 512, 1024, 2048, 4096"
                );
                self.wrong(&placed, message);
            }
        }
        let mut block_for = given.block_for.as_ref().map_or(default.block_for, |placed| placed.value);
        if is_deterministic {
            if let Some(placed) = given.block_for.filter(|placed| placed.value == BlockFor::Host) {
                self.wrong(
                    &placed,
                    "sessions.block_for: in deterministic mode ports belong to subscribers; write \"subscriber\" or \
                     nothing"
                        .to_owned(),
                );
            }
            block_for = BlockFor::Subscriber;
        }
        SessionSettings {
            max: self.between(given.max, default.max, (1000, MOST_ENTRIES), "sessions.max"),
            max_hosts: self.between(
                given.max_hosts,
                default.max_hosts,
                (16, MOST_ENTRIES),
                "sessions.max_hosts",
            ),
            max_stored_syns: self.between(
                given.max_stored_syns,
                default.max_stored_syns,
                (0, 65_536),
                "sessions.max_stored_syns",
            ),
            max_resting_ports: self.between(
                given.max_resting_ports,
                default.max_resting_ports,
                (0, 4096),
                "sessions.max_resting_ports",
            ),
            filtering: given.filtering.map_or(default.filtering, |placed| placed.value),
            answer_filtered: given.answer_filtered.map_or(default.answer_filtered, |placed| placed.value),
            block_size,
            block_for,
        }
    }

    pub(in super::super) fn quota(
        &mut self,
        given: PartialQuota,
        block_size: u16,
        is_deterministic: bool,
    ) -> QuotaSettings {
        let default = QuotaSettings::default();
        let mut ports = given.ports.as_ref().map(|placed| placed.value);
        if let Some(placed) = given.ports {
            if is_deterministic {
                self.wrong(
                    &placed,
                    "quota.ports: in deterministic mode a subscriber has its ports_per_subscriber; leave this out"
                        .to_owned(),
                );
            } else if placed.value > 0 && placed.value < u32::from(block_size) {
                let few = placed.value;
                self.wrong(
                    &placed,
                    format!(
                        "quota.ports: {few} are less than one block of {block_size}; nobody would get any"
                    ),
                );
            }
        }
        if is_deterministic {
            ports = Some(0);
        }
        let rate = self.between(
            given.new_sessions_per_second,
            default.new_sessions_per_second,
            (0, 1_000_000),
            "quota.new_sessions_per_second",
        );
        QuotaSettings {
            subscriber_prefix_len: self.between(
                given.subscriber_prefix_len,
                default.subscriber_prefix_len,
                (32, 128),
                "quota.subscriber_prefix_len",
            ),
            ports,
            sessions: self.between(given.sessions, default.sessions, (0, u32::MAX), "quota.sessions"),
            new_sessions_per_second: rate,
            new_sessions_burst: self.between(
                given.new_sessions_burst,
                (2 * rate).max(1),
                (1, 10_000_000),
                "quota.new_sessions_burst",
            ),
        }
    }

    pub(in super::super) fn records(&mut self, given: PartialRecords) -> Option<RecordSettings> {
        let section = given.section?;
        if let (Some(_), Some(syslog)) = (&given.file, &given.syslog) {
            self.wrong(syslog, "records: write file or syslog, not both".to_owned());
        }
        let sink = match (given.file, given.syslog) {
            (Some(file), _) => {
                if !file.value.is_absolute() {
                    let path = file.value.display();
                    self.wrong(
                        &file,
                        format!("records.file: {path} does not begin with /; a service starts in no certain directory"),
                    );
                }
                RecordSink::File(file.value)
            }
            (None, Some(syslog)) => RecordSink::Syslog(syslog.value),
            (None, None) => {
                self.wrong(&section, "records needs file or syslog".to_owned());
                return None;
            }
        };
        Some(RecordSettings {
            sink,
            when_full: given.when_full.map_or_else(Default::default, |placed| placed.value),
            sessions: is_true(given.sessions.as_ref()),
        })
    }

    pub(in super::super) fn deterministic(
        &mut self,
        given: PartialDeterministic,
        sessions: &SessionSettings,
        quota: &QuotaSettings,
        pools: Option<&[PoolSettings]>,
    ) -> Option<DeterministicSettings> {
        let section = given.section?;
        let before = self.problems.len();
        let (length, block) = (quota.subscriber_prefix_len, u32::from(sessions.block_size));
        let hosts = given.hosts.unwrap_or(Placed { value: Vec::new(), place: section.place.clone() });
        if hosts.value.is_empty() {
            self.wrong(
                &hosts,
                "deterministic needs hosts: the networks whose subscribers are numbered".to_owned(),
            );
        }
        for (number, placed) in hosts.value.iter().enumerate() {
            let net = placed.value;
            self.network_v6(placed, "deterministic.hosts");
            if net.prefix_len() > length {
                self.wrong(
                    placed,
                    format!("deterministic.hosts: {net} is less than a subscriber, which is a /{length}"),
                );
            }
            if let Some(other) = hosts.value[..number].iter().find(|other| overlap_v6(other.value, net)) {
                let (other, there) = (other.value, &other.place);
                self.wrong(placed, format!("deterministic.hosts: {net} overlaps {other} ({there})"));
            }
        }
        let ports = match given.ports_per_subscriber {
            Some(placed) if placed.value == 0 || placed.value > 65_536 || placed.value % block != 0 => {
                let wrong = placed.value;
                self.wrong(
                    &placed,
                    format!(
                        "deterministic.ports_per_subscriber: {wrong} is no multiple of sessions.block_size ({block}) up to \
                         65536"
                    ),
                );
                block
            }
            Some(placed) => placed.value,
            None => {
                self.wrong(&section, "deterministic needs ports_per_subscriber".to_owned());
                block
            }
        };
        let shared: Vec<_> =
            pools.unwrap_or_default().iter().filter(|pool| pool.sharing == Sharing::Ports).collect();
        if shared.is_empty() {
            self.wrong(&section, "deterministic needs a [[pool]] with sharing = \"ports\"".to_owned());
        }
        if let Some(pool) = shared.iter().find(|pool| !pool.hosts.is_empty()) {
            let net = pool.net;
            self.wrong(
                &section,
                format!("deterministic: its hosts say who is served; remove hosts from the pool {net}"),
            );
        }
        let settings = DeterministicSettings { hosts: values(hosts.value), ports_per_subscriber: ports };
        if self.problems.len() == before
            && let Err(message) = room_for_all(&settings, length, sessions.block_size, &shared)
        {
            self.wrong(&section, message);
        }
        Some(settings)
    }
}

/// Whether the pools have room for every subscriber, as far as sizes alone can tell.
fn room_for_all(
    settings: &DeterministicSettings,
    subscriber_prefix_len: u8,
    block_size: u16,
    pools: &[&PoolSettings],
) -> Result<(), String> {
    // At most 2^96 of each network, and there are fewer than 2^32 networks in a file.
    let subscribers: u128 =
        settings.hosts.iter().map(|net| 1_u128 << (subscriber_prefix_len - net.prefix_len()).min(96)).sum();
    let room: u128 = pools
        .iter()
        .map(|pool| {
            let ports = pool.ports.blocks(block_size).count() as u128 * u128::from(block_size);
            (ports / u128::from(settings.ports_per_subscriber)) << (32 - pool.net.prefix_len())
        })
        .sum();
    if subscribers <= room {
        return Ok(());
    }
    let (missing, each) = (subscribers - room, settings.ports_per_subscriber);
    Err(format!(
        "deterministic: the pools have room for {room} subscribers with {each} ports each, and there are {subscribers}; \
         {missing} would get none"
    ))
}
