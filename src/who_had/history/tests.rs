use proptest::prelude::*;

use super::*;
use crate::who_had::Answer;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// A record of a test, as its JSON object: only what is read of it.
#[derive(Debug, Clone)]
struct Made(String);

impl Made {
    fn new(router: &str, instance: &str, sequence: u64, time: u64, event: &str, more: &str) -> Self {
        let time = Stamp::from_millis(time);
        Self(format!(
            "{{\"time\":\"{time}\",\"event\":\"{event}\",\"router\":\"{router}\",\"instance\":\"{instance}\",\
             \"sequence\":{sequence}{more}}}"
        ))
    }

    fn line(&self) -> Line<'_> {
        serde_json::from_str(&self.0).expect(&self.0)
    }
}

fn host(n: u64) -> Ipv6Addr {
    Ipv6Addr::from((0x2001_0db8_u128 << 96) | u128::from(n))
}

/// The records of one run of a router, numbered from 1.
struct Log {
    instance: &'static str,
    made: Vec<Made>,
}

impl Log {
    fn new(instance: &'static str) -> Self {
        Self { instance, made: Vec::new() }
    }

    fn push(&mut self, time: u64, event: &str, more: &str) -> &mut Self {
        let sequence = self.made.len() as u64 + 1;
        self.made.push(Made::new("r", self.instance, sequence, time, event, more));
        self
    }

    fn started(&mut self, time: u64) -> &mut Self {
        self.push(time, "recording_started", "")
    }

    fn given(&mut self, time: u64, host_number: u64, first_port: u16) -> &mut Self {
        let (host, last) = (host(host_number), first_port + 127);
        let more = format!(
            ",\"host\":\"{host}\",\"address\":\"{ADDRESS}\",\"first_port\":{first_port},\"last_port\":{last}"
        );
        self.push(time, "block_given", &more)
    }

    fn returned(&mut self, time: u64, host_number: u64, first_port: u16, given: u64) -> &mut Self {
        let (host, last, given) = (host(host_number), first_port + 127, Stamp::from_millis(given));
        let more = format!(
            ",\"host\":\"{host}\",\"address\":\"{ADDRESS}\",\"first_port\":{first_port},\"last_port\":{last},\
             \"given\":\"{given}\",\"reason\":\"idle\""
        );
        self.push(time, "block_returned", &more)
    }

    /// Some other record.
    fn other(&mut self, time: u64) -> &mut Self {
        self.given(time, 999, 40000)
    }
}

fn history<'m>(made: impl IntoIterator<Item = &'m Made>) -> History {
    let mut history = History::new(ADDRESS, 1100);
    for made in made {
        history.take(&made.line());
    }
    history
}

fn at(millis: u64) -> When {
    When { first: Stamp::from_millis(millis), last: Stamp::from_millis(millis) }
}

/// The hosts that had the port, and how many records are missing behind each.
fn hosts(history: &History, millis: u64) -> Vec<(Ipv6Addr, u64)> {
    history.at(at(millis)).into_iter().map(|tenure| (tenure.host, tenure.missing)).collect()
}

fn returned(at: u64) -> End {
    End::Returned { at: Stamp::from_millis(at), reason: Some("idle".to_owned()) }
}

#[test]
fn a_block_is_had_from_the_record_that_gives_it_to_the_one_that_returns_it() {
    let mut log = Log::new("a");
    log.started(1000).given(2000, 1, 1024).returned(9000, 1, 1024, 2000).given(20000, 2, 1024).other(30000);
    let history = history(&log.made);
    assert_eq!(hosts(&history, 1999), []);
    assert_eq!(hosts(&history, 2000), [(host(1), 0)]);
    assert_eq!(hosts(&history, 9000), [(host(1), 0)]);
    assert_eq!(hosts(&history, 9001), []);
    assert_eq!(hosts(&history, 20000), [(host(2), 0)]);
    assert_eq!(hosts(&history, 99_999_999), [(host(2), 0)], "it has not ended");
    let all = history.all();
    assert_eq!((all[0].end.clone(), all[0].ports), (returned(9000), Some((1024, 1151))));
    assert_eq!(all[1].end, End::Held(Stamp::from_millis(30000)));
    // A time without a fraction is a whole second.
    let second = When { first: Stamp::from_millis(1000), last: Stamp::from_millis(1999) };
    assert_eq!(history.at(second), []);
    let second = When { first: Stamp::from_millis(19_500), last: Stamp::from_millis(20_499) };
    assert_eq!(history.at(second).len(), 1);
    assert_eq!(history.covers(), Some((Stamp::from_millis(1000), Stamp::from_millis(30000))));
}

