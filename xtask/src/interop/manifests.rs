//! The configurations by the daemon itself, the Kubernetes manifests by the schemas of several releases.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use xshell::cmd;

use crate::project::Project;

/// The oldest and the newest release that the validator knows, and one between.
const RELEASES: [&str; 3] = ["1.25", "1.31", "1.37"];

pub(super) fn check(project: &Project, binary: &Path) -> Result<()> {
    let sh = &project.shell;
    let example = "deploy/protomask.toml";
    for config in [example, "deploy/kubernetes/protomask.toml"] {
        cmd!(sh, "{binary} check-config {config}")
            .ignore_stdout()
            .run()
            .with_context(|| config.to_owned())?;
    }
    // What the example shows in comments must be right as well: `#key = value`, not `# a sentence`.
    let everything = project.scratch("config")?.join("everything.toml");
    sh.write_file(&everything, sh.read_file(example)?.replace("\n#", "\n").replace("\n ", "\n# "))?;
    cmd!(sh, "{binary} check-config {everything}")
        .ignore_stdout()
        .run()
        .context("the commented-out lines")?;

    let validate = project.tools().join("python/bin/kubernetes-validate");
    ensure!(validate.is_file(), "kubernetes-validate is missing; install it: cargo xtask setup");
    let list = sh.read_file("deploy/kubernetes/kustomization.yaml")?;
    let mut manifests = Vec::new();
    for path in sh.read_dir("deploy/kubernetes")? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == "yaml") && name != "kustomization.yaml" {
            ensure!(list.contains(&format!("  - {name}\n")), "kustomization.yaml does not list {name}");
            manifests.push(path);
        }
    }
    let manifests = &manifests;
    for release in RELEASES {
        cmd!(sh, "{validate} --strict --quiet -k {release} {manifests...}").run()?;
    }
    println!("interop: configurations and manifests are valid");
    Ok(())
}
