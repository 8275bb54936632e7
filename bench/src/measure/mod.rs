//! One measurement: a load for some seconds, what came through, and what it cost.

mod idle;
mod iperf;
mod machine;
mod usage;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::lab::Lab;
use crate::load::pace::Pace;
use crate::load::stream::Handing;
use crate::load::{connections, echo, search, stream};
use crate::loads::{Load, trial_seconds};
use crate::process::Process;
pub(crate) use idle::{When, rest};
use machine::Machine;
use usage::Usage;

/// What a measurement may find. Units are in the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    /// Received TCP payload.
    GbitPerSecond,
    /// TCP segments sent again.
    Retransmits,
    /// Processor time of the whole machine per received datagram, in microseconds.
    MachineMicros,
    /// The same, less what the load costs between client and server without a router, in the same round.
    MachineMicrosLessDirect,
    /// Processor time of the contender's process, in microseconds: per received datagram, or per connection.
    ProcessMicros,
    /// Datagrams sent per second.
    SentPerSecond,
    /// Datagrams that did not arrive.
    LossPercent,
    /// How many datagrams the sender sent at a time: more than were asked for where it woke late.
    SentPerWakeUp,
    /// The highest rate without loss, in datagrams per second.
    LosslessPerSecond,
    /// TCP connections completed.
    ConnectionsPerSecond,
    /// TCP connections that were not completed.
    FailedConnections,
    /// Percentiles of the round-trip time, in microseconds.
    RoundTripMedian,
    RoundTrip99,
    RoundTrip999,
    /// The rate of the datagrams beside which round-trip times were measured.
    BackgroundPerSecond,
    /// And how many of these did not arrive.
    BackgroundLossPercent,
    /// Processor time of the contender's process while it waits, in percent of one processor: after the start, and after
    /// all loads, when it may have to forget what these left.
    IdlePercent,
    IdlePercentAtEnd,
    /// Voluntary context switches of its threads per second while it waits, after the start.
    WakeUpsPerSecond,
    /// The same of the threads that carry packets, which have nothing to do meanwhile: after the start, and after all loads.
    WorkerWakeUpsPerSecond,
    WorkerWakeUpsPerSecondAtEnd,
    /// Resident memory after the start and after all loads, in MB (10^6 bytes).
    MemoryAtStart,
    MemoryAtEnd,
    /// Packets that found the contender's device full.
    DeviceFull,
}

/// What one measurement found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Sample {
    #[serde(flatten)]
    pub(crate) figures: BTreeMap<Figure, f64>,
    /// Round-trip times, in ns.
    #[serde(skip)]
    pub(crate) times: Option<Histogram<u64>>,
}

impl Sample {
    fn of(figures: impl IntoIterator<Item = (Figure, f64)>) -> Self {
        Self { figures: figures.into_iter().collect(), times: None }
    }
}

/// The ports of the server for flows of datagrams.
const STREAM: u16 = 7001;
const ECHO: u16 = 7002;
const CONNECTIONS: u16 = 7003;

/// No more than that is lost of what is sent without loss (RFC 2544 §26.1 says none; a machine with other work to do loses a
/// few at any rate).
const LOSSLESS_PERCENT: f64 = 0.1;
/// A rate has been sent if so much of it has.
const KEPT_RATE: f64 = 0.98;

/// A contender at work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'s> {
    pub(crate) lab: &'s Lab,
    pub(crate) process: Option<&'s Process>,
}

