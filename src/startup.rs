//! From settings to a router that is ready to run, and back: what is made in the kernel before the actors start, and
//! what is taken away after they have ended.
//!
//! Everything that can be refused is refused before the first change. A failure after it takes back what was made.

mod describe;
mod error;
mod listen;

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use arc_swap::{ArcSwap, ArcSwapOption};
use easy_tun::{Device, DeviceBuilder, Offloads};
use fast_nat::nat64::{Nat64, NatConfig};
use fast_nat::{Deterministic, Lanes, LeaseKind, LeaseTable};
use parking_lot::Mutex;
use rtnl::Snapshot;
use slog::{Logger, debug, info, warn};

use crate::actors::control::ControlBlueprint;
use crate::actors::control::socket::ControlSocket as Socket;
use crate::actors::metrics::MetricsBlueprint;
use crate::actors::pool::PoolBlueprint;
use crate::actors::routes::RoutesBlueprint;
use crate::actors::sessions::{SessionsBlueprint, flow_of};
use crate::actors::tun::TunBlueprint;
use crate::config::{Configuration, Mappings, OnExit, Settings};
use crate::datapath::Tables;
use crate::datapath::fragments::{self, Fragments};
use crate::datapath::join::Joins;
use crate::error::chain;
use crate::generation::{self, Placed};
use crate::handover::give::{self, Requests};
use crate::handover::take::Predecessor;
use crate::handover::{Inheritance, store};
use crate::kernel::lanes::{self, NotSteered};
use crate::kernel::preflight::{self, Intent};
use crate::kernel::sysctl::Sysctls;
use crate::kernel::{LINK_ALIAS, masquerade};
use crate::plan::Plan;
use crate::records::{self, Record, Recorder, RecordsConfig, What};
use crate::reload::Reloads;
use crate::reload::again::Begun;
use crate::shared::{Desk, Records, Shared};
use crate::state::{self, Left, Note, Opened, Restoring};
use crate::supervision::{Board, Child, Concern};
use crate::who_had;

pub use error::StartError;

/// A router that is set up: its kernel state is made, its actors have not started.
#[derive(Debug)]
pub struct SetUp {
    /// What outlives the actors.
    pub shared: Arc<Shared>,
    device: Device,
    sysctls: Sysctls,
    /// Keeps the state that outlives the process.
    state: Option<state::Guard>,
    /// Writes what the records' queue still holds when it is dropped.
    _records: Option<records::Guard>,
}

/// Checks everything, then makes the device and what every actor relies on.
pub async fn set_up(
    configuration: Configuration,
    log: &Logger,
    log_dropped: Arc<AtomicU64>,
) -> Result<SetUp, StartError> {
    let steering = lanes::load_for(&configuration.settings);
    Box::pin(set_up_with(configuration, log, log_dropped, Inheritance::default(), steering)).await
}

