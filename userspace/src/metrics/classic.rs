//! The older text format of Prometheus, for tools that do not read OpenMetrics.
//!
//! Source: "Exposition formats", text format 0.0.4, against OpenMetrics 1.0: there a counter's family has no `_total`,
//! units are declared, and the text ends with a mark.
#![forbid(unsafe_code)]

use std::collections::HashSet;

/// Content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether a client wants it: its Accept header names plain text and not OpenMetrics. Prometheus names both; curl neither.
#[must_use]
pub fn is_wanted(accept: &str) -> bool {
    accept.contains("text/plain") && !accept.contains("application/openmetrics-text")
}

/// The same metrics in the older format.
#[must_use]
pub fn from_open_metrics(text: &str) -> String {
    let is_counter = |line: &str| Some(line.strip_prefix("# TYPE ")?.strip_suffix(" counter")?.to_owned());
    let counters: HashSet<String> = text.lines().filter_map(is_counter).collect();
    let mut classic = String::with_capacity(text.len() + 8 * counters.len());
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match [words.next(), words.next(), words.next(), words.next()] {
            [Some("#"), Some("UNIT" | "EOF"), ..] => continue,
            [Some("#"), Some(key), Some(family), Some(rest)] if counters.contains(family) => {
                classic.extend(["# ", key, " ", family, "_total ", rest]);
            }
            _ => classic.push_str(line),
        }
        classic.push('\n');
    }
    classic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_get_their_suffix_and_only_they() {
        let open = "# HELP a Packets of b.\n# TYPE a counter\na_total{x=\"# UNIT\"} 1\n# HELP a_seconds Time.\n\
                    # TYPE a_seconds gauge\n# UNIT a_seconds seconds\na_seconds 2.5\n# EOF\n";
        let classic = "# HELP a_total Packets of b.\n# TYPE a_total counter\na_total{x=\"# UNIT\"} 1\n\
                       # HELP a_seconds Time.\n# TYPE a_seconds gauge\na_seconds 2.5\n";
        assert_eq!(from_open_metrics(open), classic);
    }

    #[test]
    fn who_reads_open_metrics_gets_it() {
        assert!(is_wanted("text/plain;version=0.0.4;q=0.9,*/*;q=0.1"));
        assert!(!is_wanted("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"));
        assert!(!is_wanted("*/*") && !is_wanted(""));
    }
}
