//! The text against the rules of `OpenMetrics` and of Prometheus naming.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::*;
use crate::actors::metrics::sample::{ConcernSample, Flow, PoolSample, StateSample};

fn sample() -> Sample {
    Sample {
        received_v6: Flow { packets: 7, bytes: 700 },
        forwarded_6to4: Flow { packets: 6, bytes: 480 },
        drops: crate::datapath::DropReason::all()
            .enumerate()
            .map(|(number, reason)| (reason.as_str(), number as u64))
            .collect(),
        pools: vec![PoolSample {
            unit: "addresses",
            name: "192.0.2.0/24".to_owned(),
            used: 3,
            free: 250,
            resting: 1,
            high_water: 9,
        }],
        concerns: vec![ConcernSample { name: "tun", up: true, generation: 2, exits: [0, 0, 1, 0, 0, 0] }],
        device: Some(rtnl::LinkStats { tx_dropped: 4, ..rtnl::LinkStats::default() }),
        pending: vec!["mtu"],
        uptime: Duration::from_millis(1500),
        ready: true,
        state: Some(StateSample {
            kept: true,
            snapshot_age: Some(Duration::from_secs(3)),
            snapshot_bytes: 4096,
            dropped: vec![(crate::state::Entry::Session, "over", 5)],
            ..StateSample::default()
        }),
        ..Sample::default()
    }
}

/// A text taken apart: helps and types by metric, and series with their values.
type Parts<'t> = (HashMap<&'t str, &'t str>, HashMap<&'t str, &'t str>, Vec<(&'t str, &'t str)>);

fn parts_of(text: &str) -> Parts<'_> {
    let (mut helps, mut types, mut series) = (HashMap::new(), HashMap::new(), Vec::new());
    for line in text.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(helps.insert(name, help).is_none(), "two helps for {name}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(types.insert(name, kind).is_none(), "two types for {name}");
        } else {
            series.push(line.rsplit_once(' ').unwrap());
        }
    }
    (helps, types, series)
}

#[test]
fn every_metric_has_a_help_sentence_and_a_name_that_follows_the_rules() {
    let text = encode(sample());
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    let (helps, types, series) = parts_of(&text);
    assert_eq!(helps.keys().collect::<HashSet<_>>(), types.keys().collect::<HashSet<_>>());
    for (name, help) in &helps {
        assert!(help.len() > 10 && help.ends_with('.'), "{name}: {help:?}");
        assert!(name.starts_with("protomask_"), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
        assert!(!name.ends_with("_total") && !name.ends_with("_count") && !name.ends_with("_info"), "{name}");
    }
    let mut seen = HashSet::new();
    for (what, value) in &series {
        assert!(seen.insert(what), "twice: {what}");
        assert!(value.parse::<f64>().is_ok(), "{what}: {value}");
        let name = what.split('{').next().unwrap();
        let family = match name {
            name if types.get(name) == Some(&"gauge") => name,
            name if name.ends_with("_info") => name.trim_end_matches("_info"),
            name => name.strip_suffix("_total").unwrap_or_else(|| panic!("{name}: a counter without _total")),
        };
        assert!(types.contains_key(family), "{name} belongs to no metric");
    }
}

#[test]
fn every_drop_reason_is_there_even_at_zero_and_by_its_word() {
    let text = encode(sample());
    for (number, reason) in crate::datapath::DropReason::all().enumerate() {
        let line = format!("\nprotomask_dropped_packets_total{{reason=\"{reason}\"}} {number}\n");
        assert!(text.contains(&line), "{line}");
    }
}

#[test]
fn figures_stand_under_their_labels() {
    let text = encode(sample());
    for line in [
        "protomask_received_packets_total{family=\"ipv6\"} 7",
        "protomask_received_packets_total{family=\"ipv4\"} 0",
        "protomask_received_bytes_total{family=\"ipv6\"} 700",
        "protomask_forwarded_bytes_total{direction=\"6to4\"} 480",
        "# UNIT protomask_received_bytes bytes",
        "protomask_pool_addresses{pool=\"192.0.2.0/24\",state=\"free\"} 250",
        "protomask_pool_addresses_high_water{pool=\"192.0.2.0/24\"} 9",
        "protomask_actor_up{concern=\"tun\"} 1",
        "protomask_actor_generation{concern=\"tun\"} 2",
        "protomask_actor_exits_total{concern=\"tun\",kind=\"panicked\"} 1",
        "protomask_actor_exits_total{concern=\"tun\",kind=\"hung\"} 0",
        "protomask_device_dropped_packets_total{direction=\"to_router\"} 4",
        "protomask_leases 0",
        "protomask_ready 1",
        "protomask_state_kept 1",
        "protomask_state_snapshot_age_seconds 3.0",
        "protomask_state_snapshot_bytes 4096",
        "protomask_state_dropped{entry=\"session\",reason=\"over\"} 5",
        "protomask_uptime_seconds 1.5",
        concat!("protomask_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(text.lines().any(|there| there == line), "{line} is not in:\n{text}");
    }
}

#[test]
fn what_the_kernel_does_not_tell_is_left_out_and_the_rest_is_there() {
    let without = encode(Sample { device: None, scrape_errors: 3, ..sample() });
    assert!(!without.contains("protomask_device_packets"));
    assert!(without.contains("\nprotomask_scrape_errors_total 3\n"));
    let stateless = encode(Sample { state: None, ..sample() });
    assert!(
        stateless.contains("\nprotomask_state_kept 0\n") && !stateless.contains("protomask_state_failing")
    );
    assert!(without.contains("protomask_leases_capacity") && without.ends_with("# EOF\n"));
}
