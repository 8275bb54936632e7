//! One comparison of what is with what should be, and the repair.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::Mutex;
use slog::{Logger, info, warn};

use super::quarrel::Quarrels;
use crate::error::chain;
use crate::kernel::preflight::{self, Intent};
use crate::kernel::sysctl::Sysctls;
use crate::kernel::{firewall, masquerade};
use crate::shared::{KernelView, Shared};
use crate::supervision::Birth;

/// Compares, repairs what is ours, and writes down what was seen. An incarnation that was held up meanwhile and replaced
/// changes nothing more. The answer is whether the kernel's state could be read.
pub(super) async fn reconcile(
    handle: &rtnl::Handle,
    shared: &Shared,
    birth: &Birth,
    quarrels: &Mutex<Quarrels>,
    log: &Logger,
) -> bool {
    let before = shared.kernel.lock().clone();
    let number = shared.generation().number;
    let mut view = KernelView { problems: Vec::new(), ..before.clone() };
    let looked = look(handle, shared, birth, quarrels, log, &mut view).await;
    let could_read = looked.is_ok();
    match looked {
        Ok(()) => view.seen = Some(number),
        Err(error) => view.problems.push(format!("the kernel's state cannot be read: {}", chain(&error))),
    }
    if !birth.is_current() {
        return true;
    }
    for problem in view.problems.iter().filter(|problem| !before.problems.contains(problem)) {
        warn!(log, "not as it should be"; "problem" => problem);
    }
    for problem in before.problems.iter().filter(|problem| !view.problems.contains(problem)) {
        info!(log, "as it should be again"; "was" => problem);
    }
    if before.seen.is_some() && view.forwarding.is_on() && !before.forwarding.is_on() {
        info!(log, "the kernel forwards now");
    }
    *shared.kernel.lock() = view;
    could_read
}

async fn look(
    handle: &rtnl::Handle,
    shared: &Shared,
    birth: &Birth,
    quarrels: &Mutex<Quarrels>,
    log: &Logger,
    view: &mut KernelView,
) -> Result<(), rtnl::Error> {
    // Before link and routes: a flow whose first packet left without it would stay so, since conntrack remembers.
    if let Err(why) = keep_masquerade(shared, quarrels, log) {
        view.problems.push(why);
    }
    let generation = shared.generation();
    let (pools, settings) = (&generation.plan, &generation.settings);
    let desired = pools.desired(settings);
    let mut snapshot = handle.snapshot().await?;
    let plan = rtnl::diff(&desired, &snapshot);
    for change in &plan.changes {
        // Other settings want other things, and a comparison that knows them follows.
        if !birth.is_current() || shared.generation().number != generation.number {
            return Ok(());
        }
        let what = change.to_string();
        if let Err(why) = quarrels.lock().may_repair(&what, Instant::now()) {
            view.problems.push(why);
            continue;
        }
        match handle.make(change).await {
            Ok(()) => {
                // What follows the settings is no repair.
                let repair = view.seen == Some(generation.number);
                if repair {
                    quarrels.lock().repaired(what, Instant::now());
                }
                info!(log, "changed in the kernel"; "change" => %change, "interface" => &desired.link.name,
                    "repair" => repair);
                shared.kernel_repairs.fetch_add(repair.into(), Ordering::Relaxed);
            }
            Err(error) => view.problems.push(why_not(&error, &desired.link.name)),
        }
    }
    view.problems.extend(plan.conflicts.iter().map(ToString::to_string));
    if !plan.changes.is_empty() {
        snapshot = handle.snapshot().await?;
    }
    if !birth.is_current() {
        return Ok(());
    }
    view.link_up = snapshot.link_by_name(&desired.link.name).is_some_and(|link| link.up);
    if plan.conflicts.is_empty() {
        // What would have kept the router from starting keeps it from being ready.
        let (nets, prefixes) = (pools.claimed(settings), settings.prefix_nets());
        let intent = Intent { interface: &settings.interface, pools: &nets, prefixes: &prefixes };
        view.problems.extend(preflight::check(&intent, &snapshot).iter().map(ToString::to_string));
    }
    look_at_firewall(shared, log, view);

    let sysctls = Sysctls::default();
    match sysctls.forwarding() {
        Ok(forwarding) => {
            view.forwarding = forwarding;
            view.forwarding_commands = sysctls.commands_to_enable(&snapshot).unwrap_or_default();
        }
        Err(error) => view.problems.push(chain(&error)),
    }
    let rules = pools.rules(settings, &snapshot);
    // Where the settings have changed meanwhile, a comparison comes that will know them.
    if rules != **shared.rules.load() && shared.follow_host(&generation, rules) {
        info!(log, "this host's addresses or links changed; the rules follow them";
            "allowed" => describe_allowed(pools.allowed(settings, &snapshot).as_deref()));
    }
    Ok(())
}

