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

/// `promtool` reads the older text format only, in which a counter's family is named like its samples. (The server
/// reads `OpenMetrics`.)
fn as_prometheus_text(open_metrics: &str) -> String {
    let counters: Vec<_> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind), Some(name), Some(rest)) if counters.contains(&name) => {
                text.extend(["# ", kind, " ", name, "_total ", rest]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
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
    fn only_the_names_of_counter_families_change() {
        let scrape = "# HELP a_b Lost: by cause.\n# TYPE a_b counter\na_b_total{c=\"d\"} 1\n# TYPE e gauge\ne 2\n# EOF\n";
        let text = "# HELP a_b_total Lost: by cause.\n# TYPE a_b_total counter\na_b_total{c=\"d\"} 1\n# TYPE e gauge\ne 2\n# EOF\n";
        assert_eq!(as_prometheus_text(scrape), text);
    }
}