/// The same with what was kept for this start. A router that waits for it ends when this one is set up, and not before.
pub async fn set_up_with(
    configuration: Configuration,
    log: &Logger,
    log_dropped: Arc<AtomicU64>,
    mut inheritance: Inheritance,
    steering: lanes::Loaded,
) -> Result<SetUp, StartError> {
    let handle = rtnl::Handle::open()?;
    let snapshot = handle.snapshot().await?;
    let interface = configuration.settings.interface.clone();
    let left = configuration.settings.state_dir.as_deref();
    let left = left.map_or_else(Left::default, |folder| Left::read(folder, &interface));
    let note = configuration.settings.state_dir.as_deref().and_then(|folder| Note::read(folder, &interface));
    let lanes = lanes::told_by(&steering);
    let begun = Begun::new(configuration, &left.changes, &snapshot)?;
    let (settings, plan) = (&begun.generation.settings, &begun.generation.plan);
    let (pools, prefixes) = (plan.claimed(settings), settings.prefix_nets());
    let intent = Intent { interface: &settings.interface, pools: &pools, prefixes: &prefixes };
    let problems = preflight::check(&intent, &snapshot);
    if !problems.is_empty() {
        return Err(StartError::InTheWay(problems));
    }
    let desks = (0..settings.num_queues).map(|_| Desk::new()).collect::<io::Result<_>>();
    let desks = desks.map_err(StartError::Desks)?;
    let deterministic = who_had::plan(settings).transpose()?;
    let tables = tables(plan, settings, lanes)?;
    let (mut begun, placed) = place(begun, &tables, &snapshot)?;
    begun.generation.tables.lanes = lanes;
    let (settings, plan) = (&begun.generation.settings, &begun.generation.plan);
    let rules = plan.rules(settings, &snapshot);
    let queues = inheritance.queues(&interface, log);
    let mut predecessor = inheritance.predecessor;
    let replaces = predecessor.as_ref().map(|predecessor| predecessor.pid);
    let kept = queues.held.len();
    let (device, excess) = DeviceBuilder::new(&settings.interface)
        .mtu(settings.mtu)
        .queues(settings.num_queues)
        .persist(true)
        .offloads(settings.offloads)
        .build_from(queues.held)?;
    let meanwhile = state::meanwhile(note, &interface, device.index()).filter(|_| device.adopted());
    let sysctls = Sysctls::default();
    let made = Made { device: &device, sysctls: &sysctls, handle: &handle, settings, log };
    let prepared = async {
        // Behind the device, like the address for metrics.
        let lock = predecessor.as_mut().and_then(|predecessor| predecessor.lock.take());
        let mut state = Opened::open(settings.state_dir.as_deref(), &settings.interface, lock, log)?;
        let (recorder, guard) = start_records(settings, deterministic.as_ref(), log)?;
        let records = Records::new(recorder);
        let restoring = Restoring {
            settings,
            plan,
            rules: &rules,
            deterministic: deterministic.as_ref(),
            nat: &tables.nat,
            leases: &tables.leases,
        };
        state.restore_mappings(&left, &begun)?;
        state.restore(&restoring).map_err(StartError::Restore)?;
        record_restored(&restoring, &records);
        // Behind the device: a second router of the same name is told about the name, not about the port.
        let theirs = predecessor.as_mut();
        let (metrics, control) = theirs.map(|other| (other.metrics.take(), other.control.take())).unzip();
        let metrics_listener = listen::metrics(settings.prometheus, metrics.flatten(), log)?;
        let control_socket = listen::control_socket(settings, control.flatten(), log)?;
        made.prepare(plan, &snapshot).await?;
        // Nothing can fail behind this. Until then the other one waits, and goes on if this one fails.
        if let Some(predecessor) = predecessor.take() {
            settle(predecessor, control_socket.as_ref())?;
        }
        Ok((metrics_listener, control_socket, records, guard, state))
    };
    let (metrics_listener, control_socket, records, records_guard, state) = match prepared.await {
        Ok(prepared) => prepared,
        Err(error) => {
            drop(predecessor);
            // What an earlier run left is for the start that succeeds.
            if !device.adopted() {
                made.take_back().await;
            }
            return Err(error);
        }
    };
    describe::plan(settings, plan, &snapshot, metrics_listener.as_ref(), log);
    describe::offloads(settings, device.offloads(), log);
    steer(&device, steering, log);
    describe::meanwhile(&device, (kept, replaces), meanwhile, log);
    for queue in excess {
        if let Err(error) = queue.detach() {
            warn!(log, "a queue that is too much cannot be detached: what comes to it is lost"; "because" => %error);
        }
    }
    store_queues(&device, &queues.names, log);

    let (state, keeper) = state.split();
    let joins = joins(settings, device.offloads());
    let shared = Shared {
        log: log.clone(),
        generation: ArcSwap::from_pointee(begun.generation),
        number: AtomicU64::new(1),
        placed: Mutex::new(placed),
        interface,
        rules: ArcSwap::from_pointee(rules),
        tables,
        device_index: device.index(),
        queues: device.queues().to_vec(),
        offloads: device.offloads(),
        joins,
        desks,
        lease_counters: crate::shared::LeaseCounters::default(),
        records,
        state,
        deterministic,
        kernel: Mutex::default(),
        masqueraded: AtomicBool::new(false),
        kernel_repairs: AtomicU64::new(0),
        metrics_listener: ArcSwapOption::from_pointee(metrics_listener),
        control_socket,
        handover: Requests::default(),
        reloads: Reloads::default(),
        log_dropped,
        directory: crate::shared::Directory::default(),
        board: Arc::new(Board::default()),
    };
    let shared = Arc::new(shared);
    // What no longer fits is not tried again at the next start.
    shared.keep_mappings();
    let state = keeper.and_then(|keeper| keeper.start(&shared));
    Ok(SetUp { shared, device, sysctls, state, _records: records_guard })
}