/// Why a change of ours could not be made, and what to do about it where that is known.
fn why_not(error: &rtnl::Error, interface: &str) -> String {
    let mut text = format!("{interface}: {}", chain(error));
    if error.errno() == Some(libc::EACCES) {
        let _ =
            write!(text, "; if IPv6 is turned off there: sysctl -w net.ipv6.conf.{interface}.disable_ipv6=0");
    }
    text
}

/// Puts the masquerade table back if it is not as it should be. `Err`: why it is not put back.
pub(super) fn keep_masquerade(
    shared: &Shared,
    quarrels: &Mutex<Quarrels>,
    log: &Logger,
) -> Result<(), String> {
    let generation = shared.generation();
    let Some(wanted) = generation.plan.masquerade(&generation.settings) else {
        // One of an earlier generation. What an earlier run has left was removed at the start.
        let had_one = shared.masqueraded.load(Ordering::Relaxed);
        if had_one && masquerade::remove(&shared.interface).map_err(|error| chain(&error))? {
            info!(log, "changed in the kernel"; "change" => "remove the nftables table: nothing is to be masqueraded",
                "interface" => &shared.interface);
        }
        shared.masqueraded.store(false, Ordering::Relaxed);
        return Ok(());
    };
    shared.masqueraded.store(true, Ordering::Relaxed);
    if masquerade::is_installed(&wanted).map_err(|error| chain(&error))? {
        return Ok(());
    }
    let change = format!("install the nftables table ip {}", masquerade::table_name(&wanted.interface));
    quarrels.lock().may_repair(&change, Instant::now())?;
    masquerade::install(&wanted).map_err(|error| chain(&error))?;
    let repair = shared.kernel.lock().seen == Some(generation.number);
    if repair {
        quarrels.lock().repaired(change.clone(), Instant::now());
    }
    info!(log, "changed in the kernel"; "change" => change, "interface" => wanted.interface, "repair" => repair);
    if repair {
        shared.kernel_repairs.fetch_add(1, Ordering::Relaxed);
        warn!(log, "flows that began while the masquerade table was gone may have to be started again");
    }
    Ok(())
}

/// Names the firewall rules of others that may drop what is forwarded, when they appear. That is no reason not to be
/// ready: an earlier rule, which is not looked into, may accept it.
fn look_at_firewall(shared: &Shared, log: &Logger, view: &mut KernelView) {
    let Ok(findings) = firewall::findings(&shared.interface) else { return };
    let findings: Vec<_> = findings.iter().map(ToString::to_string).collect();
    for finding in findings.iter().filter(|finding| !view.firewall.contains(finding)) {
        warn!(log, "forwarded packets may be dropped by a firewall"; "finding" => finding);
    }
    view.firewall = findings;
}

/// Who may use the router, for the log.
pub(crate) fn describe_allowed(allowed: Option<&[ipnet::Ipv6Net]>) -> String {
    allowed.map_or_else(
        || "every source".to_owned(),
        |nets| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    )
}
