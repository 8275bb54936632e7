//! Forwarding: is it on, how is it turned on, and turning it on and back on request.
//!
//! Two traps make this more than two writes. Turning IPv6 forwarding on makes the kernel forget default routes that came
//! by router advertisement at once, unless `accept_ra` is 2 on that interface. And both switches rewrite the
//! `forwarding` switch of every interface, so turning them off again would also turn off what somebody had turned on for
//! one interface. Whatever is about to be lost is written to a record file first; the next start or `protomask cleanup`
//! restores from it after an unclean end.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use rtnl::Snapshot;
use serde::{Deserialize, Serialize};

/// Where record files lie.
pub const RECORD_DIR: &str = "/run/protomask";

/// Bound of a record file's length in bytes: some ten thousand interfaces.
const MAX_RECORD: u64 = 4 << 20;

const RECORD_SUFFIX: &str = ".sysctl.json";

/// What can go wrong with sysctls.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SysctlError {
    /// A value could not be read.
    #[error("cannot read the sysctl {key}")]
    Read {
        /// Which.
        key: Key,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A value could not be written; in a container `/proc/sys` is often read-only.
    #[error("cannot set the sysctl {key} to {value}; where /proc/sys is read-only, set it outside: `{}`", .key.command(.value))]
    Write {
        /// Which.
        key: Key,
        /// The new value.
        value: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The record of the old values could not be written or removed. Nothing is changed without one.
    #[error("cannot write the record of the old sysctls {}", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The record of the old values cannot be read.
    #[error("cannot read the record of the old sysctls {}; look into it, restore by hand and remove it", .path.display())]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The name of a sysctl as path below `/proc/sys`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(String);

impl Key {
    fn new(parts: &[&str]) -> Self {
        Self(parts.join("/"))
    }

    fn ipv4_forward() -> Self {
        Self::new(&["net", "ipv4", "ip_forward"])
    }

    fn ipv6_forwarding() -> Self {
        Self::interface("ipv6", "all", "forwarding")
    }

    fn interface(family: &str, interface: &str, name: &str) -> Self {
        Self::new(&["net", family, "conf", interface, name])
    }

    /// The command that sets it.
    pub fn command(&self, value: &str) -> String {
        format!("sysctl -w {self}={value}")
    }

    /// Whether it names something that this module would have changed.
    ///
    /// A record file is input: a wrong one must not lead out of `/proc/sys/net`, or to another switch.
    fn is_known(&self) -> bool {
        match self.0.split('/').collect::<Vec<_>>().as_slice() {
            ["net", "ipv4", "ip_forward"] => true,
            ["net", "ipv4", "conf", interface, "forwarding" | "accept_redirects"]
            | ["net", "ipv6", "conf", interface, "forwarding" | "accept_ra"] => {
                !interface.is_empty() && *interface != "." && *interface != ".."
            }
            _ => false,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // sysctl(8) takes either separator; an interface name with a dot needs the slash.
        if self.0.contains('.') { f.write_str(&self.0) } else { f.write_str(&self.0.replace('/', ".")) }
    }
}

/// Whether this host forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forwarding {
    /// `net.ipv4.ip_forward`.
    pub ipv4: bool,
    /// `net.ipv6.conf.all.forwarding`; `false` also where the kernel has no IPv6.
    pub ipv6: bool,
}

impl Forwarding {
    /// Reads both for the network namespace of the calling thread.
    pub fn read() -> Result<Self, SysctlError> {
        Sysctls::default().forwarding()
    }

    /// Whether both are on.
    pub fn is_on(self) -> bool {
        self.ipv4 && self.ipv6
    }
}

/// One value that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Which.
    pub key: Key,
    /// What it was.
    pub old: String,
    /// What it is now.
    pub new: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.old, self.new)
    }
}

