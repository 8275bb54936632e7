//! One drill after the other, and what they have done.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::Ipv6Net;
use protomask::actors::tun::MOST_FAILED_READS;
use protomask::supervision::faults::{Inject, Point};
use protomask::supervision::{Concern, Exit, State, Unavailable};
use rtnl::{Change, Handle};

use crate::lab::{self, Lab, PATIENCE, eventually, pause};
use crate::load::{Happened, Load};
use crate::table::{Cause, Drill, Fault, LATE, TOO_LATE};

/// Packets that a worker has in hand at most: its batch.
const BATCH: usize = 64;

/// What came of a drill.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) fault: String,
    /// The concern that was struck, as its generation says; `-`: none.
    pub(crate) concern: &'static str,
    pub(crate) happened: Happened,
    pub(crate) recovery: Duration,
}

impl Fault {
    fn name(self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Handler(_, Inject::Late(time)) if time == LATE => "late answer".to_owned(),
            Self::Handler(_, Inject::Late(_)) => "hang".to_owned(),
            Self::Handler(_, inject) => format!("{inject:?} in a handler"),
            Self::At(_, point) | Self::State(point) => format!("{point:?}"),
            Self::Nat(point) => format!("nat {point:?}"),
            Self::Changed(point) => format!("{point:?}"),
            Self::Tun(point) => format!("device {point:?}"),
            Self::Reads => "device Read, many".to_owned(),
            Self::Net(point) => format!("netlink {point:?}"),
        }
    }

    fn arm(self, lab: &Lab, times: u32) {
        match self {
            Self::None | Self::Handler(..) => {}
            Self::At(concern, point) => lab.faults(concern).arm(point, times),
            Self::State(point) => lab.shared.state.faults.arm(point, times),
            Self::Nat(point) => fast_nat::faults::arm(point, times),
            Self::Changed(point) => protomask::faults::arm(point, times),
            Self::Tun(point) => easy_tun::faults::arm(point, times),
            // However two workers share them, one gets as many in a row as end it, and what is left ends no successor.
            Self::Reads => easy_tun::faults::arm(easy_tun::faults::Point::Read, 2 * MOST_FAILED_READS - 1),
            Self::Net(point) => rtnl::faults::arm(point, times),
        }
    }

    fn struck(self, lab: &Lab) -> u32 {
        match self {
            Self::None | Self::Handler(..) => 0,
            Self::At(concern, point) => lab.faults(concern).struck(point),
            Self::State(point) => lab.shared.state.faults.struck(point),
            Self::Nat(point) => fast_nat::faults::struck(point),
            Self::Changed(point) => protomask::faults::struck(point),
            Self::Tun(point) => easy_tun::faults::struck(point),
            Self::Reads => easy_tun::faults::struck(easy_tun::faults::Point::Read),
            Self::Net(point) => rtnl::faults::struck(point),
        }
    }
}

/// Hangs that have been noticed.
fn hung(lab: &Lab) -> u64 {
    let kind = Exit::Hung(String::new()).kind();
    Concern::ALL.iter().map(|concern| lab.status(*concern).exits[kind]).sum()
}

impl Fault {
    fn hangs(self) -> bool {
        match self {
            Self::Handler(_, inject) => inject_late(inject) == Some(TOO_LATE),
            Self::At(_, point) => point == Point::WorkerHang,
            _ => false,
        }
    }

    /// Whether a concern has another incarnation afterwards.
    fn ends_somebody(self) -> bool {
        use easy_tun::faults::Point as Tun;
        use rtnl::faults::Point as Net;
        match self {
            Self::None | Self::State(_) | Self::Tun(Tun::Read | Tun::Write) => false,
            Self::Handler(_, inject) => inject_late(inject) != Some(LATE),
            Self::At(..) | Self::Nat(_) | Self::Changed(_) | Self::Tun(_) | Self::Reads => true,
            Self::Net(point) => matches!(point, Net::Open | Net::Watch | Net::Event),
        }
    }
}

fn generations(lab: &Lab) -> Vec<u64> {
    Concern::ALL.map(|concern| lab.status(concern).generation).into()
}

/// Asks by the control socket, whose actor may be what fails.
pub(crate) fn control(lab: &Lab, request: &str) -> Option<serde_json::Value> {
    let path = &lab.shared.control_socket.as_ref()?.path;
    let mut stream = UnixStream::connect(path).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    writeln!(stream, "{request}").ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

/// The forward that drills add and remove: of a port in a block that a host has, and does not use.
fn forward(lab: &Lab) -> (String, String) {
    let blocks = lab.shared.tables.nat.blocks();
    let block = blocks.filter(|block| block.first_port >= 1024).max_by_key(|block| block.given).unwrap();
    let at = format!(
        "\"protocol\": \"tcp\", \"address\": \"{}\", \"port\": {}",
        block.address,
        block.first_port + 9
    );
    // Nobody else has this host.
    (
        format!("{{\"command\": \"add-forward\", {at}, \"host\": \"2001:db8:77::1\", \"host_port\": 4711}}"),
        format!("{{\"command\": \"remove-forward\", {at}}}"),
    )
}

/// What a drill does to the kernel's state it undoes.
struct Undone<'l>(&'l Lab, Cause, Option<String>);

