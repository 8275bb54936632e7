//! A router inside this process, in a namespace of its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fast_nat::Lease;
use netlab::{Namespace, PingOptions, PingOutcome, Topology, TopologyOptions, http_get, ping};
use protomask::config::{
    ControlSocket, Partial, PartialPool, PartialState, PartialTimers, Placed, Prometheus, Sharing,
};
use protomask::datapath::{DropReason, Refusal};
use protomask::shared::Shared;
use protomask::startup::set_up;
use protomask::supervision::faults::{Faults, Inject, Point};
use protomask::supervision::{Concern, Exit, Limits, Outcome, Overseer, State, Status, Unavailable};
use slog::{Drain as _, Logger, o};
use tokio::sync::oneshot;

/// Far beyond what anything here takes, also on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// For what should not come: long enough for a thing that does come by mistake.
pub(crate) const SHORT: Duration = Duration::from_millis(500);

/// A router that may be restarted as often as a test likes, and soon. What is busy for a second hangs: the slowest
/// handler takes milliseconds, and a thread may wait a tenth of a second for a processor.
pub(crate) const LENIENT: Limits = Limits {
    hang_after: Duration::from_secs(1),
    start_within: PATIENCE,
    max_restarts: 10_000,
    restart_window: Duration::from_mins(1),
    first_delay: Duration::from_millis(20),
    longest_delay: Duration::from_millis(40),
    healthy_after: Duration::from_secs(10),
};

type FaultsOf = Box<dyn Deref<Target = Faults> + Send + Sync>;

/// A running router and the namespaces around it. Dropping it ends the router.
pub(crate) struct Lab {
    pub(crate) topology: Topology,
    pub(crate) shared: Arc<Shared>,
    faults: Vec<FaultsOf>,
    stop: Option<oneshot::Sender<()>>,
    router: Option<JoinHandle<Outcome>>,
}

/// What tests change of a router.
pub(crate) struct Wanted {
    pub(crate) limits: Limits,
    pub(crate) pools: &'static [&'static str],
    pub(crate) hosts: u16,
    pub(crate) queues: usize,
    pub(crate) reservation_timeout: Duration,
    pub(crate) sharing: Sharing,
    /// UDP sessions, resting ports and idle blocks last so long.
    pub(crate) short_timers: Option<Duration>,
    /// Where state is kept, if any is.
    pub(crate) state_dir: Option<PathBuf>,
    /// The name of its device, if not one of its own.
    pub(crate) interface: Option<String>,
    /// It logs nothing: what a test prints is kept in memory.
    pub(crate) quiet: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            limits: LENIENT,
            pools: &["203.0.113.0/24"],
            hosts: 8,
            queues: 2,
            reservation_timeout: Duration::from_mins(10),
            sharing: Sharing::Exclusive,
            short_timers: None,
            state_dir: None,
            interface: None,
            quiet: false,
        }
    }
}

