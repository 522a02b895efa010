//! A page of metrics as a scraper reads it, stricter than scrapers are.

use std::collections::{BTreeMap, BTreeSet};

use arca_proto::v1::Metric;
use arca_proto::v1::metric::{Kind, Label};

/// What stands on a page, read by the letter of the format: help, type and series of each name.
#[derive(Debug, Default, PartialEq)]
pub struct Page(pub BTreeMap<String, Family>);

#[derive(Debug, Default, PartialEq)]
pub struct Family {
    pub help: String,
    pub kind: String,
    pub series: BTreeMap<BTreeMap<String, String>, f64>,
}

impl Page {
    /// The page that a report is to become.
    pub fn of(metrics: &[Metric]) -> Self {
        let mut families = BTreeMap::<_, Family>::new();
        for metric in metrics {
            let family = families.entry(metric.name.clone()).or_default();
            family.help.clone_from(&metric.help);
            family.kind = match metric.kind() {
                Kind::Counter => "counter".into(),
                _ => "gauge".into(),
            };
            let mut labels = BTreeMap::from([("party".to_owned(), "ceo".to_owned())]);
            for Label { name, value } in &metric.labels {
                if !value.is_empty() {
                    labels.insert(name.clone(), value.clone());
                }
            }
            family.series.insert(labels, metric.value);
        }
        Self(families)
    }

    /// <https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details>, strictly: help,
    /// type, then all series of a name, no name and no series twice.
    pub fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "{text}");
        let mut families = BTreeMap::<String, Family>::new();
        let mut current = String::new();
        let mut typed = BTreeSet::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                current = name.to_owned();
                let family = Family {
                    help: unescaped(help),
                    ..Family::default()
                };
                let before = families.insert(current.clone(), family);
                assert!(before.is_none(), "HELP twice: {line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, current, "TYPE without HELP");
                assert!(typed.insert(name.to_owned()), "TYPE twice: {line}");
                families.get_mut(name).unwrap().kind = kind.to_owned();
            } else {
                let (name, labels, value) = read_series(line);
                let parts = ["", "_bucket", "_sum", "_count"];
                let family = families.get_mut(&current).unwrap();
                let belongs = |part: &&str| name.strip_suffix(*part) == Some(current.as_str());
                let parts = if family.kind == "histogram" {
                    &parts[1..]
                } else {
                    &parts[..1]
                };
                let part = parts.iter().find(|part| belongs(part));
                assert!(part.is_some(), "under {current}: {line}");
                let mut labels = labels;
                if family.kind == "histogram" {
                    labels.insert("part".into(), (*part.unwrap()).to_owned());
                }
                let before = family.series.insert(labels, value);
                assert!(before.is_none(), "twice: {line}");
            }
        }
        Self(families)
    }
}

fn read_series(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (name, mut rest) = line.split_once('{').expect(line);
    let mut labels = BTreeMap::new();
    loop {
        let (label, quoted) = rest.split_once("=\"").expect(line);
        let mut escaping = false;
        let end = quoted.find(|c| {
            let ends = c == '"' && !escaping;
            escaping = c == '\\' && !escaping;
            ends
        });
        let (value, after) = quoted.split_at(end.expect(line));
        assert!(
            label.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
            "{line}"
        );
        let before = labels.insert(label.to_owned(), unescaped(value));
        assert!(before.is_none(), "{line}");
        match after.strip_prefix("\",") {
            Some(next) => rest = next,
            None => {
                let value = after.strip_prefix("\"} ").expect(line);
                return (name.to_owned(), labels, value.parse().expect(line));
            }
        }
    }
}

fn unescaped(text: &str) -> String {
    let mut unescaped = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        unescaped.push(match c {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some(c @ ('\\' | '"')) => c,
                other => panic!("\\ before {other:?} in {text}"),
            },
            c => c,
        });
    }
    unescaped
}