impl Subject<'_> {
    fn usage(&self) -> Result<Option<Usage>> {
        self.process.map(|process| Usage::of(process.id())).transpose()
    }

    /// Measures one load. `background` is the rate beside which round-trip times under load are measured.
    pub(crate) fn measure(&self, load: Load, asked: u32, background: Option<u64>) -> Result<Sample> {
        let before = self.usage()?;
        let duration = Duration::from_secs_f64(load.seconds(asked));
        let mut sample = match load {
            Load::Tcp { flows, way } => self.tcp(flows, way, asked),
            Load::Paced { payload } => self.cost(payload, 1, Handing::OneByOne, duration),
            Load::Bursts => self.cost(Load::SMALL, Load::BURST, Handing::OneByOne, duration),
            Load::CardBursts => self.card_bursts(duration),
            Load::Throughput { payload } => self.throughput(payload, asked),
            Load::Connections => self.connections(duration),
            Load::RoundTrip => self.round_trips(duration, None),
            Load::RoundTripLoaded => {
                let rate = background
                    .context("no translator has a rate without loss, of which a part would be sent")?;
                self.round_trips(duration, Some(rate))
            }
            Load::Idle => bail!("waiting is no load"),
        }?;
        if let (Some(before), Some(after)) = (before, self.usage()?) {
            let spent = after.since(before);
            if spent.written == 0 {
                bail!("the packets went another way: the contender wrote none");
            }
            sample.figures.insert(Figure::DeviceFull, spent.missed as f64);
        }
        Ok(sample)
    }

    fn tcp(&self, flows: u8, way: crate::loads::Way, seconds: u32) -> Result<Sample> {
        let found = iperf::iperf(self.lab, flows, way, seconds)?;
        let mut sample = Sample::of([(Figure::GbitPerSecond, found.bits_per_second / 1e9)]);
        sample.figures.extend(found.retransmits.map(|count| (Figure::Retransmits, count)));
        Ok(sample)
    }

    /// The client's kernel cuts each burst and hands it over as a whole. That these are packets of their own is seen: a
    /// super-packet would be one for who can take it, and work of the device's for who cannot.
    fn card_bursts(&self, duration: Duration) -> Result<Sample> {
        let before = self.lab.arrivals()?;
        let sample = self.cost(Load::SMALL, Load::BURST, Handing::Together, duration)?;
        let arrived = self.lab.arrivals()?.saturating_sub(before);
        let sent = sample.figures.get(&Figure::SentPerSecond).copied().unwrap_or_default();
        let expected = sent * duration.as_secs_f64() * KEPT_RATE;
        if (arrived as f64) < expected {
            bail!(
                "{arrived} packets arrived where {expected:.0} datagrams and more were sent: not each is a packet"
            );
        }
        Ok(sample)
    }

    /// What a datagram costs the machine and the contender at a rate that is far from the highest.
    fn cost(&self, payload: u16, burst: u64, handing: Handing, duration: Duration) -> Result<Sample> {
        let flow = self.lab.flow(STREAM)?;
        let pace = Pace { rate: Load::RATE, burst, duration: nanos(duration) };
        let (machine, process) = (Machine::now()?, self.usage()?);
        let counts = stream::run(&flow, payload, pace, handing)?;
        let busy = Machine::now()?.busy_since(machine);
        let spent = self.usage()?.zip(process).map(|(now, then)| now.since(then).cpu);
        if counts.received == 0 {
            bail!("no datagram arrived");
        }
        let each = |time: Duration| time.as_secs_f64() * 1e6 / counts.received as f64;
        let mut sample = Sample::of([
            (Figure::MachineMicros, each(busy)),
            (Figure::SentPerSecond, counts.rate()),
            (Figure::LossPercent, counts.loss_percent()),
            (Figure::SentPerWakeUp, counts.sent as f64 / counts.wake_ups.max(1) as f64),
        ]);
        sample.figures.extend(spent.map(|time| (Figure::ProcessMicros, each(time))));
        Ok(sample)
    }

    fn throughput(&self, payload: u16, asked: u32) -> Result<Sample> {
        let flow = self.lab.flow(STREAM)?;
        let duration = nanos(Duration::from_secs_f64(trial_seconds(asked)));
        let found = search::highest(|rate| {
            let counts = stream::run(&flow, payload, Pace { rate, burst: 1, duration }, Handing::OneByOne)?;
            Ok(counts.loss_percent() <= LOSSLESS_PERCENT && counts.rate() >= KEPT_RATE * rate as f64)
        })?;
        Ok(Sample::of([(Figure::LosslessPerSecond, found)]))
    }

    fn connections(&self, duration: Duration) -> Result<Sample> {
        let ends = self.lab.ends(CONNECTIONS);
        let before = self.usage()?;
        let places = (self.lab.client(), self.lab.server());
        let opened = connections::run(places, self.lab.hosts(), (ends.bound, ends.seen), duration)?;
        if opened.completed == 0 {
            bail!("no connection was completed, and {} were not", opened.failed);
        }
        let mut sample = Sample::of([
            (Figure::ConnectionsPerSecond, opened.completed as f64 / opened.seconds),
            (Figure::FailedConnections, opened.failed as f64),
        ]);
        let spent = self.usage()?.zip(before).map(|(now, then)| now.since(then).cpu);
        sample.figures.extend(
            spent.map(|time| (Figure::ProcessMicros, time.as_secs_f64() * 1e6 / opened.completed as f64)),
        );
        Ok(sample)
    }

    fn round_trips(&self, duration: Duration, background: Option<u64>) -> Result<Sample> {
        let flow = self.lab.flow(ECHO)?;
        let (echoes, beside) = match background {
            None => (echo::run(&flow, Load::ECHOES, nanos(duration))?, None),
            Some(rate) => {
                let other = self.lab.flow(STREAM)?;
                let pace = Pace { rate, burst: 1, duration: nanos(duration + LEAD) };
                std::thread::scope(|scope| {
                    let stream = scope.spawn(|| stream::run(&other, Load::SMALL, pace, Handing::OneByOne));
                    crate::load::pace::sleep_until(crate::load::pace::now() + nanos(LEAD) / 2);
                    let echoes = echo::run(&flow, Load::ECHOES, nanos(duration));
                    let counts = stream.join().map_err(|_| anyhow::anyhow!("the stream panicked"))??;
                    anyhow::Ok((echoes?, Some(counts)))
                })?
            }
        };
        if echoes.times.is_empty() {
            bail!("no echo came back");
        }
        let micros = |quantile| echoes.times.value_at_quantile(quantile) as f64 / 1000.0;
        let lost = echoes.sent.saturating_sub(echoes.times.len());
        let mut sample = Sample::of([
            (Figure::RoundTripMedian, micros(0.5)),
            (Figure::RoundTrip99, micros(0.99)),
            (Figure::RoundTrip999, micros(0.999)),
            (Figure::LossPercent, 100.0 * lost as f64 / echoes.sent.max(1) as f64),
        ]);
        if let Some(counts) = beside {
            sample.figures.insert(Figure::BackgroundPerSecond, counts.rate());
            sample.figures.insert(Figure::BackgroundLossPercent, counts.loss_percent());
        }
        sample.times = Some(echoes.times);
        Ok(sample)
    }
}

