//! The bare loop: this program in the router's namespace, as a process of its own.

use std::env::current_exe;

use anyhow::{Context as _, Result, bail};

use super::{Contender, DEVICE, queues, route};
use crate::bare_loop;
use crate::lab::{Lab, PATIENCE};
use crate::process::Process;

pub(super) struct Bare;

impl Contender for Bare {
    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    fn configuration(&self) -> String {
        format!("{} queues; {}", queues(), bare_loop::SETTINGS)
    }

    fn start(&self, lab: &Lab) -> Result<Option<Process>> {
        let program = current_exe().context("where this program is")?;
        let mut command = lab.router()?.command(program);
        command.args([bare_loop::COMMAND, DEVICE, &queues().to_string()]);
        Process::start(&mut command).map(Some)
    }

    fn wait_until_ready(&self, lab: &Lab, process: &Process) -> Result<()> {
        if !process.wait_for(PATIENCE, |output| output.stdout.contains(bare_loop::READY)) {
            bail!("it made no device: {}", process.output().last_line());
        }
        route(lab)
    }
}