/// Has the program share packets out to workers. Without it the kernel does that by itself, whoever had the device before.
fn steer(device: &Device, steering: lanes::Loaded, log: &Logger) {
    let given = steering.and_then(|(lanes, program)| {
        device.steer(Some(&program)).map_err(NotSteered::Refused)?;
        Ok(lanes)
    });
    if given.is_err()
        && device.adopted()
        && let Err(error) = device.steer(None)
    {
        warn!(log, "a program that shares packets out to workers cannot be taken from the device, if an earlier run has left one there";
            "because" => chain(&error));
    }
    describe::steering(device.queues().len(), &given, log);
}

fn tables(plan: &Plan, settings: &Settings, lanes: Lanes) -> Result<Tables, StartError> {
    Ok(Tables {
        leases: lease_table(plan, settings),
        nat: Nat64::new(NatConfig { lanes, ..plan.nat(settings) })?,
        fragments: Fragments::new(fragments::Limits {
            memory: settings.fragments.memory,
            timeout: settings.fragments.timeout,
            ..fragments::Limits::DEFAULT
        }),
        secret: std::hash::RandomState::new(),
    })
}

/// Places the mappings of the first generation. Those that an earlier run was told are done without where that cannot be.
fn place(begun: Begun, tables: &Tables, snapshot: &Snapshot) -> Result<(Begun, Placed), StartError> {
    let mut placed = Placed::default();
    let begun = match generation::place(tables, &mut placed, &begun.generation) {
        Ok(_) => begun,
        Err(why) if begun.generation.added == Mappings::default() => return Err(StartError::StaticPair(why)),
        Err(why) => {
            let begun = begun.without_added(&why, snapshot)?;
            generation::place(tables, &mut placed, &begun.generation).map_err(StartError::StaticPair)?;
            begun
        }
    };
    Ok((begun, placed))
}

/// The table of leases; it notes what changes, if somebody keeps a copy.
fn lease_table(plan: &Plan, settings: &Settings) -> LeaseTable {
    let table = LeaseTable::new(plan.capacity(settings), settings.address_rest);
    if settings.state_dir.is_some() { table.tracking_changes() } else { table }
}

/// The first record of this run ends whatever an earlier one had given: what is back is recorded anew.
fn record_restored(restored: &Restoring<'_>, records: &Records) {
    let (nat, at, reason) = (restored.nat, crate::clock::now(), "restored");
    let tell = |host, address, what| records.tell(Record { at, host, address, what, reason });
    if records.recorder().is_none() {
        return;
    }
    for lease in restored.leases.leases().filter(|lease| lease.kind == LeaseKind::Dynamic) {
        tell(lease.host, lease.address, What::LeaseGiven);
    }
    if restored.deterministic.is_none() {
        for block in nat.blocks() {
            let (first_port, last_port) = (block.first_port, block.first_port + (block.size - 1));
            tell(block.host, block.address, What::BlockGiven { first_port, last_port });
        }
    }
    if restored.settings.records.as_ref().is_some_and(|records| records.sessions) {
        for session in nat.sessions() {
            let what = What::SessionStarted(flow_of(&session));
            tell(session.outbound.host, session.inbound.address, what);
        }
    }
}

