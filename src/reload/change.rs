//! From what is wanted to a generation that holds, or to the reason why nothing changes.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rtnl::{Change, Snapshot};
use tokio::time::{Instant, sleep};

use crate::actors::pool::pools;
use crate::actors::routes::Reconcile;
use crate::actors::sessions::PutIntoForce;
use crate::config::{Configuration, DEFAULT_PROMETHEUS, Mappings, Partial, Prometheus};
use crate::error::chain;
use crate::generation::{Generation, NotChanged};
use crate::kernel::masquerade;
use crate::kernel::preflight::{self, Intent};
use crate::shared::Shared;
use crate::state::Lasts;
use crate::supervision::Unavailable;

/// How long `sessions` may take to put a generation into force, and how long a restarted one is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The wait before it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// How often a change is made anew because another one came first.
const ATTEMPTS: usize = 8;

/// What the next generation is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What flags and file give.
    pub base: Partial,
    /// What was added at run time.
    pub added: Mappings,
    /// What was removed at run time, and is not in `base` for that reason.
    pub removed: Mappings,
    /// Settings that wait for a restart.
    pub pending: Vec<&'static str>,
}

impl Wanted {
    /// What a generation is made of.
    pub fn of(generation: &Generation) -> Self {
        Self {
            base: generation.base.clone(),
            added: generation.added.clone(),
            removed: generation.removed.clone(),
            pending: generation.pending.clone(),
        }
    }
}

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// What is wanted is wrong, or stands against what is there.
    #[error("{0}")]
    Wrong(String),
    /// What is to be changed is not there.
    #[error("{0}")]
    NotFound(String),
    /// Who has to do it is not there: try again.
    #[error("{0}; try again")]
    Unavailable(String),
}

impl Refused {
    fn because(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Wrong(chain(error))
    }
}

/// What a change has come to.
#[derive(Debug, Clone)]
pub struct Changed {
    /// The generation that holds then.
    pub generation: Arc<Generation>,
    /// Whether it did not hold before.
    pub has_changed: bool,
    /// How long the mappings of run time last that are in it.
    pub lasts: Lasts,
}

/// Puts into force what `make` makes of the generation that holds: all of it, or nothing. Behind that the mappings of run time are
/// written: a crash in between leaves those of before, and nobody was told of the new ones.
pub async fn change(
    shared: &Arc<Shared>,
    make: impl Fn(&Generation) -> Result<Wanted, Refused>,
) -> Result<Changed, Refused> {
    let (generation, has_changed) = put(shared, make).await?;
    let lasts = keep(shared).await;
    Ok(Changed { generation, has_changed, lasts })
}

/// Writes the mappings of run time, unless the file has them already.
async fn keep(shared: &Arc<Shared>) -> Lasts {
    let own = Arc::clone(shared);
    // Not on this thread, which others need: the disk takes its time.
    let kept = tokio::task::spawn_blocking(move || own.keep_mappings()).await;
    kept.unwrap_or_else(|lost| Lasts::UntilTheEnd(lost.to_string()))
}

async fn put(
    shared: &Arc<Shared>,
    make: impl Fn(&Generation) -> Result<Wanted, Refused>,
) -> Result<(Arc<Generation>, bool), Refused> {
    for _ in 0..ATTEMPTS {
        let before = shared.generation();
        let wanted = make(&before)?;
        if wanted == Wanted::of(&before) {
            return Ok((before, false));
        }
        match Box::pin(attempt(shared, &before, wanted)).await {
            Err(Failed::Outdated) => {}
            Err(Failed::Refused(refused)) => {
                // What was made in the kernel for it goes again. If routes is not there just now, its next comparison does that.
                let _ = shared.directory.routes.try_send(Reconcile);
                return Err(refused);
            }
            Ok(()) => {
                let _ = shared.directory.routes.try_send(Reconcile);
                return Ok((shared.generation(), true));
            }
        }
    }
    Err(Refused::Unavailable("the settings are being changed by somebody else".to_owned()))
}