#[test]
fn only_records_of_the_address_and_port_count() {
    let mut log = Log::new("a");
    log.started(1000).given(2000, 1, 896).given(2000, 2, 1152);
    let elsewhere =
        ",\"host\":\"2001:db8::9\",\"address\":\"203.0.113.2\",\"first_port\":1024,\"last_port\":1151";
    log.push(2000, "block_given", elsewhere).push(
        2000,
        "lease_given",
        ",\"host\":\"2001:db8::9\",\"address\":\"203.0.113.2\"",
    );
    log.push(2000, "session_started", ",\"host\":\"2001:db8::9\",\"address\":\"203.0.113.1\",\"port\":1100");
    assert_eq!(history(&log.made).all(), []);
    log.given(2000, 3, 973).given(2000, 4, 1100);
    assert_eq!(history(&log.made).all().len(), 2, "the first and the last port of a block count");
}

#[test]
fn a_lease_is_of_every_port() {
    let mut log = Log::new("a");
    let who = ",\"host\":\"2001:db8::1\",\"subscriber\":\"2001:db8::/64\",\"address\":\"203.0.113.1\"";
    log.started(1000).push(2000, "lease_given", who);
    log.push(3000, "lease_ended", &format!("{who},\"given\":\"1970-01-01T00:00:02.000Z\""));
    let all = history(&log.made).all();
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].host, all[0].ports, all[0].from), (host(1), None, Stamp::from_millis(2000)));
    assert_eq!(all[0].subscriber, Some("2001:db8::/64".parse().unwrap()));
    assert_eq!(all[0].end, End::Returned { at: Stamp::from_millis(3000), reason: None });
}

#[test]
fn a_return_alone_says_since_when() {
    let mut log = Log::new("a");
    log.started(1000).given(2000, 1, 1024).returned(9000, 1, 1024, 2000);
    let history = history(&log.made[2..]);
    assert_eq!(hosts(&history, 1999), []);
    assert_eq!(hosts(&history, 2000), [(host(1), 0)]);
    assert_eq!(history.begins_late(at(2000)), Some(Stamp::from_millis(9000)));
}

#[test]
fn all_ends_when_the_router_does() {
    let mut log = Log::new("a");
    log.started(1000).given(2000, 1, 1024).push(5000, "recording_ended", "");
    let history = history(&log.made);
    assert_eq!(history.all()[0].end, End::RouterEnded(Stamp::from_millis(5000)));
    assert_eq!(hosts(&history, 5001), []);
}

#[test]
fn a_router_that_ended_without_a_word_has_ended_when_it_starts_anew() {
    let mut first = Log::new("a");
    first.started(1000).given(2000, 1, 1024).other(3000);
    let mut second = Log::new("b");
    second.started(8000).other(9000);
    // In the wrong order too: files are read in any.
    for made in [[&first.made, &second.made], [&second.made, &first.made]] {
        let history = history(made.into_iter().flatten());
        let expected =
            End::RouterStartedAnew { at: Stamp::from_millis(8000), last: Stamp::from_millis(3000) };
        assert_eq!(history.all()[0].end, expected);
        assert_eq!(hosts(&history, 8000), [(host(1), 0)]);
        assert_eq!(hosts(&history, 8001), []);
    }
}

#[test]
fn another_router_that_starts_ends_nothing() {
    let mut log = Log::new("a");
    log.started(1000).given(2000, 1, 1024);
    for router in ["a router before it", "z"] {
        let other = Made::new(router, "b", 1, 8000, "recording_started", "");
        let history = history(log.made.iter().chain([&other]));
        assert_eq!(hosts(&history, 9000), [(host(1), 0)]);
        assert!(history.all().iter().all(|tenure| matches!(tenure.end, End::Held(_))));
    }
}

#[test]
fn missing_records_are_counted_where_they_matter() {
    let mut log = Log::new("a");
    log.started(1000).given(2000, 1, 1024).returned(9000, 1, 1024, 2000).given(20000, 2, 1024).other(30000);
    // Without the return and the next beginning: host 1 still seems to have it.
    let history_of = |without: &[usize]| {
        let kept = log.made.iter().enumerate().filter(|(n, _)| !without.contains(&(n + 1)));
        history(kept.map(|(_, made)| made))
    };
    assert_eq!(hosts(&history_of(&[3, 4]), 25000), [(host(1), 2)]);
    assert_eq!(history_of(&[3, 4]).missing(at(25000)), 2);
    assert_eq!(history_of(&[3, 4]).missing(at(31000)), 2, "the router may still be at work");
    assert_eq!(history_of(&[3, 4]).missing(at(999)), 0, "it was not at work yet");
    // Without the return: the next beginning tells that there was one.
    let history = history_of(&[3]);
    assert_eq!(history.all()[0].end, End::GivenAnew(Stamp::from_millis(20000)));
    assert_eq!(hosts(&history, 15000), [(host(1), 1)]);
    assert_eq!(hosts(&history, 21000), [(host(2), 0)]);
    // Without what matters to nobody here.
    assert_eq!(hosts(&history_of(&[1]), 5000), [(host(1), 0)]);
    assert_eq!(history_of(&[1]).begins_late(at(5000)), Some(Stamp::from_millis(2000)));
    assert_eq!(history_of(&[]).begins_late(at(5000)), None);
}

