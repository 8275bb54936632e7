//! The older text format of Prometheus (0.0.4), for scrapers that do not speak `OpenMetrics`, `promtool` among them.
//!
//! The figures are the same; there, help and type name the series (`..._total`) instead of the metric, there is no type
//! "info", and neither units nor an end mark.

use std::fmt::Write as _;

/// The same text in the older format.
pub(super) fn from_open_metrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = "";
    for line in text.lines() {
        // Writing to a string cannot fail.
        let _ = if let Some(rest) = line.strip_prefix("# HELP ") {
            // Written with the type, which comes next and decides the name.
            help = rest.split_once(' ').map_or("", |(_, help)| help);
            Ok(())
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            writeln!(out, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}")
        } else if line.starts_with('#') {
            Ok(())
        } else {
            writeln!(out, "{line}")
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_and_type_name_the_series_and_what_the_old_format_does_not_know_is_gone() {
        let new = "# HELP a_bytes All the bytes.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n\
                   a_bytes_total{x=\"# TYPE y z\"} 1\n\
                   # HELP b What is.\n# TYPE b gauge\nb 2\n\
                   # HELP c Who.\n# TYPE c info\nc_info{version=\"1\"} 1\n# EOF\n";
        let old = "# HELP a_bytes_total All the bytes.\n# TYPE a_bytes_total counter\n\
                   a_bytes_total{x=\"# TYPE y z\"} 1\n\
                   # HELP b What is.\n# TYPE b gauge\nb 2\n\
                   # HELP c_info Who.\n# TYPE c_info gauge\nc_info{version=\"1\"} 1\n";
        assert_eq!(from_open_metrics(new), old);
    }
}
