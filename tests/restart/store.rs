//! A service manager's store of descriptors: `FDSTORE=1` one way, `LISTEN_FDS` the other.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use netlab::Topology;
use nix::sys::signal::Signal;
use protomask::handover::descriptors;

use crate::common::{Lab, PATIENCE, Router, SHORT, eventually};
use crate::flows::Paced;
use crate::lab::{Mapping, WAYS, grow_old};

/// As far as systemd does it.
struct Manager {
    socket: UnixDatagram,
    path: String,
    store: BTreeMap<String, OwnedFd>,
    removed: usize,
}

impl Manager {
    fn at(lab: &Lab) -> Self {
        let path = lab.file("notify", "");
        std::fs::remove_file(&path).unwrap();
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Self { socket, path, store: BTreeMap::new(), removed: 0 }
    }

    /// Does what it has been told so far.
    fn catch_up(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok((length, with)) = descriptors::receive(self.socket.as_fd(), &mut buffer) {
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            let name =
                text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default().to_owned();
            if text.starts_with("FDSTORE=1") {
                let [queue] = <[OwnedFd; 1]>::try_from(with).unwrap();
                assert!(self.store.insert(name, queue).is_none(), "it would be kept twice");
            } else if text.starts_with("FDSTOREREMOVE=1") {
                self.removed += usize::from(self.store.remove(&name).is_some());
            }
        }
    }

    /// Starts a router with what it keeps, which is two descriptors or none.
    fn start(&mut self, lab: &Lab, flags: &[&str]) -> Router {
        let queues: Vec<_> =
            self.store.iter().map(|(name, queue)| (name.clone(), queue.try_clone().unwrap())).collect();
        let names: Vec<_> = queues.iter().map(|(name, _)| name.clone()).collect();
        let take = format!(
            "exec 3<&0 4>&1 </dev/null >/dev/null && export LISTEN_FDS=2 LISTEN_FDNAMES={} LISTEN_PID=$$",
            names.join(":")
        );
        let run = format!("mount --bind '{}' /run", lab.run_directory().display());
        let mut command: Command =
            if queues.is_empty() { lab.protomask() } else { lab.command_after(&format!("{run} && {take}")) };
        let mut queues = queues.into_iter().map(|(_, queue)| Stdio::from(queue));
        let stdio = [queues.next(), queues.next()];
        assert!(queues.next().is_none());
        command.env("NOTIFY_SOCKET", &self.path);
        let mut router = Router::spawn_between(command, lab, flags, stdio);
        router.wait_for_log("ready", |_| true);
        router
    }
}

#[test]
fn a_service_manager_keeps_the_queues_over_kill_9_and_over_a_restart() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let mut manager = Manager::at(&lab);
    let flags = [WAYS[0], &["--num-queues", "2"]].concat();
    let mut router = manager.start(&lab, &flags);
    let datagrams = Paced::start(&lab);
    let mapping = Mapping::open(&lab, Topology::CLIENT_V6, 5000);
    for signal in [Signal::SIGKILL, Signal::SIGUSR2] {
        grow_old();
        manager.catch_up();
        assert_eq!(manager.store.keys().collect::<Vec<_>>(), ["queue-nat64-0", "queue-nat64-1"]);
        let ended = router.end_by(signal);
        assert_eq!(ended.code, (signal == Signal::SIGUSR2).then_some(0), "{:?}", ended.log.last());
        router = manager.start(&lab, &flags);
        router.wait_for_log(
            "the device's queues were kept by the service manager: what came meanwhile is read now",
            |record| record.field("queues") == "2" && record.field("dropped_by_device") == "0",
        );
        datagrams.moves();
        assert!(mapping.is_reached());
        assert_eq!(mapping.send(), mapping.seen);
    }
    let (sent, lost) = datagrams.end();
    assert!(lost <= 2 * 64 && lost * 4 < sent, "{lost} of {sent} are lost");

    // Fewer queues than are kept, and a store that is brought in line.
    manager.catch_up();
    router.kill();
    let fewer = [WAYS[0], &["--num-queues", "1"]].concat();
    let router = manager.start(&lab, &fewer);
    // The second queue is open still, there, and gets nothing.
    assert_eq!(manager.store.len(), 2);
    for port in 5100..5110 {
        assert!(Mapping::open(&lab, Topology::CLIENT_V6, port).is_reached());
    }
    eventually("the second queue is kept no longer", PATIENCE, || {
        manager.catch_up();
        (manager.store.len() == 1).then_some(())
    });
    assert!(mapping.is_reached());
    assert_eq!(router.metrics().sum("protomask_workers", &[]), 1);
    // Whose device goes needs none.
    router.end();
    std::thread::park_timeout(SHORT);
    manager.catch_up();
    assert!(manager.store.is_empty());
    assert_eq!(lab.marks(), [""; 0]);
}

#[test]
fn descriptors_of_something_else_are_closed_with_a_word_and_the_router_starts_as_ever() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let mut manager = Manager::at(&lab);
    let other = UnixDatagram::unbound().unwrap();
    manager.store.insert("queue-nat64-0".to_owned(), other.try_clone().unwrap().into());
    manager.store.insert("web".to_owned(), other.into());
    let mut router = manager.start(&lab, WAYS[0]);
    let useless = router.wait_for_log("a queue that was kept is of no use and is closed", |_| true);
    assert_eq!(useless.field("because"), "it is no queue of a TUN device");
    let foreign =
        router.wait_for_log("a descriptor that was kept is not one of this router and is closed", |_| true);
    assert_eq!(foreign.field("name"), "web");
    assert!(Mapping::open(&lab, Topology::CLIENT_V6, 5000).is_reached());
    router.end();
}