impl Lab {
    /// A router, ready to forward; `None` where the kernel's part cannot be had.
    pub(crate) fn start(wanted: &Wanted) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);

        if !netlab::kernel_tests_possible() {
            return None;
        }
        let options = TopologyOptions { addresses_per_client: wanted.hosts, ..TopologyOptions::default() };
        let topology = Topology::with(&options).unwrap();
        let own = || format!("sv{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let interface = wanted.interface.clone().unwrap_or_else(own);
        let socket = std::env::temp_dir().join(format!("protomask-{interface}.sock"));
        let pools = wanted.pools.iter().map(|net| PartialPool {
            sharing: Some(flag(wanted.sharing)),
            ..PartialPool::new(flag(net.parse().unwrap()))
        });
        let settings = Partial {
            interface: Some(flag(interface)),
            translation_prefixes: Some(vec![flag(PREFIX.parse().unwrap())]),
            pools: Some(pools.collect()),
            timers: PartialTimers {
                udp: wanted.short_timers.map(flag),
                port_rest: wanted.short_timers.map(flag),
                tcp_port_rest: wanted.short_timers.map(flag),
                block_idle: wanted.short_timers.map(flag),
                below_rfc: wanted.short_timers.map(|_| flag(true)),
                ..PartialTimers::default()
            },
            num_queues: Some(flag(wanted.queues)),
            reservation_timeout: Some(flag(wanted.reservation_timeout)),
            hold_timeout: Some(flag(Duration::from_mins(1))),
            state: PartialState {
                dir: wanted.state_dir.clone().map(flag),
                none: wanted.state_dir.is_none().then(|| flag(true)),
            },
            control_socket: Some(flag(ControlSocket::At(socket))),
            prometheus: Some(flag(Prometheus::At((Ipv4Addr::LOCALHOST, HTTP_PORT).into()))),
            ..Partial::default()
        };
        let configuration = settings.configure(vec![]).unwrap();

        let (tell, told) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        let (namespace, limits, quiet) = (topology.router.clone(), wanted.limits, wanted.quiet);
        let router = std::thread::spawn(move || {
            namespace.enter_current_thread().unwrap();
            actix_rt::System::new().block_on(async move {
                let log = if quiet { Logger::root(slog::Discard, o!()) } else { log() };
                let made = Box::pin(set_up(configuration, &log, Arc::default())).await.unwrap();
                let children = made.children();
                let faults: Vec<_> =
                    children.iter().map(|child| Box::new(child.faults()) as FaultsOf).collect();
                tell.send((Arc::clone(&made.shared), faults)).unwrap();
                let overseer = Overseer::new(children, Arc::clone(&made.shared.board), limits, &log);
                let shutdown = async {
                    // A test that is over, or has failed, wants the same.
                    let _ = stopped.await;
                };
                let outcome = overseer.run(shutdown).await;
                made.tear_down().await;
                outcome
            })
        });
        let (shared, faults) = told.recv_timeout(PATIENCE).expect("a router that is set up");
        let lab = Self { topology, shared, faults, stop: Some(stop), router: Some(router) };
        eventually("it is ready", || lab.shared.problems().is_empty().then_some(()));
        Some(lab)
    }

    pub(crate) fn client(&self) -> &Namespace {
        self.topology.client()
    }

    /// The address of a host: 0 is the one that flows use, the others are strangers until they say something.
    pub(crate) fn host(&self, number: usize) -> Ipv6Addr {
        self.topology.clients[0].addresses[number]
    }

    pub(crate) fn faults(&self, concern: Concern) -> &Faults {
        // `SetUp::children` has this order.
        let place = Concern::ALL.iter().position(|other| *other == concern).unwrap();
        &self.faults[place]
    }

    pub(crate) fn status(&self, concern: Concern) -> Status {
        self.shared.board.of(concern)
    }

    /// Sends a concern a fault, and waits a while for the answer.
    pub(crate) fn inject(
        &self,
        concern: Concern,
        fault: Inject,
        patience: Duration,
    ) -> Result<(), Unavailable> {
        inject(&self.shared, concern, fault, patience)
    }

    /// Everybody but `concern` answers.
    pub(crate) fn the_others_answer(&self, concern: Concern) {
        for other in Concern::ALL.into_iter().filter(|other| *other != concern) {
            assert_eq!(
                self.inject(other, Inject::Nothing, PATIENCE),
                Ok(()),
                "{other} while {concern} is down"
            );
        }
    }

    /// Waits until a concern runs in this generation and answers.
    pub(crate) fn wait_for_generation(&self, concern: Concern, generation: u64) {
        eventually(&format!("generation {generation} of {concern} runs"), || {
            let status = self.status(concern);
            assert!(status.generation <= generation, "{concern}: {status:?}");
            (status.generation == generation && status.state == State::Running).then_some(())
        });
        assert_eq!(self.inject(concern, Inject::Nothing, PATIENCE), Ok(()), "{concern} after its restart");
    }

    /// Ends a concern and lets it not start again before [`Self::release`].
    pub(crate) fn hold_down(&self, concern: Concern) {
        let refused = Exit::CannotStart(String::new()).kind();
        // It may have been held down before.
        let before = self.status(concern).exits[refused];
        self.faults(concern).arm(Point::Build, u32::MAX);
        assert_eq!(self.inject(concern, Inject::Stop, PATIENCE), Ok(()));
        eventually("it refuses to start", || (self.status(concern).exits[refused] > before).then_some(()));
        assert_eq!(self.inject(concern, Inject::Nothing, PATIENCE), Err(Unavailable::Absent), "{concern}");
    }

    pub(crate) fn release(&self, concern: Concern) {
        assert!(self.faults(concern).struck(Point::Build) > 0, "{concern} was not held down");
        self.faults(concern).arm(Point::Build, 0);
        eventually(&format!("{concern} is back"), || {
            (self.status(concern).state == State::Running).then_some(())
        });
        assert_eq!(self.inject(concern, Inject::Nothing, PATIENCE), Ok(()), "{concern} after its restart");
    }

    /// One ping of the server, by one of the hosts.
    pub(crate) fn ping_once(&self, host: usize, timeout: Duration) -> PingOutcome {
        ping_from(self.client(), self.host(host), timeout)
    }

    /// The same in the background.
    pub(crate) fn ping_in_background(&self, host: usize) -> JoinHandle<PingOutcome> {
        let (namespace, source) = (self.client().clone(), self.host(host));
        std::thread::spawn(move || ping_from(&namespace, source, PATIENCE))
    }

    /// Pings the server, by one of the hosts, which thereby has a lease.
    pub(crate) fn ping(&self, host: usize) {
        let outcome = self.ping_once(host, PATIENCE);
        assert!(outcome.is_reply(), "host {host}: {outcome:?}");
        assert!(self.lease(host).is_some(), "host {host} was answered without a lease");
    }

    pub(crate) fn lease(&self, host: usize) -> Option<Lease> {
        self.shared.tables.leases.peek_host(self.host(host))
    }

    /// Who holds what, by address.
    pub(crate) fn leases(&self) -> Vec<(Ipv4Addr, Ipv6Addr)> {
        let mut leases: Vec<_> =
            self.shared.tables.leases.leases().map(|lease| (lease.address, lease.host)).collect();
        leases.sort_unstable();
        leases
    }

    /// First packets of new hosts that were held so far.
    pub(crate) fn held(&self) -> u64 {
        self.shared.desks.iter().map(|desk| desk.counters.held.get()).sum()
    }

    /// Whether metrics can be had in this time.
    pub(crate) fn answers_http(&self, patience: Duration) -> bool {
        let at = (Ipv4Addr::LOCALHOST, HTTP_PORT).into();
        http_get(&self.topology.router, at, "/metrics", patience).is_ok_and(|answer| answer.status == 200)
    }

    /// Whether the control socket answers in this time.
    pub(crate) fn answers_control(&self, patience: Duration) -> bool {
        let path = &self.shared.control_socket.as_ref().expect("a socket").path;
        let Ok(mut stream) = UnixStream::connect(path) else { return false };
        stream.set_read_timeout(Some(patience)).unwrap();
        let asked = stream.write_all(b"{\"command\": \"list-actors\"}\n");
        let mut line = String::new();
        asked.is_ok() && BufReader::new(stream).read_line(&mut line).is_ok() && line.contains("\"ok\"")
    }

    pub(crate) fn drops(&self, refusal: Refusal) -> u64 {
        self.shared.desks.iter().map(|desk| desk.counters.drops(DropReason::from(refusal))).sum()
    }

    /// A clean end.
    pub(crate) fn end(mut self) {
        self.stop.take();
        assert_eq!(self.outcome(), Outcome::Shutdown);
    }

    /// How the router ended, once it has.
    pub(crate) fn outcome(&mut self) -> Outcome {
        let router = self.router.take().expect("a router that was not waited for");
        eventually("the router ends", || router.is_finished().then_some(()));
        router.join().unwrap()
    }
}

