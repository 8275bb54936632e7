//! The original protomask, as its author published it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Contender, DEVICE, POOL, PREFIX, cargo, queues, target};
use crate::lab::{Lab, PATIENCE};
use crate::process::{Process, run};

pub(super) const NAME: &str = "protomask 1.1.0";
const VERSION: &str = "1.1.0";
const BUILD_LIMIT: Duration = Duration::from_mins(20);

pub(super) struct Original {
    program: PathBuf,
    version: String,
}

impl Original {
    /// Installs it below `bench/target`, if it is not there already, with the dependencies that it was published with.
    pub(super) fn prepare() -> Result<Self> {
        let root = target().join("original");
        let program = root.join("bin/protomask");
        if !program.is_file() {
            let mut install = cargo();
            install.args([
                "install",
                "protomask",
                "--version",
                VERSION,
                "--locked",
                "--bin",
                "protomask",
                "--root",
            ]);
            install.arg(&root).env("CARGO_TARGET_DIR", target().join("original-build"));
            run(&mut install, BUILD_LIMIT).context("it cannot be built")?;
        }
        let version = run(Command::new(&program).arg("--version"), PATIENCE)?.stdout.trim().to_owned();
        Ok(Self { program, version: format!("{version} (crates.io)") })
    }

    /// One queue per processor: with its ten by default, its threads are in each other's way.
    fn arguments() -> [String; 8] {
        let queues = queues().to_string();
        ["--pool-prefix", POOL, "--translation-prefix", PREFIX, "-i", DEVICE, "--num-queues", &queues]
            .map(str::to_owned)
    }
}

impl Contender for Original {
    fn version(&self) -> &str {
        &self.version
    }

    fn configuration(&self) -> String {
        format!("protomask {}", Self::arguments().join(" "))
    }

    fn start(&self, lab: &Lab) -> Result<Option<Process>> {
        Process::start(lab.router()?.command(&self.program).args(Self::arguments())).map(Some)
    }
}