impl Cause {
    fn before(self, lab: &Lab) -> Undone<'_> {
        let mut remove = None;
        if self == Self::RemoveForward {
            let (add, then) = forward(lab);
            let answer = control(lab, &add);
            assert!(answer.as_ref().is_some_and(|answer| answer.get("ok").is_some()), "{add}: {answer:?}");
            remove = Some(then);
        }
        Undone(lab, self, remove)
    }
}

impl Undone<'_> {
    fn bring_about(&mut self) {
        let lab = self.0;
        match self.1 {
            Cause::Traffic => {}
            Cause::Snapshot => lab.shared.state.faults.arm(Point::StateSnapshot, 1),
            Cause::Restart(concern) => {
                let _ = lab.inject(concern, Inject::Stop, PATIENCE);
            }
            Cause::Event => {
                lab.topology.router.add_address("client0", net()).unwrap();
            }
            Cause::LinkDown => lab.topology.router.down(&lab.shared.interface).unwrap(),
            Cause::RouteGone => {
                let destination = "203.0.113.64/26".parse().unwrap();
                let removal = Change::RemoveRoute { link: lab.shared.device_index, destination };
                lab.topology.router.block_on(async { Handle::open().unwrap().make(&removal).await.unwrap() });
            }
            Cause::Scrape => {
                let _ = lab.answers_http(PATIENCE);
            }
            Cause::AddForward => {
                let (add, remove) = forward(lab);
                let _ = control(lab, &add);
                self.2 = Some(remove);
            }
            Cause::RemoveForward => {
                let _ = control(lab, self.2.as_ref().unwrap());
            }
        }
    }

    /// Whether what was wanted is there now.
    fn set_right(&self) {
        let lab = self.0;
        match self.1 {
            Cause::Event => {
                let _ = lab.topology.router.run(|| {
                    std::process::Command::new("ip")
                        .args(["-6", "address", "del", &net().to_string(), "dev", "client0"])
                        .status()
                });
            }
            Cause::AddForward | Cause::RemoveForward => {
                // Whatever came of the change: it can be taken back, made, and taken back again.
                let remove = self.2.as_ref().unwrap();
                eventually("settings can be changed again", || {
                    control(lab, remove)?;
                    let again = remove.replace("remove-forward", "add-forward");
                    let host = ", \"host\": \"2001:db8:77::1\", \"host_port\": 4711}";
                    let added = control(lab, &again.replace('}', host))?;
                    added.get("ok")?;
                    control(lab, remove)?.get("ok").map(drop)
                });
            }
            _ => {}
        }
    }
}

fn net() -> Ipv6Net {
    "2001:db8:99::1/64".parse().unwrap()
}

/// Runs one drill, and says what came of it.
pub(crate) fn run(lab: &Lab, load: &mut Load, drill: Drill) -> Row {
    let Drill { fault, cause } = drill;
    let mut undone = cause.before(lab);
    let (before, struck, hung_before) = (generations(lab), fault.struck(lab), hung(lab));
    let stretch = load.begin();
    let injected = Instant::now();
    let mut start = injected;
    let mut zombie = Duration::ZERO;
    fault.arm(lab, 1);
    match fault {
        Fault::None => pause(Duration::from_secs(1)),
        Fault::Handler(concern, inject) => {
            let is_late = inject_late(inject);
            if is_late == Some(TOO_LATE) {
                // A message that nobody waits for any more is not handled.
                let shared = Arc::clone(&lab.shared);
                std::thread::spawn(move || lab::inject(&shared, concern, inject, PATIENCE));
            } else {
                let answer = lab.inject(concern, inject, PATIENCE);
                assert!(is_late.is_none() || answer == Ok(()), "{fault:?}: {answer:?}");
            }
            zombie = is_late.unwrap_or_default();
        }
        _ => {
            undone.bring_about();
            eventually(&format!("{fault:?} is met"), || (fault.struck(lab) > struck).then_some(()));
            // What brings it about takes its time; traffic comes by when it does.
            if cause == Cause::Traffic {
                start = Instant::now();
            }
        }
    }
    if fault.hangs() {
        // Nothing can be done about it before it is known.
        eventually(&format!("{fault:?} is noticed"), || (hung(lab) > hung_before).then_some(()));
        start = Instant::now();
    }
    if fault.ends_somebody() {
        // It takes its time to be known.
        eventually(&format!("somebody is another one after {fault:?}"), || {
            (generations(lab) != before).then_some(())
        });
    }
    if matches!(fault, Fault::At(_, Point::WorkerHang)) {
        load.goes_on_since(start);
    } else {
        recovered(lab, &fault);
    }
    let mut recovery = start.elapsed();
    load.goes_on();
    if zombie > Duration::ZERO {
        // What comes back late touches nothing, and is forgiven.
        pause((zombie + Duration::from_millis(200)).saturating_sub(injected.elapsed()));
    }
    recovered(lab, &fault);
    undone.set_right();
    let after = generations(lab);
    let changed: Vec<_> =
        Concern::ALL.into_iter().zip(before.iter().zip(&after)).filter(|(_, (a, b))| a != b).collect();
    let happened = load.end(stretch);
    let is_struck = |concern: Concern| changed.iter().any(|(other, _)| *other == concern);
    let concern = changed.first().map_or("-", |(concern, _)| concern.as_str());
    let name = fault.name();
    assert!(changed.len() <= 1, "{name}: more than one concern was struck: {changed:?}");
    if is_struck(Concern::Tun) && !fault.hangs() {
        recovery = happened.gap;
    }
    let row = Row { fault: name, concern, happened, recovery };
    // At most the batch in hand is lost with a worker, and what a refused write had in hand.
    let may_lose = match fault {
        Fault::Tun(easy_tun::faults::Point::Write) => 1,
        // Nothing is forwarded while the link is down.
        Fault::Net(rtnl::faults::Point::ChangeLink) => usize::MAX,
        _ if is_struck(Concern::Tun) => BATCH,
        _ => 0,
    };
    let Happened { lost, reordered, twice, sessions_lost, .. } = happened;
    assert!(lost <= may_lose, "{row:?}");
    assert_eq!((twice, sessions_lost), (0, 0), "{row:?}");
    assert!(is_struck(Concern::Tun) || may_lose > 0 || reordered == 0, "{row:?}");
    row
}