impl SetUp {
    /// The concerns, in the order of their start.
    pub fn children(&self) -> Vec<Child> {
        let Shared { board, directory, .. } = &*self.shared;
        let shared = || Arc::clone(&self.shared);
        let child = |concern| match concern {
            Concern::Pool => Child::new(concern, board, PoolBlueprint(shared()), &directory.pool),
            Concern::Sessions => Child::new(concern, board, SessionsBlueprint(shared()), &directory.sessions),
            Concern::Tun => Child::new(concern, board, TunBlueprint(shared()), &directory.tun),
            Concern::Routes => Child::new(concern, board, RoutesBlueprint(shared()), &directory.routes),
            Concern::Control => Child::new(concern, board, ControlBlueprint(shared()), &directory.control),
            Concern::Metrics => Child::new(concern, board, MetricsBlueprint(shared()), &directory.metrics),
        };
        Concern::ALL.map(child).into()
    }

    /// The last of the state is written. A clean end need do no more: the files are always such that they can be gone on with.
    pub fn finish_state(&self) {
        if self.shared.state.mappings.failing().is_some() {
            self.shared.keep_mappings();
        }
        let Some(state) = &self.state else { return };
        if !state.finish(state::FAREWELL) {
            warn!(
                self.shared.log,
                "the last of the state was not written; the next start finds it as it was before"
            );
        }
    }

    /// Hands everything over to whoever waits at this connection, when all concerns have ended and the state is written. With an error
    /// this router goes on.
    pub fn hand_over(&self, stream: UnixStream) -> io::Result<()> {
        give::give(stream, &self.shared)
    }

    /// Goes on after all concerns have ended: the state is kept again.
    pub fn resume(&self) {
        if let Some(state) = &self.state {
            state.resume(&self.shared);
        }
        self.shared.keep_mappings();
    }

    /// A clean end that leaves everything for a start that follows.
    pub fn leave(&self) {
        if let Some(socket) = &self.shared.control_socket {
            socket.remove();
        }
        info!(self.shared.log, "device, routes and nftables table are left for the next start";
            "interface" => &self.shared.interface, "queues_are_kept" => store::is_there());
    }

    /// A clean end: takes away what was made, or leaves it for the next start, as the settings say.
    pub async fn tear_down(&self) {
        let settings = &self.shared.generation().settings;
        let log = &self.shared.log;
        if settings.on_exit == OnExit::Keep {
            self.leave();
            return;
        }
        if let Some(socket) = &self.shared.control_socket {
            socket.remove();
        }
        if store::is_there() {
            for queue in self.device.queues() {
                store::forget(&store::name_of(self.device.name(), queue.number()), log);
            }
        }
        match rtnl::Handle::open() {
            Ok(handle) => {
                let made =
                    Made { device: &self.device, sysctls: &self.sysctls, handle: &handle, settings, log };
                made.take_back().await;
            }
            Err(error) => {
                warn!(log, "what was made cannot be removed; run `protomask cleanup`"; "because" => chain(&error));
            }
        }
    }
}

/// What was made, for taking it back.
struct Made<'a> {
    device: &'a Device,
    sysctls: &'a Sysctls,
    handle: &'a rtnl::Handle,
    settings: &'a Settings,
    log: &'a Logger,
}