enum Failed {
    Outdated,
    Refused(Refused),
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

async fn attempt(shared: &Arc<Shared>, before: &Generation, wanted: Wanted) -> Result<(), Failed> {
    let Wanted { base, added, removed, pending } = wanted;
    let configured = base.with(&added).configure(Vec::new());
    let Configuration { settings, .. } =
        configured.map_err(|problems| Refused::Wrong(problems.to_string()))?;
    let handle = rtnl::Handle::open().map_err(|error| Refused::because(&error))?;
    let snapshot = handle.snapshot().await.map_err(|error| Refused::because(&error))?;
    let plan = before.plan.follow(&settings, &snapshot).map_err(|error| Refused::because(&error))?;
    let next = Generation { base, added, removed, pending, ..before.next(settings, plan) };
    check(&next, &snapshot)?;
    let listener = listener(shared, before, &next)?;
    make_way(shared, &handle, before, &next, &snapshot).await?;
    let rules = next.plan.rules(&next.settings, &snapshot);
    put_into_force(shared, PutIntoForce { next: Box::new(next), rules: Box::new(rules) }).await?;
    match listener {
        Listen::Same => {}
        Listen::Elsewhere(listener) => shared.metrics_listener.store(Some(Arc::new(listener))),
        Listen::Nowhere => shared.metrics_listener.store(None),
    }
    Ok(())
}

/// Everything that would keep a router with these settings from starting.
pub(super) fn check(next: &Generation, snapshot: &Snapshot) -> Result<(), Refused> {
    let (settings, plan) = (&next.settings, &next.plan);
    let (nets, prefixes) = (plan.claimed(settings), settings.prefix_nets());
    let intent = Intent { interface: &settings.interface, pools: &nets, prefixes: &prefixes };
    let problems: Vec<_> = preflight::check(&intent, snapshot).iter().map(ToString::to_string).collect();
    if !problems.is_empty() {
        return Err(Refused::Wrong(problems.join("; ")));
    }
    pools(next).map(drop).map_err(Refused::Wrong)
}

/// Where metrics are to be served.
enum Listen {
    Same,
    Elsewhere(TcpListener),
    Nowhere,
}

/// Opens the address for metrics, if it is another one.
fn listener(shared: &Shared, before: &Generation, next: &Generation) -> Result<Listen, Refused> {
    let wanted = match next.settings.prometheus {
        same if same == before.settings.prometheus => return Ok(Listen::Same),
        Prometheus::Off => return Ok(Listen::Nowhere),
        Prometheus::Default => DEFAULT_PROMETHEUS,
        Prometheus::At(address) => address,
    };
    let now = shared.metrics_listener.load();
    let now = now.as_ref().and_then(|listener| listener.local_addr().ok());
    if now == Some(wanted) {
        return Ok(Listen::Same);
    }
    TcpListener::bind(wanted).map(Listen::Elsewhere).map_err(|error| {
        Refused::Wrong(format!(
            "prometheus: cannot listen at {wanted} ({error}); choose another address, or off"
        ))
    })
}

/// Makes the masquerade rules and routes that the next generation needs more. What is no longer needed stays until it holds: `routes`
/// removes it then. Masquerade goes first: a flow whose first packet left without it would stay so.
async fn make_way(
    shared: &Shared,
    handle: &rtnl::Handle,
    before: &Generation,
    next: &Generation,
    snapshot: &Snapshot,
) -> Result<(), Refused> {
    let masquerade = |generation: &Generation| generation.plan.masquerade(&generation.settings);
    if let Some(wanted) = masquerade(next)
        && Some(&wanted) != masquerade(before).as_ref()
    {
        shared.masqueraded.store(true, Ordering::Relaxed);
        masquerade::install(&wanted).map_err(|error| Refused::because(&error))?;
    }
    let plan = rtnl::diff(&next.plan.desired(&next.settings), snapshot);
    if !plan.conflicts.is_empty() {
        let conflicts: Vec<_> = plan.conflicts.iter().map(ToString::to_string).collect();
        return Err(Refused::Wrong(conflicts.join("; ")));
    }
    for change in plan.changes.iter().filter(|change| matches!(change, Change::AddRoute { .. })) {
        handle.make(change).await.map_err(|error| Refused::because(&error))?;
    }
    Ok(())
}

async fn put_into_force(shared: &Shared, message: PutIntoForce) -> Result<(), Failed> {
    let start = Instant::now();
    let number = message.next.number;
    loop {
        match shared.directory.sessions.ask(message.clone(), PATIENCE).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(NotChanged::Outdated)) => return Err(Failed::Outdated),
            Ok(Err(NotChanged::Mapping(why))) => return Err(Refused::Wrong(why).into()),
            // It ended after it had done it.
            Err(_) if shared.generation().number == number => return Ok(()),
            Err(Unavailable::Absent | Unavailable::Ended | Unavailable::Full)
                if start.elapsed() < PATIENCE =>
            {
                sleep(ASK_AGAIN).await;
            }
            Err(why) => return Err(Refused::Unavailable(format!("sessions: {why}")).into()),
        }
    }
}
