//! Debian's tayga, with a device and routes made by hand as its manual shows.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Contender, DEVICE, POOL, PREFIX, route, target};
use crate::lab::{Lab, PATIENCE};
use crate::process::{Process, run};
use crate::requirements::program;

pub(super) const NAME: &str = "tayga";
/// tayga's own address, out of the pool as its manual allows.
const ADDRESS: &str = "203.0.113.1";

pub(super) struct Tayga {
    version: String,
    folder: PathBuf,
    file: PathBuf,
}

impl Tayga {
    pub(super) fn prepare() -> Result<Self> {
        let mut query = Command::new("dpkg-query");
        let version = run(query.args(["-W", "-f", "Debian package ${Version}", NAME]), PATIENCE)
            .map_or_else(|_| "of unknown version".to_owned(), |output| output.stdout);
        let folder = target().join("tayga");
        let file = folder.join("tayga.conf");
        fs::create_dir_all(folder.join("data"))
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let tayga = Self { version, folder, file };
        fs::write(&tayga.file, tayga.text()).context("cannot write tayga's configuration")?;
        Ok(tayga)
    }

    /// It has one thread and nothing to tune; without `strict-frag-hdr` it adds the fewest headers.
    fn text(&self) -> String {
        let data = self.folder.join("data");
        format!(
            "tun-device {DEVICE}\nipv4-addr {ADDRESS}\nprefix {PREFIX}\ndynamic-pool {POOL}\ndata-dir {}\n",
            data.display()
        )
    }
}

impl Contender for Tayga {
    fn version(&self) -> &str {
        &self.version
    }

    fn configuration(&self) -> String {
        let lines: Vec<_> =
            self.text().lines().filter(|line| !line.starts_with("data-dir")).map(str::to_owned).collect();
        format!("tayga --nodetach --config FILE, with: {}; data-dir DIRECTORY", lines.join("; "))
    }

    fn start(&self, lab: &Lab) -> Result<Option<Process>> {
        let router = lab.router()?;
        let mut make = router.command(program("tayga"));
        run(make.arg("--mktun").arg("--config").arg(&self.file), PATIENCE)?;
        route(lab)?;
        let mut tayga = router.command(program("tayga"));
        Process::start(tayga.arg("--nodetach").arg("--config").arg(&self.file)).map(Some)
    }
}