impl Made<'_> {
    /// Marks the device as ours, does away with what an earlier run left and this one does not want, and turns forwarding
    /// on where that is wanted. Link, routes and masquerade are the business of the actor `routes`.
    async fn prepare(&self, plan: &Plan, before: &Snapshot) -> Result<(), StartError> {
        let (interface, log) = (&self.settings.interface, self.log);
        let alias = LINK_ALIAS.to_owned();
        self.handle.make(&rtnl::Change::SetAlias { link: self.device.index(), alias }).await?;
        if self.device.adopted() {
            info!(log, "the device of an earlier run was adopted"; "interface" => interface);
        }
        for link in before
            .links
            .iter()
            .filter(|link| preflight::is_ours(link) && link.name != *interface && !link.carrier)
        {
            warn!(log, "a device of an earlier run is left under another name; `protomask cleanup` removes it";
                "interface" => &link.name);
        }
        if plan.masquerade(self.settings).is_none() {
            match masquerade::remove(interface) {
                Ok(false) => {}
                Ok(true) => {
                    info!(log, "the nftables table of an earlier run was removed"; "table" => masquerade::table_name(interface));
                }
                Err(error) => {
                    debug!(log, "nftables tables of earlier runs cannot be looked for"; "because" => chain(&error));
                }
            }
        }
        if self.settings.enable_forwarding {
            let changes = self.sysctls.enable(interface, before)?;
            for change in changes.changed {
                info!(log, "sysctl changed"; "key" => %change.key, "old" => change.old, "new" => change.new);
            }
        } else if let Ok(Some(_)) = self.sysctls.recorded(interface) {
            warn!(log, "an earlier run turned forwarding on and ended uncleanly; it stays on, and `protomask cleanup` \
                restores what was before"; "interface" => interface);
        }
        Ok(())
    }

    /// Takes back what was made. Goes on after a failure, and names it.
    async fn take_back(&self) {
        let interface = &self.settings.interface;
        if self.settings.enable_forwarding {
            self.restore_sysctls();
        }
        if let Err(error) = masquerade::remove(interface) {
            debug!(self.log, "no nftables table could be removed"; "because" => chain(&error));
        }
        match self.handle.remove_link(self.device.index()).await {
            Ok(()) => {
                info!(self.log, "the device was removed, and its routes with it"; "interface" => interface);
            }
            Err(error) => warn!(self.log, "the device could not be removed; run `protomask cleanup`";
                "interface" => interface, "because" => chain(&error)),
        }
    }

    fn restore_sysctls(&self) {
        match self.sysctls.restore(&self.settings.interface) {
            Ok(restored) => {
                for change in restored.changed {
                    info!(self.log, "sysctl restored"; "key" => %change.key, "old" => change.old, "new" => change.new);
                }
                for (key, found) in restored.left {
                    warn!(self.log, "sysctl left as somebody else has set it"; "key" => %key, "value" => found);
                }
            }
            Err(error) => {
                warn!(self.log, "sysctls could not be restored; run `protomask cleanup`"; "because" => chain(&error));
            }
        }
    }
}

/// Begins to keep allocation records, if they are wanted. With ports by computation none are needed, and none are kept unless
/// asked for.
fn start_records(
    settings: &Settings,
    plan: Option<&Deterministic>,
    log: &Logger,
) -> Result<(Option<Recorder>, Option<records::Guard>), records::StartError> {
    let Some(config) = RecordsConfig::of(settings, plan) else { return Ok((None, None)) };
    let (recorder, guard) = records::start(&config, log)?;
    Ok((Some(recorder), Some(guard)))
}

/// From here on this router is the one, and the other one ends.
fn settle(predecessor: Predecessor, control: Option<&Socket>) -> Result<(), StartError> {
    let adopted = control.filter(|socket| !socket.is_owned());
    predecessor.settle(adopted.is_some())?;
    if let Some(socket) = adopted {
        socket.set_owned(true);
    }
    Ok(())
}

/// The service manager, if there is one, keeps the queues while there is no process.
fn store_queues(device: &Device, before: &[String], log: &Logger) {
    if !store::is_there() {
        return;
    }
    for name in before {
        store::forget(name, log);
    }
    for queue in device.queues() {
        store::keep(&store::name_of(device.name(), queue.number()), queue.as_fd(), log);
    }
}

/// Which packets may be joined: those of kinds that the device takes as super-packets.
fn joins(settings: &Settings, granted: Offloads) -> Joins {
    let takes = |offloads| settings.join && granted.contains(offloads);
    Joins { tcp: takes(Offloads::TSO4 | Offloads::TSO6), udp: takes(Offloads::USO) }
}
