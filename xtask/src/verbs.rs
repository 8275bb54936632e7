//! One function for each verb that is one or two commands.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use xshell::cmd;

use crate::project::{Project, find_program};

const CARGO_DENY: &str = "0.20.2";
const KUBERNETES_VALIDATE: &str = "1.37.0";

/// Where the conformance cases and their generator are.
pub(crate) const CONFORMANCE: &str = "crates/interproto/tests/conformance";

/// What every injected fault says, and nothing else in the binary does.
const FAULT_MARK: &str = "injected fault";

/// The help of the metric of counted allocations, which only test builds have.
const ALLOCATION_MARK: &str = "have allocated, in this test build";

pub(crate) fn fmt(project: &Project) -> Result<()> {
    let sh = &project.shell;
    cmd!(sh, "cargo fmt --all --check").run()?;
    cmd!(sh, "rustfmt --check --edition 2024 xtask/no-std/src/lib.rs").run()?;
    Ok(())
}

pub(crate) fn deny(project: &Project) -> Result<()> {
    let sh = &project.shell;
    let program = cargo_deny(project).context("cargo-deny is missing; install it: cargo xtask setup")?;
    // By itself the program wants to be called as cargo calls it.
    cmd!(sh, "{program} deny --locked check bans licenses sources").run()?;
    Ok(())
}

fn cargo_deny(project: &Project) -> Option<PathBuf> {
    let own = project.tools().join("bin/cargo-deny");
    if own.is_file() { Some(own) } else { find_program("cargo-deny") }
}

pub(crate) fn clippy(project: &Project) -> Result<()> {
    let sh = &project.shell;
    cmd!(sh, "cargo clippy --workspace --all-targets --all-features -- -D warnings").run()?;
    Ok(())
}

pub(crate) fn doc(project: &Project) -> Result<()> {
    let sh = &project.shell;
    cmd!(sh, "cargo doc --workspace --all-features --no-deps").env("RUSTDOCFLAGS", "-D warnings").run()?;
    Ok(())
}

/// A library with a panic handler of its own links only while nothing below it brings the standard library, whose
/// handler would be the second; and only without an allocator while nothing allocates. So the host's target proves it.
pub(crate) fn no_std(project: &Project) -> Result<()> {
    let sh = &project.shell;
    let target = project.target.join("no-std");
    cmd!(sh, "cargo build --manifest-path xtask/no-std/Cargo.toml --target-dir {target}").run()?;
    Ok(())
}

/// The README's one test command. Kernel tests that cannot run say so, or fail with
/// `PROTOMASK_REQUIRE_KERNEL_TESTS=1`.
pub(crate) fn test(project: &Project) -> Result<()> {
    let sh = &project.shell;
    cmd!(sh, "cargo test --workspace").run()?;
    Ok(())
}

pub(crate) fn release_clean(project: &Project) -> Result<()> {
    // All points strike by the second, those of the crates among them.
    for faults in ["src/supervision/faults.rs", "crates/fault-points/src/lib.rs"] {
        ensure!(
            project.shell.read_file(faults)?.contains(FAULT_MARK),
            "{faults} no longer says {FAULT_MARK:?}; tell xtask what to look for instead"
        );
    }
    let registry = "src/actors/metrics/registry.rs";
    ensure!(
        project.shell.read_file(registry)?.contains(ALLOCATION_MARK),
        "{registry} no longer says {ALLOCATION_MARK:?}; tell xtask what to look for instead"
    );
    let binary = release_binary(project)?;
    let bytes = fs::read(&binary).with_context(|| binary.display().to_string())?;
    for (mark, feature) in [(FAULT_MARK, "fault-injection"), (ALLOCATION_MARK, "count-allocations")] {
        ensure!(
            !bytes.windows(mark.len()).any(|window| window == mark.as_bytes()),
            "{} holds {mark:?}: it was built with the feature {feature}",
            binary.display()
        );
    }
    println!("{}: {} KiB, no fault injection, no counted allocations", binary.display(), bytes.len() / 1024);
    Ok(())
}

/// The image's name without another wish.
pub(crate) fn default_tag() -> String {
    format!("localhost/protomask:{}", env!("CARGO_PKG_VERSION"))
}

pub(crate) fn image(project: &Project, tag: &str) -> Result<()> {
    image_with(project, &release_binary(project)?, tag)
}

/// From scratch with the static binary, by `deploy/container/Containerfile`. Equal inputs give equal layers.
pub(crate) fn image_with(project: &Project, binary: &Path, tag: &str) -> Result<()> {
    let sh = &project.shell;
    let context = project.scratch("image")?;
    sh.copy_file(binary, context.join("protomask"))?;
    sh.copy_file("deploy/protomask.toml", context.join("protomask.toml"))?;
    let version = env!("CARGO_PKG_VERSION");
    // Outside a git checkout the image has no revision.
    let revision = cmd!(sh, "git describe --always --dirty --abbrev=40 --exclude=*")
        .quiet()
        .ignore_stderr()
        .read()
        .unwrap_or_default();
    cmd!(
        sh,
        "podman build --quiet --isolation chroot --layers=false --timestamp 0 --file deploy/container/Containerfile"
    )
    .args(["--build-arg", &format!("VERSION={version}"), "--build-arg", &format!("REVISION={revision}")])
    .args(["--tag", tag])
    .arg(&context)
    .run()?;
    Ok(())
}

/// The programs that are no Debian packages, at fixed versions, unless they are there.
pub(crate) fn setup(project: &Project) -> Result<()> {
    let sh = &project.shell;
    let tools = project.tools();
    sh.create_dir(&tools)?;
    if cargo_deny(project).is_none() {
        // Its work takes a second even so, and optimising it would take longer than all else of the setup.
        cmd!(sh, "cargo install --debug --locked --quiet --root {tools} cargo-deny@{CARGO_DENY}").run()?;
    }
    let venv = tools.join("python");
    let pip = venv.join("bin/pip");
    if !pip.is_file() {
        cmd!(sh, "python3 -m venv {venv}").run()?;
    }
    cmd!(sh, "{pip} install --quiet --disable-pip-version-check kubernetes-validate=={KUBERNETES_VALIDATE}")
        .args(["--requirement", &format!("{CONFORMANCE}/requirements.txt")])
        .run()?;
    Ok(())
}

/// The conformance cases must be what their independent generator makes.
pub(crate) fn conformance(project: &Project) -> Result<()> {
    let sh = &project.shell;
    let python = project.tools().join("python/bin/python");
    ensure!(python.is_file(), "the generator's Python is missing; install it: cargo xtask setup");
    cmd!(sh, "{python} -B {CONFORMANCE}/generate.py --check").run()?;
    Ok(())
}

/// Builds the binary as it ships: static, so that it runs in an empty image and on any distribution.
pub(crate) fn release_binary(project: &Project) -> Result<PathBuf> {
    let sh = &project.shell;
    // Naming the target keeps the flag away from build scripts and procedural macros, which cannot be static.
    let target = format!("{ARCH}-unknown-linux-gnu");
    cmd!(sh, "cargo build --release --package protomask --bin protomask --target {target}")
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .run()?;
    Ok(project.target.join(target).join("release/protomask"))
}