/// What was changed, and what would be lost by changing it back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// In the order in which they were made; restored in reverse.
    pub changed: Vec<Change>,
    /// Values that the kernel rewrites when the changes are made or undone; written again after the restore.
    kept: Vec<Kept>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    key: Key,
    value: String,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restored {
    /// Restored, in this order.
    pub changed: Vec<Change>,
    /// Left alone, since somebody else has set another value meanwhile: what was recorded, as (key, value found).
    pub left: Vec<(Key, String)>,
}

/// The sysctls of one `/proc/sys`, and the directory of the records.
#[derive(Debug, Clone)]
pub struct Sysctls {
    proc_sys: PathBuf,
    records: PathBuf,
}

impl Default for Sysctls {
    /// `/proc/sys`, which shows each thread the values of its own network namespace, and below [`RECORD_DIR`] a directory
    /// for that namespace: what one has recorded must not be restored in another that shares `/run`.
    fn default() -> Self {
        let records = PathBuf::from(RECORD_DIR);
        match fs::metadata("/proc/thread-self/ns/net") {
            Ok(namespace) => Self::at("/proc/sys", records.join(format!("netns-{}", namespace.ino()))),
            Err(_) => Self::at("/proc/sys", records),
        }
    }
}

impl Sysctls {
    /// Other places, for tests and for routers in namespaces that share `/run`.
    pub fn at(proc_sys: impl Into<PathBuf>, records: impl Into<PathBuf>) -> Self {
        Self { proc_sys: proc_sys.into(), records: records.into() }
    }

    /// Reads whether this host forwards.
    pub fn forwarding(&self) -> Result<Forwarding, SysctlError> {
        let ipv6 = match self.read_if_there(&Key::ipv6_forwarding())? {
            Some(value) => value != "0",
            None => false,
        };
        Ok(Forwarding { ipv4: self.read(&Key::ipv4_forward())? != "0", ipv6 })
    }

    /// The exact commands that turn forwarding on without losing a default route; none where it is on already.
    pub fn commands_to_enable(&self, snapshot: &Snapshot) -> Result<Vec<String>, SysctlError> {
        Ok(self.steps_to_enable(snapshot)?.iter().map(|(key, value)| key.command(value)).collect())
    }

    /// Turns forwarding on, and keeps routes learnt by router advertisement before.
    ///
    /// The old values are recorded under the interface's name first; where a record of an unclean end is there already,
    /// it is kept and added to, so that the values of before that are restored in the end. When a write fails, what was
    /// written is undone. Returns all that this router has changed, earlier runs included.
    pub fn enable(&self, interface: &str, snapshot: &Snapshot) -> Result<Changes, SysctlError> {
        let steps = self.steps_to_enable(snapshot)?;
        let mut changes = self.recorded(interface)?.unwrap_or_default();
        // What another router has turned on is ours to turn off as well: the last one of them does it.
        for other in self.others(interface)? {
            for change in other.changed {
                if !changes.changed.iter().any(|known| known.key == change.key)
                    && self.read_if_there(&change.key)?.as_ref() == Some(&change.new)
                {
                    changes.changed.push(change);
                }
            }
            for kept in other.kept {
                if !changes.kept.iter().any(|known| known.key == kept.key) {
                    changes.kept.push(kept);
                }
            }
        }
        if steps.is_empty() && changes.changed.is_empty() {
            return Ok(changes);
        }
        for (key, value) in &steps {
            let old = self.read(key)?;
            // Somebody turned off what an earlier run had turned on: the value from before that run still counts.
            if !changes.changed.iter().any(|change| change.key == *key) {
                changes.changed.push(Change { key: key.clone(), old, new: value.clone() });
            }
        }
        self.keep_side_effects(&steps, snapshot, &mut changes)?;
        self.write_record(interface, &changes)?;
        for (key, value) in &steps {
            if let Err(error) = self.write(key, value) {
                // The first error is the one to report; what cannot be undone stays in the record.
                let _ = self.restore(interface);
                return Err(error);
            }
        }
        Ok(changes)
    }