#[test]
fn a_lost_return_and_beginning_of_the_same_host_are_not_taken_for_one_lease() {
    let mut log = Log::new("a");
    log.started(1000).given(2000, 1, 1024).returned(9000, 1, 1024, 2000);
    log.given(20000, 1, 1024).returned(30000, 1, 1024, 20000).other(31000);
    let kept: Vec<_> = [0, 1, 4, 5].map(|n| &log.made[n]).into();
    let history = history(kept);
    assert_eq!(hosts(&history, 15000), [(host(1), 2)], "perhaps");
    assert_eq!(hosts(&history, 25000), [(host(1), 0)], "for sure");
}

#[test]
fn a_record_that_is_missing_within_a_lease_does_not_divide_it() {
    let mut log = Log::new("a");
    log.started(1000).given(2000, 1, 1024).other(3000).returned(9000, 1, 1024, 2000);
    let kept: Vec<_> = [0, 1, 3].map(|n| &log.made[n]).into();
    let all = history(kept).all();
    assert_eq!((all.len(), all[0].end.clone(), all[0].missing), (1, returned(9000), 0));
}

#[test]
fn a_return_of_another_host_is_not_the_end_of_this_ones_lease_whatever_the_clock_said() {
    let mut log = Log::new("a");
    // The clock was set back before host 2 got the block, and what happened between is missing.
    log.started(1000).given(2000, 1, 1024).returned(3000, 1, 1024, 2000).given(1500, 2, 1024);
    log.returned(9000, 2, 1024, 1500);
    let kept: Vec<_> = [0, 1, 4].map(|n| &log.made[n]).into();
    let history = history(kept);
    assert_eq!(hosts(&history, 5000), [(host(2), 0)]);
}

#[test]
fn records_cover_the_time_from_the_first_to_the_last_in_whatever_order_they_are_read() {
    let mut log = Log::new("a");
    log.started(1000).other(2000).other(3000).push(4000, "recording_ended", "");
    let history = history(log.made[1..].iter().rev());
    assert_eq!(history.covers(), Some((Stamp::from_millis(2000), Stamp::from_millis(4000))));
    assert_eq!(history.begins_late(at(3000)), Some(Stamp::from_millis(2000)));
    assert_eq!(history.begins_late(at(4001)), None, "it was no longer at work");
}

#[test]
fn the_plan_of_a_time_is_that_of_the_last_start_before_it() {
    let started = |router: &str, instance: &str, time, plan: &str| {
        Made::new(router, instance, 1, time, "recording_started", &format!(",\"configuration\":\"{plan}\""))
    };
    let made =
        [started("r", "b", 5000, "new"), started("r", "a", 1000, "old"), started("s", "c", 2000, "another")];
    let history = history(&made);
    let plans = |millis| {
        let mut plans = history.configurations(at(millis));
        plans.sort_unstable();
        plans
    };
    assert_eq!(plans(999), [] as [Option<&str>; 0]);
    assert_eq!(plans(1000), [Some("old")]);
    assert_eq!(plans(4999), [Some("another"), Some("old")]);
    assert_eq!(plans(5000), [Some("another"), Some("new")]);
}

#[test]
fn numbers_know_what_is_missing_between_any_two() {
    let mut numbers = Numbers::default();
    for number in [5, 4, 9, 1, 10, 5, 2, 12] {
        numbers.insert(number);
    }
    assert_eq!(numbers.0.into_iter().collect::<Vec<_>>(), [(1, 2), (4, 5), (9, 10), (12, 12)]);
}

proptest! {
    #[test]
    fn missing_numbers_are_counted_like_one_by_one(seen in prop::collection::vec(1_u64..60, 0..60), from in 0_u64..70, to in 0_u64..70) {
        let mut numbers = Numbers::default();
        for number in &seen {
            numbers.insert(*number);
        }
        let (first, last) = (seen.iter().min().copied().unwrap_or(0), seen.iter().max().copied().unwrap_or(0));
        let expected = (first..last).filter(|n| *n > from && *n < to && !seen.contains(n)).count() as u64;
        prop_assert_eq!(numbers.missing(from, to), expected);
    }
}

