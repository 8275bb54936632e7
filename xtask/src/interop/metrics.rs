//! The metrics endpoint, read by Prometheus.

use std::collections::HashMap;
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
    cmd!(sh, "promtool check metrics").stdin(as_prometheus_text(&scrape.text())).run()?;

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

/// `promtool` reads the older text format only, in which counters and infos are named like their samples, and an info is
/// a gauge. (The server reads `OpenMetrics`.)
fn as_prometheus_text(open_metrics: &str) -> String {
    let types: HashMap<_, _> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .filter_map(|(name, kind)| match kind {
            "counter" => Some((name, ("_total", "counter"))),
            "info" => Some((name, ("_info", "gauge"))),
            _ => None,
        })
        .collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", kind, name, rest] if types.contains_key(name) => {
                let (suffix, old_type) = types[name];
                let rest = if kind == "TYPE" { old_type } else { rest };
                text.extend(["# ", kind, " ", name, suffix, " ", rest, "\n"]);
            }
            _ => text.extend([line, "\n"]),
        }
    }
    text
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

#[cfg(test)]
mod tests {
    use super::as_prometheus_text;

    #[test]
    fn only_the_families_of_counters_and_infos_change() {
        for (open_metrics, text) in [
            ("# HELP a_b Lost: by cause.", "# HELP a_b_total Lost: by cause."),
            ("# TYPE a_b counter", "# TYPE a_b_total counter"),
            ("a_b_total{c=\"d\"} 1", "a_b_total{c=\"d\"} 1"),
            ("# HELP build Version.", "# HELP build_info Version."),
            ("# TYPE build info", "# TYPE build_info gauge"),
            ("# TYPE e gauge", "# TYPE e gauge"),
            ("# EOF", "# EOF"),
        ] {
            let scrape = format!("# TYPE a_b counter\n# TYPE build info\n{open_metrics}\n");
            let last = as_prometheus_text(&scrape);
            assert_eq!(last.lines().last(), Some(text));
        }
    }
}