/// Sends a concern a fault, and waits a while for the answer.
pub(crate) fn inject(
    shared: &Shared,
    concern: Concern,
    fault: Inject,
    patience: Duration,
) -> Result<(), Unavailable> {
    let directory = &shared.directory;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        match concern {
            Concern::Tun => directory.tun.ask(fault, patience).await,
            Concern::Sessions => directory.sessions.ask(fault, patience).await,
            Concern::Pool => directory.pool.ask(fault, patience).await,
            Concern::Routes => directory.routes.ask(fault, patience).await,
            Concern::Metrics => directory.metrics.ask(fault, patience).await,
            Concern::Control => directory.control.ask(fault, patience).await,
        }
    })
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(router) = self.router.take() {
            // What went wrong with it has been printed; a destructor must not add to it.
            let _ = router.join();
        }
    }
}

/// The translation prefix.
pub(crate) const PREFIX: &str = "64:ff9b:1::/96";

/// Where metrics are served, in the router's namespace.
pub(crate) const HTTP_PORT: u16 = 9464;

/// How an IPv6-only host addresses an IPv4 host (RFC 6052 section 2.2).
pub(crate) fn through(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = address.octets().map(u16::from);
    Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, a << 8 | b, c << 8 | d)
}

fn ping_from(namespace: &Namespace, source: Ipv6Addr, timeout: Duration) -> PingOutcome {
    let options = PingOptions { source: Some(source.into()), timeout, ..PingOptions::default() };
    ping(namespace, through(Topology::SERVER_V4), &options).unwrap()
}

fn flag<T>(value: T) -> Placed<T> {
    Placed::by_flag("--test", value)
}

/// Lines that the harness shows when the test fails.
pub(crate) fn log() -> Logger {
    let decorator = slog_term::PlainSyncDecorator::new(slog_term::TestStdoutWriter);
    Logger::root(slog_term::FullFormat::new(decorator).build().fuse(), o!())
}

/// Looks again and again, until there is an answer.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        pause(Duration::from_millis(5));
    }
}

/// For what has no event that could be waited for.
#[allow(clippy::disallowed_methods, reason = "nobody has to tell a test to stop")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
