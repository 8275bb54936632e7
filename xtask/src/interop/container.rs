//! The image, built and run by podman with no more rights than the manifests ask for.

use std::path::Path;
use std::process;

use anyhow::{Context, Result, ensure};
use netlab::Topology;
use xshell::{Shell, cmd};

use super::{CONFIG, metrics, traffic};
use crate::project::Project;
use crate::verbs;

pub(super) fn check(project: &Project, binary: &Path) -> Result<()> {
    let sh = &project.shell;
    // The namespace, the image and the container carry this name; nothing else is ever removed.
    let name = format!("protomask-xtask-{}", process::id());
    let image = Image { sh, tag: format!("localhost/{name}") };
    verbs::image_with(project, binary, &image.tag)?;

    let lab = Topology::new()?;
    let published = lab.router.publish(&name)?;
    let config = project.scratch("container")?.join("protomask.toml");
    sh.write_file(&config, CONFIG)?;

    let container = Container { sh, name };
    let outcome = container
        .start(&image.tag, &published.path().to_string_lossy(), &config.to_string_lossy())
        .and_then(|()| traffic::wait_for_ready(&lab, || container.is_running()))
        .and_then(|()| traffic::exercise(&lab))
        .and_then(|()| metrics::check(project, &lab))
        .and_then(|()| container.terminate())
        .and_then(|()| traffic::nothing_left(&lab));
    if outcome.is_err() {
        container.show_log();
    }
    outcome.context("the container")?;
    println!("interop: the image translates, and ends with code 0 on SIGTERM");
    Ok(())
}

/// Removed when dropped.
struct Image<'a> {
    sh: &'a Shell,
    tag: String,
}

impl Drop for Image<'_> {
    fn drop(&mut self) {
        let (sh, tag) = (self.sh, &self.tag);
        // It may never have been built.
        let _ = cmd!(sh, "timeout 60 podman image rm {tag}").quiet().ignore_stdout().ignore_stderr().run();
    }
}

/// Removed, and ended before if need be, when dropped.
struct Container<'a> {
    sh: &'a Shell,
    name: String,
}

impl Container<'_> {
    /// runc, because crun refuses hosts with mixed cgroups. The limits are below what an unprivileged parent may
    /// have; podman's own defaults are not.
    fn start(&self, image: &str, namespace: &str, config: &str) -> Result<()> {
        let (sh, name) = (self.sh, &self.name);
        cmd!(sh, "timeout 60 podman --runtime runc run --detach --name {name} --pull=never --network=ns:{namespace}")
            .args(["--read-only", "--cap-drop=all", "--cap-add=NET_ADMIN,SYS_NICE,BPF", "--device=/dev/net/tun"])
            .args(["--security-opt=no-new-privileges"])
            .args(["--ulimit=nofile=20000:20000", "--ulimit=nproc=4000:4000"])
            .arg(format!("--volume={config}:/etc/protomask/protomask.toml:ro"))
            .arg(image)
            .ignore_stdout()
            .run()?;
        Ok(())
    }

    fn is_running(&self) -> Result<bool> {
        let (sh, name) = (self.sh, &self.name);
        let format = "{{.State.Running}}";
        Ok(cmd!(sh, "timeout 60 podman inspect --format {format} {name}").quiet().read()? == "true")
    }

    fn terminate(&self) -> Result<()> {
        let (sh, name) = (self.sh, &self.name);
        cmd!(sh, "timeout 60 podman kill --signal TERM {name}").ignore_stdout().run()?;
        let code = cmd!(sh, "timeout 60 podman wait {name}").read()?;
        ensure!(code == "0", "exit code {code} after SIGTERM");
        Ok(())
    }

    fn show_log(&self) {
        let (sh, name) = (self.sh, &self.name);
        // There is a more important error to report.
        let _ = cmd!(sh, "timeout 60 podman logs --tail 40 {name}").run();
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let (sh, name) = (self.sh, &self.name);
        // It may never have been made.
        let _ = cmd!(sh, "timeout 60 podman rm --force --time 0 {name}")
            .quiet()
            .ignore_stdout()
            .ignore_stderr()
            .run();
    }
}
