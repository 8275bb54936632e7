//! Every fault, and where it strikes.

use std::time::Duration;

use fast_nat::faults::Point as Nat;
use protomask::faults::Point as Changed;
use protomask::supervision::Concern;
use protomask::supervision::faults::{Inject, Point};

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// None: what is counted without one.
    None,
    /// A handler of this concern.
    Handler(Concern, Inject),
    /// A point of this concern's actors, or of the packet workers.
    At(Concern, Point),
    /// The thread that keeps the state.
    State(Point),
    /// In the midst of a change of a table.
    Nat(Nat),
    /// In the midst of a change of other data that is shared.
    Changed(Changed),
    /// A call of the kernel for the device is refused.
    Tun(easy_tun::faults::Point),
    /// Reading the device is refused until a worker gives up.
    Reads,
    /// A call of the kernel for links and routes is refused.
    Net(rtnl::faults::Point),
}

/// What has the fault strike, beside the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The traffic does.
    Traffic,
    /// The concern is told to stop, and starts anew.
    Restart(Concern),
    /// A snapshot of the state is written.
    Snapshot,
    /// Something changes in the kernel.
    Event,
    /// The link is set down.
    LinkDown,
    /// The pool's route is gone.
    RouteGone,
    /// Metrics are scraped.
    Scrape,
    /// A port is forwarded: one of a block that a host has.
    AddForward,
    /// A port is forwarded no longer.
    RemoveForward,
}

/// A drill.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drill {
    pub(crate) fault: Fault,
    pub(crate) cause: Cause,
}

const fn drill(fault: Fault, cause: Cause) -> Drill {
    Drill { fault, cause }
}

/// Late, and not so late that it counts as hung.
pub(crate) const LATE: Duration = Duration::from_millis(500);
/// So late that it counts as hung: it comes back when it has been replaced for long.
pub(crate) const TOO_LATE: Duration = Duration::from_millis(1800);

/// The faults of every concern's actor.
fn of_actors() -> Vec<Drill> {
    let mut drills = Vec::new();
    for concern in Concern::ALL {
        for inject in [Inject::Panic, Inject::Stop, Inject::Late(LATE), Inject::Late(TOO_LATE)] {
            drills.push(drill(Fault::Handler(concern, inject), Cause::Traffic));
        }
        for point in Point::ALL.iter().filter(|point| point.is_of_actors()) {
            drills.push(drill(Fault::At(concern, *point), Cause::Restart(concern)));
        }
    }
    drills
}

/// What is drilled where hosts share addresses.
pub(crate) fn shared() -> Vec<Drill> {
    use rtnl::faults::Point as Net;
    let nat = |point, cause| drill(Fault::Nat(point), cause);
    let traffic = [
        Nat::HostBegin,
        Nat::HostEnd,
        Nat::BlockGive,
        Nat::BlockTakeBack,
        Nat::BlockPoolTake,
        Nat::IdleBegin,
        Nat::IdleEnd,
        Nat::PortTake,
        Nat::PortRelease,
        Nat::PortPromote,
        Nat::BindingBegin,
        Nat::BindingEnd,
        Nat::SessionBegin,
        Nat::SessionVisit,
        Nat::SessionEnd,
    ];
    let state = [Point::StateWrite, Point::StateSync, Point::StateSnapshot, Point::StateWritten];
    let mut drills = of_actors();
    drills.extend(traffic.map(|point| nat(point, Cause::Traffic)));
    drills.extend(state.map(|point| drill(Fault::State(point), Cause::Traffic)));
    drills.extend([
        drill(Fault::State(Point::StateRename), Cause::Snapshot),
        nat(Nat::PortReserve, Cause::AddForward),
        nat(Nat::StaticBegin, Cause::AddForward),
        nat(Nat::StaticEnd, Cause::RemoveForward),
        drill(Fault::Changed(Changed::GenerationPlaced), Cause::AddForward),
        drill(Fault::Changed(Changed::GenerationHalf), Cause::AddForward),
        drill(Fault::Changed(Changed::Unplaced), Cause::RemoveForward),
        drill(Fault::Changed(Changed::FragmentOpen), Cause::Traffic),
        drill(Fault::Changed(Changed::FragmentEnd), Cause::Traffic),
        drill(Fault::Changed(Changed::Given), Cause::Traffic),
        drill(Fault::At(Concern::Tun, Point::Worker), Cause::Traffic),
        drill(Fault::Tun(easy_tun::faults::Point::Read), Cause::Traffic),
        drill(Fault::Reads, Cause::Traffic),
        drill(Fault::Tun(easy_tun::faults::Point::Write), Cause::Traffic),
        drill(Fault::Net(Net::Open), Cause::Restart(Concern::Routes)),
        drill(Fault::Net(Net::Watch), Cause::Restart(Concern::Routes)),
        drill(Fault::Net(Net::Event), Cause::Event),
        drill(Fault::Net(Net::Snapshot), Cause::Event),
        drill(Fault::Net(Net::LinkStats), Cause::Scrape),
        drill(Fault::Net(Net::AddRoute), Cause::RouteGone),
    ]);
    drills
}

/// What is drilled where each host has an address of its own.
pub(crate) fn exclusive() -> Vec<Drill> {
    let traffic =
        [Nat::LeaseBegin, Nat::LeaseArm, Nat::LeaseEnd, Nat::LeaseExpire, Nat::PoolUse, Nat::PoolFree];
    let mut drills: Vec<_> = traffic.map(|point| drill(Fault::Nat(point), Cause::Traffic)).into();
    drills.push(drill(Fault::Changed(Changed::Given), Cause::Traffic));
    drills.push(drill(Fault::At(Concern::Tun, Point::Worker), Cause::Traffic));
    for concern in Concern::ALL {
        drills.push(drill(Fault::Handler(concern, Inject::Panic), Cause::Traffic));
    }
    drills
}

/// What is drilled by itself: the thread never comes back, so the router that it is done to bears no second one; or the link is down
/// meanwhile, and nothing can be forwarded.
pub(crate) fn alone() -> Vec<Drill> {
    vec![
        drill(Fault::At(Concern::Tun, Point::WorkerHang), Cause::Traffic),
        drill(Fault::Net(rtnl::faults::Point::ChangeLink), Cause::LinkDown),
    ]
}

/// What no traffic of these drills comes by: it is drilled in the crate itself, without a kernel (`tests/faults.rs` of `fast-nat`,
/// `tests/faults.rs` of `rtnl` and of `easy-tun`).
pub(crate) const ELSEWHERE: (&[Nat], &[easy_tun::faults::Point], &[rtnl::faults::Point]) = {
    use easy_tun::faults::Point as Tun;
    use rtnl::faults::Point as Net;
    (
        &[
            Nat::SubscriberBegin,
            Nat::BlockRetire,
            Nat::PortPutBack,
            Nat::SessionAdvance,
            Nat::SessionMove,
            Nat::PermitBegin,
            Nat::PermitEnd,
            Nat::RestoreSession,
            Nat::RestoreResting,
            Nat::SynKeep,
            Nat::SynTake,
            Nat::SynOverdue,
        ],
        &[
            Tun::Open,
            Tun::Attach,
            Tun::Persist,
            Tun::SetHeader,
            Tun::SetOffload,
            Tun::SetSendBuffer,
            Tun::LoadSteering,
            Tun::SetSteering,
            Tun::Wait,
            Tun::Full,
        ],
        &[Net::AddAddress, Net::RemoveAddress, Net::RemoveRoute, Net::RemoveLink],
    )
};
