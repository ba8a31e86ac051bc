//! The PromQL expressions of the board and the rules, and what they use.
#![forbid(unsafe_code)]

use std::fs;

use serde_json::Value;

use crate::tools::workspace;

fn read(path: &str) -> String {
    fs::read_to_string(workspace(path)).expect(path)
}

/// Every `expr` of the board, and the series that its variables are taken from.
pub fn board_expressions() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                let of_key = |key: &str| map.get(key).and_then(Value::as_str).map(str::to_owned);
                found.extend(of_key("expr"));
                let series = of_key("definition").and_then(|text| Some(text.strip_prefix("label_values(")?.to_owned()));
                found.extend(series.and_then(|text| Some(text.rsplit_once(", ")?.0.to_owned())));
                map.values().for_each(|value| collect(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let board: Value = serde_json::from_str(&read("config/grafana.json")).expect("JSON");
    let mut found = Vec::new();
    collect(&board, &mut found);
    found
}

/// Every `expr` of the rules but those about `up`, which is Prometheus' own. Each is written on its line, or folded (`>`)
/// on the lines below.
pub fn rule_expressions() -> Vec<String> {
    let text = read("config/alerts.yml");
    let mut lines = text.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(expression) = line.trim_start().strip_prefix("expr: ") else { continue };
        if expression != ">" {
            found.push(expression.to_owned());
            continue;
        }
        let mut folded = String::new();
        while let Some(line) = lines.next_if(|line| line.starts_with("          ")) {
            folded.push_str(line.trim());
            folded.push(' ');
        }
        found.push(folded);
    }
    found.retain(|expression| !expression.starts_with("up{"));
    found
}

/// Metrics of ours in an expression, each with the labels that it is selected by.
pub fn metrics_of(expression: &str) -> Vec<(String, Vec<String>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in expression.match_indices("feedhandler_") {
        let text = &expression[at..];
        let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
        let matchers =
            text[end..].strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
        let label = |matcher: &str| matcher.trim().split(|c| !is_name(c)).next().unwrap_or_default().to_owned();
        let labels = matchers.split(',').map(label).filter(|label| !label.is_empty());
        found.push((text[..end].to_owned(), labels.collect()));
    }
    found
}

#[test]
fn metrics_and_labels_are_found_in_an_expression() {
    let expression = "rate(feedhandler_a_total{x=\"1\", y!~\"b|c\"}[1m]) / on (z) feedhandler_b > 0";
    let expected = [("feedhandler_a_total", vec!["x", "y"]), ("feedhandler_b", vec![])];
    let found = metrics_of(expression);
    let found: Vec<(&str, Vec<&str>)> =
        found.iter().map(|(name, labels)| (name.as_str(), labels.iter().map(String::as_str).collect())).collect();
    assert_eq!(found, expected);
}