    /// Restores what the record of this interface says, in reverse order, and removes the record. What the record of another
    /// router says as well stays until that one ends. Idempotent: without a record there is nothing to do.
    pub fn restore(&self, interface: &str) -> Result<Restored, SysctlError> {
        let Some(changes) = self.recorded(interface)? else { return Ok(Restored::default()) };
        let others = self.others(interface)?;
        let is_still_needed =
            |key: &Key| others.iter().any(|other| other.changed.iter().any(|change| change.key == *key));
        let mut restored = Restored::default();
        for change in changes.changed.iter().rev().filter(|change| !is_still_needed(&change.key)) {
            match self.read_if_there(&change.key)? {
                Some(found) if found == change.new => {
                    self.write(&change.key, &change.old)?;
                    restored.changed.push(Change {
                        key: change.key.clone(),
                        old: change.new.clone(),
                        new: change.old.clone(),
                    });
                }
                Some(found) if found == change.old => {}
                Some(found) => restored.left.push((change.key.clone(), found)),
                // Its interface is gone.
                None => {}
            }
        }
        for kept in changes.kept.iter().filter(|_| others.is_empty()) {
            if self.read_if_there(&kept.key)?.is_some_and(|found| found != kept.value) {
                self.write(&kept.key, &kept.value)?;
            }
        }
        let path = self.record_path(interface);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(SysctlError::Record { path, source })
            }
            _ => {
                // Goes with the last record in it; otherwise it stays.
                let _ = fs::remove_dir(&self.records);
                Ok(restored)
            }
        }
    }

    /// The records of other routers in this network namespace.
    fn others(&self, interface: &str) -> Result<Vec<Changes>, SysctlError> {
        let mut others = Vec::new();
        for other in self.records()?.iter().filter(|other| *other != interface) {
            others.extend(self.recorded(other)?);
        }
        Ok(others)
    }

    /// The interfaces for which there is a record, sorted.
    pub fn records(&self) -> Result<Vec<String>, SysctlError> {
        let failed = |source| SysctlError::BadRecord { path: self.records.clone(), source };
        let entries = match fs::read_dir(&self.records) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut interfaces = BTreeSet::new();
        for entry in entries {
            if let Ok(name) = entry.map_err(failed)?.file_name().into_string()
                && let Some(interface) = name.strip_suffix(RECORD_SUFFIX)
            {
                interfaces.insert(interface.to_owned());
            }
        }
        Ok(interfaces.into_iter().collect())
    }

    /// What has been changed for this interface and not been restored yet.
    pub fn recorded(&self, interface: &str) -> Result<Option<Changes>, SysctlError> {
        let path = self.record_path(interface);
        let bad = |source| SysctlError::BadRecord { path: path.clone(), source };
        let length = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(bad)?.len(),
        };
        if length > MAX_RECORD {
            return Err(bad(io::Error::other(format!("{length} bytes are more than {MAX_RECORD}"))));
        }
        let text = fs::read_to_string(&path).map_err(bad)?;
        let changes: Changes = serde_json::from_str(&text).map_err(|error| bad(error.into()))?;
        let keys =
            changes.changed.iter().map(|change| &change.key).chain(changes.kept.iter().map(|kept| &kept.key));
        for key in keys {
            if !key.is_known() {
                return Err(bad(io::Error::other(format!("{key} is none that this router changes"))));
            }
        }
        Ok(Some(changes))
    }

    fn steps_to_enable(&self, snapshot: &Snapshot) -> Result<Vec<(Key, String)>, SysctlError> {
        let forwarding = self.forwarding()?;
        let mut steps = Vec::new();
        if !forwarding.ipv6 {
            for interface in interfaces_with_advertised_routes(snapshot) {
                let key = Key::interface("ipv6", &interface, "accept_ra");
                // 0 means that a program handles advertisements itself; its routes survive, and with 2 the kernel would
                // meddle. 2 is what is wanted.
                if self.read_if_there(&key)?.as_deref() == Some("1") {
                    steps.push((key, "2".to_owned()));
                }
            }
            // Without the file the kernel has no IPv6, and writing it says so best.
            steps.push((Key::ipv6_forwarding(), "1".to_owned()));
        }
        if !forwarding.ipv4 {
            steps.push((Key::ipv4_forward(), "1".to_owned()));
        }
        Ok(steps)
    }

    /// Notes what the kernel rewrites by itself along with the steps.
    fn keep_side_effects(
        &self,
        steps: &[(Key, String)],
        snapshot: &Snapshot,
        changes: &mut Changes,
    ) -> Result<(), SysctlError> {
        let names = || ["default"].into_iter().chain(snapshot.links.iter().map(|link| link.name.as_str()));
        let mut candidates = Vec::new();
        if steps.iter().any(|(key, _)| *key == Key::ipv4_forward()) {
            candidates.extend(names().map(|name| Key::interface("ipv4", name, "forwarding")));
            candidates.push(Key::interface("ipv4", "all", "accept_redirects"));
        }
        if steps.iter().any(|(key, _)| *key == Key::ipv6_forwarding()) {
            candidates.extend(names().map(|name| Key::interface("ipv6", name, "forwarding")));
        }
        for key in candidates {
            if changes.kept.iter().any(|kept| kept.key == key) {
                continue;
            }
            // Turning the main switch off sets 0 everywhere, so a 0 needs no keeping; accept_redirects is set too.
            if let Some(value) = self.read_if_there(&key)?
                && (value != "0" || key.0.ends_with("accept_redirects"))
            {
                changes.kept.push(Kept { key, value });
            }
        }
        Ok(())
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.proc_sys.join(&key.0)
    }

    fn read(&self, key: &Key) -> Result<String, SysctlError> {
        match fs::read_to_string(self.path(key)) {
            Ok(value) => Ok(value.trim().to_owned()),
            Err(source) => Err(SysctlError::Read { key: key.clone(), source }),
        }
    }

    fn read_if_there(&self, key: &Key) -> Result<Option<String>, SysctlError> {
        match self.read(key) {
            Err(SysctlError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    fn write(&self, key: &Key, value: &str) -> Result<(), SysctlError> {
        // No O_CREAT: a file that is not there is an error, not a new file.
        fs::OpenOptions::new()
            .write(true)
            .open(self.path(key))
            .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
            .map_err(|source| SysctlError::Write { key: key.clone(), value: value.to_owned(), source })
    }

    fn record_path(&self, interface: &str) -> PathBuf {
        self.records.join(format!("{interface}{RECORD_SUFFIX}"))
    }

    fn write_record(&self, interface: &str, changes: &Changes) -> Result<(), SysctlError> {
        let path = self.record_path(interface);
        write_atomically(&self.records, &path, changes).map_err(|source| SysctlError::Record { path, source })
    }
}

/// A reader sees the old file or the new one, never half of one.
fn write_atomically(directory: &Path, path: &Path, changes: &Changes) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&temporary, serde_json::to_vec_pretty(changes)?)?;
    fs::rename(&temporary, path).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// Names of the interfaces through which an IPv6 route learnt by router advertisement leads, sorted.
fn interfaces_with_advertised_routes(snapshot: &Snapshot) -> Vec<String> {
    let links: BTreeSet<u32> = snapshot
        .routes
        .iter()
        .filter(|route| route.protocol == rtnl::protocol::RA && matches!(route.destination, IpNet::V6(_)))
        .flat_map(|route| route.next_hops.iter().filter_map(|hop| hop.link))
        .collect();
    let mut names: Vec<String> = links
        .into_iter()
        .filter_map(|index| snapshot.link_by_index(index))
        .map(|link| link.name.clone())
        .collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests;
