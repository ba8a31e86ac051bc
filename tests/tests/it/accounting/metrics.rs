//! The handler's metrics, and the sums that must hold among them.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

/// Every series of one scrape, by its name and labels as written.
pub struct Metrics {
    series: BTreeMap<String, u64>,
    text: String,
}

impl Metrics {
    pub fn parse(text: String) -> Self {
        let lines = text.lines().filter(|line| line.starts_with("feedhandler_"));
        let series = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            // Times and latencies have fractions, and are not added up.
            Some((name.strip_prefix("feedhandler_")?.to_owned(), value.parse().ok()?))
        });
        Self { series: series.collect(), text }
    }

    /// As scraped.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is not zero, of what is added up here.
    pub fn shown(&self) -> String {
        let parts = ["xdp_", "port_", "line_", "drops_"];
        let is_shown = |(name, value): &(&String, &u64)| **value > 0 && parts.iter().any(|part| name.starts_with(part));
        self.series.iter().filter(is_shown).map(|(name, value)| format!("{name} {value}\n")).collect()
    }

    /// The sum over all series of a metric that have these labels.
    pub fn sum(&self, metric: &str, labels: &[(&str, &str)]) -> u64 {
        let has_all = |name: &str| {
            name.split_once('{').is_some_and(|(name, written)| {
                name == metric && labels.iter().all(|(label, value)| written.contains(&format!("{label}=\"{value}\"")))
            })
        };
        assert!(self.series.keys().any(|name| name.starts_with(metric)), "no metric {metric}");
        self.series.iter().filter(|(name, _)| has_all(name)).map(|(_, value)| value).sum()
    }

    /// Frames that receive ports got, or that the kernel dropped on the way to them.
    pub fn received_or_dropped(&self, labels: &[(&str, &str)]) -> u64 {
        let labels = [labels, &[("direction", "rx")]].concat();
        let metrics = ["port_frames_total", "port_kernel_rx_dropped_total", "port_kernel_rx_ring_full_total"];
        metrics.map(|metric| self.sum(metric, &labels)).iter().sum()
    }

    /// Whether each frame that a port got is a line's, or was dropped for a reason.
    pub fn is_taken_by_lines(&self) -> bool {
        let frames = self.sum("port_frames_total", &[("direction", "rx")]);
        let before_lines = self.sum("drops_total", &[("scope", "worker")]);
        let switched_off = self.sum("drops_total", &[("scope", "line"), ("reason", "not_subscribed")]);
        frames == self.sum("line_packets_total", &[]) + before_lines + switched_off
    }

    /// Drops of a line by reason, those that occurred.
    pub fn drops(&self, line: &str) -> BTreeMap<String, u64> {
        let of_line = format!("drops_total{{scope=\"line\",name=\"{line}\",reason=\"");
        let reasons = self.series.iter().filter_map(|(name, count)| {
            let reason = name.strip_prefix(&of_line)?.split('"').next()?;
            (*count > 0).then(|| (reason.to_owned(), *count))
        });
        reasons.collect()
    }
}