/// What a router of the property did, and the truth that its records tell.
#[derive(Debug)]
struct World {
    made: Vec<Made>,
    /// Who had the port: from, to (not included), host.
    truth: Vec<(u64, u64, u64)>,
    end: u64,
    /// The last records of the runs.
    tails: Vec<usize>,
}

/// Runs of a router that gives the port, and others, to hosts. Each step takes 5 s or more, and moments are not multiples
/// of it, so that no question falls on the millisecond of a change.
fn world(steps: &[(u8, u8)]) -> World {
    let (mut log, mut made, mut truth, mut tails) = (Log::new("a"), Vec::new(), Vec::new(), Vec::new());
    let mut instances = ["b", "c", "d", "e", "f", "g"].into_iter();
    let mut holder: Option<(u64, u64)> = None;
    let mut time = 10_000;
    log.started(time);
    for (step, wait) in steps {
        time += 5000 * (1 + u64::from(*wait));
        match (step % 8, holder) {
            (0..=2, None) => {
                let host = u64::from(step / 8 % 3);
                log.given(time, host, 1024);
                holder = Some((host, time));
            }
            (0..=2, Some((host, since))) => {
                log.returned(time, host, 1024, since);
                truth.push((since, time, host));
                holder = None;
            }
            (3, _) => {
                let Some(instance) = instances.next() else { continue };
                if step / 8 % 2 == 0 {
                    log.push(time, "recording_ended", "");
                }
                // A crash happens some time after the last record; the truth ends with what can be known.
                if let Some((host, since)) = holder.take() {
                    truth.push((since, time, host));
                }
                made.append(&mut log.made);
                tails.push(made.len() - 1);
                log = Log::new(instance);
                log.started(time);
            }
            _ => {
                log.other(time);
            }
        }
    }
    time += 5000;
    log.other(time);
    if let Some((host, since)) = holder {
        truth.push((since, u64::MAX, host));
    }
    made.append(&mut log.made);
    tails.push(made.len() - 1);
    World { made, truth, end: time, tails }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn complete_records_tell_the_truth_in_any_order_and_told_twice(
        steps in prop::collection::vec((any::<u8>(), 0_u8..3), 1..60),
        order in any::<u64>(),
    ) {
        let world = world(&steps);
        // Any order, and the same one for the same number.
        let place = |n: usize| (n as u64 ^ order).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut shuffled: Vec<_> = world.made.iter().chain(&world.made).enumerate().collect();
        shuffled.sort_by_key(|(n, _)| place(*n));
        let shuffled: Vec<&Made> = shuffled.into_iter().map(|(_, made)| made).collect();
        for history in [history(&world.made), history(shuffled)] {
            for time in (7500..world.end + 20_000).step_by(5000) {
                let truth: Vec<_> = world
                    .truth
                    .iter()
                    .filter(|(from, to, _)| (*from..*to).contains(&time))
                    .map(|(_, _, number)| (host(*number), 0))
                    .collect();
                prop_assert_eq!(hosts(&history, time), truth, "at {}", time);
            }
            prop_assert_eq!(history.missing(at(world.end)), 0);
        }
    }

    #[test]
    fn with_records_missing_what_is_told_without_a_doubt_is_true(
        steps in prop::collection::vec((any::<u8>(), 0_u8..3), 1..60),
        lost in prop::collection::vec(any::<prop::sample::Index>(), 1..8),
    ) {
        let world = world(&steps);
        // That the last records of a run are missing is nothing that numbers can show.
        let lost: Vec<_> =
            lost.iter().map(|index| index.index(world.made.len())).filter(|n| !world.tails.contains(n)).collect();
        let kept = world.made.iter().enumerate().filter(|(n, _)| !lost.contains(n));
        let history = history(kept.map(|(_, made)| made));
        for time in (7500..world.end).step_by(5000) {
            let truth: Vec<_> = world
                .truth
                .iter()
                .filter(|(from, to, _)| (*from..*to).contains(&time))
                .map(|(_, _, number)| host(*number))
                .collect();
            let told = history.at(at(time));
            for tenure in &told {
                let is_true = truth.contains(&tenure.host);
                let answer = Answer::recorded(tenure.clone(), ADDRESS);
                prop_assert!(is_true || answer.doubt(at(time)).is_some(), "at {time}: {tenure:?}");
            }
            if told.is_empty() && !truth.is_empty() {
                let warned = history.missing(at(time)) > 0 || history.begins_late(at(time)).is_some();
                prop_assert!(warned, "nobody at {time}, without a word of what is missing");
            }
        }
    }
}
