//! The metrics endpoint, read by Prometheus.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netlab::{Topology, http_get};
use xshell::cmd;

use super::traffic::METRICS;
use super::wait_until;
use crate::project::Project;

/// A Prometheus server beside the router scrapes it once a second and must find it up; `promtool` must find nothing
/// to criticise in the names and types.
pub(super) fn check(project: &Project, lab: &Topology) -> Result<()> {
    let sh = &project.shell;
    let scrape = http_get(&lab.router, METRICS, "/metrics", Duration::from_secs(5))?;
    ensure!(scrape.status == 200, "/metrics: {}", scrape.status);
    cmd!(sh, "promtool check metrics").stdin(&scrape.body).run()?;

    let directory = project.scratch("prometheus")?;
    let config = directory.join("prometheus.yml");
    sh.write_file(
        &config,
        format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: protomask, static_configs: [{{targets: ['{METRICS}']}}]}}]\n"
        ),
    )?;
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, 9090));
    let log = std::fs::File::create(directory.join("log"))?;
    let child = lab
        .router
        .command("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
        .arg(format!("--web.listen-address={own}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("starting prometheus")?;
    let _server = Ended(child);
    let mut last = String::new();
    let up = wait_until(|| {
        if let Ok(answer) = http_get(&lab.router, own, "/api/v1/query?query=up", Duration::from_secs(2)) {
            last = answer.text();
        }
        Ok(last.contains(r#","1"]"#))
    })?;
    ensure!(up, "Prometheus cannot read the metrics; it last said: {last}; see {}", directory.display());
    println!("interop: Prometheus reads the metrics");
    Ok(())
}

/// A process that ends with this value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
