//! What has to be there before anything is measured.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// A Debian package and a program by which its presence is seen.
struct Package {
    name: &'static str,
    program: &'static str,
}

const PACKAGES: [Package; 3] = [
    Package { name: "tayga", program: "tayga" },
    Package { name: "iperf3", program: "iperf3" },
    Package { name: "iproute2", program: "ip" },
];

/// Fails with all that is missing.
pub(crate) fn check() -> Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!("the benchmark makes network namespaces, which only root may: run it as root");
    }
    OpenOptions::new().read(true).write(true).open("/dev/net/tun").context("/dev/net/tun is needed")?;
    let missing: Vec<_> = PACKAGES
        .iter()
        .filter(|package| find(package.program).is_none())
        .map(|package| package.name)
        .collect();
    if !missing.is_empty() {
        bail!("missing Debian packages: {0}\ninstall them: apt-get install {0}", missing.join(" "));
    }
    Ok(())
}

/// Where a program is: root's programs are looked for even if the caller's PATH leaves them out.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    places.map(|place| place.join(program)).find(|file| file.is_file())
}

/// [`find`], for programs that [`check`] has seen.
pub(crate) fn program(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| Path::new(name).to_owned())
}