const fn inject_late(inject: Inject) -> Option<Duration> {
    if let Inject::Late(time) = inject { Some(time) } else { None }
}

/// Everybody runs and answers, and nothing keeps the router from being ready.
fn recovered(lab: &Lab, fault: &Fault) {
    eventually(&format!("the router has recovered from {fault:?}"), || {
        let runs = |concern: Concern| lab.status(concern).state == State::Running;
        let is_well = Concern::ALL.into_iter().all(runs)
            && lab.shared.problems().is_empty()
            && !lab.shared.state.is_failing();
        is_well.then_some(())
    });
    for concern in Concern::ALL {
        let answers = || lab.inject(concern, Inject::Nothing, PATIENCE).ok();
        eventually(&format!("{concern} answers after {fault:?}"), answers);
    }
}

/// Nothing is left half done: asked when nobody uses the tables.
pub(crate) fn audit(lab: &Lab) {
    // What was sent last is through, and no timer of the engine is at work.
    for concern in [Concern::Sessions, Concern::Pool, Concern::Tun] {
        lab.faults(concern).arm(Point::Build, u32::MAX);
        let _ = lab.inject(concern, Inject::Stop, PATIENCE);
        eventually(&format!("{concern} is down"), || {
            (lab.inject(concern, Inject::Nothing, PATIENCE) == Err(Unavailable::Absent)).then_some(())
        });
    }
    // A worker that was dismissed ends its turn.
    pause(Duration::from_millis(200));
    let tables = &lab.shared.tables;
    let wrong: Vec<_> = tables.nat.audit(|_, _, _| true).into_iter().chain(tables.leases.audit()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    for concern in [Concern::Tun, Concern::Pool, Concern::Sessions] {
        lab.release(concern);
    }
}

/// The rows as a table; of several runs of one drill the worst counts and the median time.
pub(crate) fn table(title: &str, rows: &[Row]) -> String {
    let mut text = format!(
        "\n{title}\n{:<24} {:<9} {:>4} {:>7} {:>5} {:>9} {:>8} {:>11} {:>12}\n",
        "fault", "struck", "runs", "packets", "lost", "reordered", "sessions", "opened", "recovery"
    );
    let mut done: Vec<(String, &str)> = Vec::new();
    for row in rows {
        let key = (row.fault.clone(), row.concern);
        if done.contains(&key) {
            continue;
        }
        let same: Vec<&Row> =
            rows.iter().filter(|other| other.fault == row.fault && other.concern == row.concern).collect();
        done.push(key);
        let most = |of: fn(&Happened) -> usize| same.iter().map(|row| of(&row.happened)).max().unwrap_or(0);
        let mut times: Vec<_> = same.iter().map(|row| row.recovery).collect();
        times.sort_unstable();
        let median = times[times.len() / 2].as_secs_f64() * 1000.0;
        let _ = writeln!(
            text,
            "{:<24} {:<9} {:>4} {:>7} {:>5} {:>9} {:>8} {:>11} {:>9.1} ms",
            row.fault,
            row.concern,
            same.len(),
            most(|h| h.sent),
            most(|h| h.lost),
            most(|h| h.reordered),
            most(|h| h.sessions_lost),
            most(|h| h.opened),
            median
        );
    }
    text
}

/// Points that can strike in any concern's actor, and all others, are drilled or named as drilled elsewhere.
pub(crate) fn points_of(drills: &[Drill]) -> Vec<Fault> {
    drills.iter().map(|drill| drill.fault).collect()
}

/// Whether a point of a concern is among these.
pub(crate) fn has_point(faults: &[Fault], point: Point) -> bool {
    faults.iter().any(|fault| match fault {
        Fault::At(_, other) | Fault::State(other) => *other == point,
        _ => false,
    })
}
