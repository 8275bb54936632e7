//! The one list of Debian packages that the verbs and the tests need.

use anyhow::{Result, bail};

use crate::project::find_program;

/// A Debian package and a program by which its presence is seen.
struct Package {
    name: &'static str,
    program: &'static str,
}

const PACKAGES: [Package; 11] = [
    // The compiler's linker, and the static C library for the binary in the container image.
    Package { name: "gcc", program: "cc" },
    Package { name: "libc6-dev", program: "/usr/include/features.h" },
    // Kernel tests look at the kernel's state with somebody else's eyes.
    Package { name: "iproute2", program: "ip" },
    Package { name: "nftables", program: "nft" },
    // The validator of manifests comes from PyPI, into an environment of its own; python3 itself comes along.
    Package { name: "python3-venv", program: "/usr/lib/python3.11/ensurepip/__init__.py" },
    // interop: the unit file; the image (crun refuses hosts with mixed cgroups, runc does not); metrics; manifests.
    Package { name: "systemd", program: "systemd-analyze" },
    Package { name: "strace", program: "strace" },
    Package { name: "podman", program: "podman" },
    Package { name: "runc", program: "runc" },
    Package { name: "prometheus", program: "promtool" },
    // Translated packets, dissected; mergecap comes along.
    Package { name: "tshark", program: "tshark" },
];

/// Prints their names, one a line.
pub(crate) fn print() {
    for package in PACKAGES {
        println!("{}", package.name);
    }
}

/// Fails with the names of those that are missing.
pub(crate) fn require() -> Result<()> {
    let missing: Vec<_> = PACKAGES
        .iter()
        .filter(|package| find_program(package.program).is_none())
        .map(|package| package.name)
        .collect();
    if !missing.is_empty() {
        bail!("missing Debian packages: {0}\ninstall them: apt-get install {0}", missing.join(" "));
    }
    Ok(())
}
