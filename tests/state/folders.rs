//! Folders that are in use, that cannot be used, and whose files are damaged.

use std::os::unix::fs::PermissionsExt as _;

use netlab::Topology;

use crate::common::{Lab, Router};
use crate::lab::{Mapping, WAYS};

#[test]
fn a_second_router_on_the_same_folder_is_refused_with_the_number_of_the_first() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (first, second) = (Lab::new(), Lab::new());
    let folder = first.file("folder", "");
    std::fs::remove_file(&folder).unwrap();
    let flags = [WAYS[0], &["--state-dir", &folder]].concat();
    let router = Router::start(&first, &flags);
    let refused = second.run_to_end(&[&flags[..], &["--prometheus", "off"]].concat());
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let pid = format!("is in use by process {}", router.process().pid());
    assert!(refused.stderr.contains(&pid) && refused.stderr.contains("--state-dir"), "{}", refused.stderr);
    assert_eq!(second.marks(), [""; 0], "nothing of it is left");
    // Another interface has a folder of its own, and this one is free when its router has gone.
    let other = Router::start(&second, &[&flags[..], &["--interface", "other"]].concat());
    other.end();
    router.kill();
    Router::start(&second, &flags).end();
}

#[test]
fn a_folder_that_cannot_be_written_is_done_without_and_readiness_and_metrics_say_so() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let file = lab.file("a-file", "");
    let mut router = Router::start(&lab, &[WAYS[0], &["--state-dir", &file]].concat());
    let record = router.wait_for_log(
        "runs without state: a restart ends all sessions; give it another folder with \
        --state-dir, or say --no-state",
        |_| true,
    );
    assert!(record.field("because").contains("Not a directory"), "{record:?}");
    let ready = router.get("/readyz").unwrap();
    assert_eq!(ready.status, 200);
    assert!(
        ready.text().starts_with("ready\nnote: runs without state: ") && ready.text().contains("a-file"),
        "{}",
        ready.text()
    );
    assert_eq!(router.metrics().sum("protomask_state_kept", &[]), 0);
    let mapping = Mapping::open(&lab, Topology::CLIENT_V6, 5000);
    assert!(mapping.is_reached(), "it routes like any other");
    router.end();
}

#[test]
fn damaged_files_are_set_aside_and_the_router_starts_without_them() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = Router::start(&lab, WAYS[0]);
    let mapping = Mapping::open(&lab, Topology::CLIENT_V6, 5000);
    router.end();
    let folder = lab.lib_directory().join("protomask/nat64");
    assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let snapshot = folder.join("snapshot");
    assert_eq!(snapshot.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut bytes = std::fs::read(&snapshot).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&snapshot, &bytes).unwrap();

    let mut router = Router::start(&lab, WAYS[0]);
    let record = router.wait_for_log(
        "the state that was found cannot be trusted and is not used: sessions begin anew",
        |_| true,
    );
    assert!(record.field("because").contains("snapshot"), "{record:?}");
    mapping.is_impatient();
    assert!(!mapping.is_reached());
    let metrics = router.metrics();
    assert_eq!(
        (metrics.sum("protomask_state_set_aside", &[]), metrics.sum("protomask_state_kept", &[])),
        (1, 1)
    );
    assert_eq!(std::fs::read(folder.join("set-aside/snapshot")).unwrap(), bytes, "for a person to look at");
    // What begins now is kept as ever.
    let mapping = Mapping::open(&lab, Topology::CLIENT_V6, 5001);
    router.end();
    let router = Router::start(&lab, WAYS[0]);
    assert!(mapping.is_reached());
    assert_eq!(router.metrics().sum("protomask_state_set_aside", &[]), 0);
    router.end();
}