/// So much longer than the echoes lasts the stream beside them, half of it before and half of it after.
const LEAD: Duration = Duration::from_millis(200);

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Layout;

    const SHORT: Duration = Duration::from_millis(500);

    /// Datagrams sent and packets arrived, with and without a router.
    fn arrivals(handing: Handing) -> Vec<(f64, f64)> {
        let labs = [Layout::Direct, Layout::Forwarding].map(|layout| Lab::new(layout).unwrap());
        let count = |lab: &Lab| {
            let before = lab.arrivals().unwrap();
            let pace = Pace { rate: Load::RATE, burst: Load::BURST, duration: nanos(SHORT) };
            let flow = lab.flow(STREAM).unwrap();
            let counts = stream::run(&flow, Load::SMALL, pace, handing).unwrap();
            assert_eq!(counts.received, counts.sent, "nothing is lost on the way");
            (counts.sent as f64, (lab.arrivals().unwrap() - before) as f64)
        };
        labs.iter().map(count).collect()
    }

    #[test]
    fn a_datagram_is_a_packet_of_its_own_however_bursts_are_sent() {
        if !netlab::kernel_tests_possible() {
            return;
        }
        for handing in [Handing::OneByOne, Handing::Together] {
            for (sent, arrived) in arrivals(handing) {
                // And a few of neighbour discovery, and those that tried whether any gets through.
                assert!(
                    sent >= 200.0 && (sent..sent + 100.0).contains(&arrived),
                    "{handing:?}: {arrived} of {sent}"
                );
            }
        }
    }

    #[test]
    fn bursts_that_arrive_as_super_packets_are_no_measurement() {
        if !netlab::kernel_tests_possible() {
            return;
        }
        let lab = Lab::new(Layout::Forwarding).unwrap();
        let subject = Subject { lab: &lab, process: None };
        assert!(subject.card_bursts(SHORT).is_ok());
        lab.client().set_offload("eth0", "tx-udp-segmentation", true).unwrap();
        let error = subject.card_bursts(SHORT).unwrap_err().to_string();
        assert!(error.contains("not each is a packet"), "{error}");
    }
}
