//! The page.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::chart::{self, CURVES, Frame};
use super::figures::StageFigures;
use super::{Report, date, duration};
use crate::latency::Stage;

/// Head of the table.
pub(super) const COLUMNS: [&str; 9] = ["stage", "values", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"];

/// Classes of the stages' colours, in the order of [`Stage::ALL`].
const CLASSES: [&str; 4] = ["s0", "s1", "s2", "s3"];

const WIDE: Frame = Frame { width: 1110.0, height: 380.0 };
const NARROW: Frame = Frame { width: 540.0, height: 290.0 };

/// What a stage is, for people.
const fn words(stage: Stage) -> (&'static str, &'static str) {
    match stage {
        Stage::EntryToWorker => {
            ("Entry to worker", "from the kernel's first sight of a packet to the worker's look at it")
        }
        Stage::WorkerToDecoded => ("Worker to decoded", "arbitration, decoding and building the output packets"),
        Stage::DecodedToSent => ("Decoded to sent", "from built packets to the transmit ring, the kernel told"),
        Stage::EntryToSent => ("Entry to sent", "the whole way through the handler"),
    }
}

/// The cells of a stage's row in the table.
pub(super) fn row(stage: &StageFigures) -> [String; COLUMNS.len()] {
    let total = &stage.total;
    let time = |ns: f64| if total.is_empty() { "–".to_owned() } else { duration(ns) };
    let quantile = |quantile: f64| time(total.value_at_quantile(quantile) as f64);
    [
        stage.stage.label().to_owned(),
        grouped(total.len()),
        time(total.mean()),
        quantile(0.5),
        quantile(0.9),
        quantile(0.99),
        quantile(0.999),
        quantile(0.9999),
        time(total.max() as f64),
    ]
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What stands in a log is whoever's: nothing of it may become a part of the page but its text.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The whole page. It loads nothing and runs nothing, and says so to the browser.
pub(super) fn html(report: &Report) -> String {
    let of = |name: &str| {
        let values: Vec<&str> =
            report.facts.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect();
        escape(&values.join(", "))
    };
    let instance = of("instance");
    let title = if instance.is_empty() { "Latency".to_owned() } else { format!("Latency of {instance}") };
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{}</style>\n</head>\n<body>\n<main>\n",
        include_str!("page.css")
    );
    let (from_ns, to_ns) = report.span_ns;
    let length = hours(to_ns.saturating_sub(from_ns));
    let _ = writeln!(page, "<header><h1>{title}</h1><p>{} to {} · {length}</p></header>", date(from_ns), date(to_ns));
    facts(report, &mut page);
    table(report, &mut page);
    overview(report, &mut page);
    for (stage, class) in report.stages.iter().zip(CLASSES).filter(|(stage, _)| !stage.total.is_empty()) {
        details(report, stage, class, &mut page);
    }
    complaints(report, &mut page);
    let _ = writeln!(
        page,
        "<footer>Times are of CLOCK_MONOTONIC, over all workers; values have three digits. A datagram that was held behind a \
         gap counts with its wait. Made by feedhandler {}.</footer>\n</main>\n</body>\n</html>",
        crate::metrics::version()
    );
    page
}

fn facts(report: &Report, page: &mut String) {
    if report.facts.is_empty() {
        return;
    }
    page.push_str("<section><h2>Handler</h2><dl>");
    let mut told: Vec<&str> = Vec::new();
    for (name, _) in &report.facts {
        if told.contains(&name.as_str()) {
            continue;
        }
        told.push(name);
        let values: Vec<String> =
            report.facts.iter().filter(|(known, _)| known == name).map(|(_, value)| escape(value)).collect();
        let _ = write!(page, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), values.join("<br>"));
    }
    page.push_str("</dl></section>\n");
}

fn table(report: &Report, page: &mut String) {
    page.push_str("<section><h2>Summary</h2><div class=\"table\"><table><thead><tr>");
    for name in COLUMNS {
        let _ = write!(page, "<th scope=\"col\">{name}</th>");
    }
    page.push_str("</tr></thead><tbody>\n");
    for (stage, class) in report.stages.iter().zip(CLASSES) {
        let [name, cells @ ..] = row(stage);
        let _ = write!(page, "<tr id=\"{name}\"><th scope=\"row\"><i class=\"{class}\"></i>{name}</th>");
        for cell in cells {
            let _ = write!(page, "<td>{cell}</td>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div></section>\n");
}

/// All stages in one chart.
fn overview(report: &Report, page: &mut String) {
    let curves: Vec<_> = report.stages.iter().zip(CLASSES).map(|(stage, class)| (class, &stage.total)).collect();
    if report.stages.iter().all(|stage| stage.total.is_empty()) {
        page.push_str("<section><h2>Percentiles</h2><p>Nothing was received.</p></section>\n");
        return;
    }
    page.push_str("<section><h2>Percentiles</h2><p>So many of all values are not longer.</p><div class=\"key\">");
    for (stage, class) in report.stages.iter().zip(CLASSES).filter(|(stage, _)| !stage.total.is_empty()) {
        let _ = write!(page, "<span><i class=\"{class}\"></i>{}</span>", words(stage.stage).0);
    }
    let svg = chart::percentiles(&curves, WIDE, "Latency by percentile, all stages");
    let _ = writeln!(page, "</div><div class=\"charts\">{svg}</div></section>");
}

/// A stage's curve, and its course.
fn details(report: &Report, stage: &StageFigures, class: &str, page: &mut String) {
    let (name, meaning) = words(stage.stage);
    let _ =
        write!(page, "<section><h2><span class=\"{class}\">●</span> {name}</h2><p>{meaning}</p><div class=\"charts\">");
    let svg = chart::percentiles(&[(class, &stage.total)], NARROW, &format!("{name}: latency by percentile"));
    let _ = write!(page, "<div><h3>By percentile</h3>{svg}</div>");
    let svg = chart::course(stage, report.span_ns, NARROW, &format!("{name}: latency over time"));
    let _ =
        write!(page, "<div><h3>Over time (UTC), {} each; below, values per second</h3>{svg}", hours(stage.width_ns));
    page.push_str("<div class=\"key\">");
    for (name, class) in CURVES {
        let _ = write!(page, "<span><i class=\"{class}\"></i>{name}</span>");
    }
    page.push_str("</div></div></div></section>\n");
}

fn complaints(report: &Report, page: &mut String) {
    let complaints = report.complaints();
    if complaints.is_empty() {
        return;
    }
    page.push_str("<section><h2>Left out</h2><ul>");
    for complaint in complaints {
        let _ = write!(page, "<li>{}</li>", escape(&complaint));
    }
    page.push_str("</ul></section>\n");
}

/// A length of time for a person.
fn hours(ns: u64) -> String {
    let (tenths, s) = (ns / 100_000_000, ns / 1_000_000_000);
    match s {
        0..60 if tenths.is_multiple_of(10) => format!("{s} s"),
        0..60 => format!("{}.{} s", tenths / 10, tenths % 10),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_times_have_their_unit() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        let texts = [1_000_000_000, 1_100_000_000, 61_000_000_000, 7_260_000_000_000].map(hours);
        assert_eq!(texts, ["1 s", "1.1 s", "1 min 1 s", "2 h 1 min"]);
        assert_eq!(escape("<b a=\"1\">&"), "&lt;b a=&quot;1&quot;&gt;&amp;");
    }
}
