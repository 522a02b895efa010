//! The timeline: a lane for each party, and the events as a table.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use arca_attestation::UnixMillis;

use super::super::report::{Event, Report, Timeline};
use super::sections::parties;
use super::{escape, number};
use crate::clock;

/// What stands on one row of a lane, from the top: class in the style sheet, name, kinds of entries.
const ROWS: &[(&str, &str, &[&str])] = &[
    (
        "k-signed",
        "signatures",
        &["signing-intent", "signed", "released"],
    ),
    (
        "k-failed",
        "failed sessions",
        &["failed", "setup-discarded"],
    ),
    ("k-refused", "refusals", &["refused", "log-conflict"]),
    ("k-key", "keys", &["key-created", "key-enabled"]),
    (
        "k-place",
        "manifests, leases, fences, losses",
        &[
            "manifest-accepted",
            "lease-granted",
            "lease-held",
            "fenced",
            "loss-accepted",
        ],
    ),
    ("k-start", "starts", &["instance-started"]),
    ("k-link", "peers verified", &["evidence-verified"]),
];

const WIDTH: u64 = 1000;
const LEFT: u64 = 96;
const RIGHT: u64 = 16;
const ROW: u64 = 13;
const LANE_HEAD: u64 = 10;
/// How many places there are on the axis: no two marks of a row stand nearer.
const PLACES: u64 = (WIDTH - LEFT - RIGHT) / 3;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

struct Axis {
    from: u64,
    to: u64,
}

impl Axis {
    /// Which of [`PLACES`] a time belongs to.
    fn place(&self, time: u64) -> u64 {
        let span = u128::from(self.to.saturating_sub(self.from).max(1));
        let into = u128::from(time.saturating_sub(self.from));
        let place = into * u128::from(PLACES - 1) / span;
        u64::try_from(place).unwrap_or(PLACES).min(PLACES - 1)
    }

    fn x(place: u64) -> u64 {
        LEFT + place * 3
    }
}

/// Marks of a lane: how many events stand at a row and place.
type Marks<'a> = BTreeMap<(&'a str, usize, u64), u64>;

fn row_of(kind: &str) -> Option<usize> {
    ROWS.iter().position(|(_, _, kinds)| kinds.contains(&kind))
}

/// The middle of a day, so that its mark stands in it.
fn noon(day: &str) -> Option<u64> {
    let date: jiff::civil::Date = day.parse().ok()?;
    let time = date
        .at(12, 0, 0, 0)
        .to_zoned(jiff::tz::TimeZone::UTC)
        .ok()?;
    u64::try_from(time.timestamp().as_millisecond()).ok()
}

fn times(report: &Report) -> Vec<(u64, &str, &'static str, u64)> {
    match &report.timeline {
        Timeline::Events(events) => events
            .iter()
            .map(|event| (event.time_ms, event.party.as_str(), event.kind, 1))
            .collect(),
        Timeline::Days { days, .. } => days
            .iter()
            .filter_map(|day| Some((noon(&day.day)?, day.party.as_str(), day.kind, day.count)))
            .collect(),
    }
}

pub(super) fn write(page: &mut String, report: &Report) -> fmt::Result {
    let times = times(report);
    let lives = report
        .logs
        .iter()
        .flat_map(|log| log.instances.iter())
        .flat_map(|instance| [instance.start_ms, instance.end_ms]);
    let all = times.iter().map(|(time, ..)| *time).chain(lives);
    let Some((from, to)) = all.fold(None, |span: Option<(u64, u64)>, time| {
        Some(span.map_or((time, time), |(from, to)| (from.min(time), to.max(time))))
    }) else {
        return Ok(());
    };
    let axis = Axis { from, to };
    let mut marks: Marks<'_> = BTreeMap::new();
    for (time, party, kind, count) in &times {
        if let Some(row) = row_of(kind) {
            let mark = marks.entry((*party, row, axis.place(*time))).or_default();
            *mark = mark.saturating_add(*count);
        }
    }
    let parties = parties(report);
    let lane = LANE_HEAD * 2 + ROW * ROWS.len() as u64;
    let height = lane * parties.len() as u64 + 34;
    let per = match report.timeline {
        Timeline::Events(_) => "its entries",
        Timeline::Days { .. } => "its entries, by day",
    };
    write!(
        page,
        "<section>\n<h2>Timeline</h2>\n<p class=\"soft\">A lane for each party with {per}. A bar behind the marks is one run of \
         the enclave. The darker a mark, the more stands there.</p>\n<ul class=\"legend\">"
    )?;
    for (class, name, _) in ROWS {
        write!(page, "<li><i class=\"{class}\"></i>{name}</li>")?;
    }
    write!(
        page,
        "</ul>\n<div class=\"scroll\"><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"timeline\">\n"
    )?;
    grid(page, &axis, height)?;
    let most = marks.values().copied().max().unwrap_or(1);
    for (number_of_lane, party) in parties.iter().enumerate() {
        let top = lane * number_of_lane as u64;
        writeln!(
            page,
            "<text class=\"party\" x=\"14\" y=\"{}\">{}</text>",
            top + lane / 2 + 4,
            escape(party)
        )?;
        lives_of(page, report, &axis, party, top, lane)?;
        for ((_, row, place), count) in marks.range((*party, 0, 0)..=(*party, ROWS.len(), PLACES)) {
            let (class, name, _) = ROWS.get(*row).copied().unwrap_or_default();
            writeln!(
                page,
                "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"2.4\" height=\"{}\" opacity=\"{}\"><title>{} {name}</title></rect>",
                Axis::x(*place),
                top + LANE_HEAD + ROW * *row as u64 + 1,
                ROW - 3,
                opacity(*count, most),
                number(*count),
            )?;
        }
        let bottom = top + lane;
        writeln!(
            page,
            "<line class=\"grid\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{bottom}\" y2=\"{bottom}\"/>"
        )?;
    }
    page.push_str("</svg></div>\n</section>\n");
    Ok(())
}

/// From a half for one event to one for the most: by order of magnitude, so that one among many is still seen.
fn opacity(count: u64, most: u64) -> String {
    let bits = |value: u64| u64::from(u64::BITS - value.leading_zeros());
    let percent = if most <= 1 {
        85
    } else {
        55 + 45 * bits(count).saturating_sub(1) / bits(most).saturating_sub(1).max(1)
    };
    format!("{}.{:02}", percent / 100, percent % 100)
}

fn lives_of(
    page: &mut String,
    report: &Report,
    axis: &Axis,
    party: &str,
    top: u64,
    lane: u64,
) -> fmt::Result {
    for log in report.logs.iter().filter(|log| log.party == party) {
        for instance in &log.instances {
            let from = Axis::x(axis.place(instance.start_ms));
            let to = Axis::x(axis.place(instance.end_ms)) + 3;
            writeln!(
                page,
                "<rect class=\"life\" x=\"{from}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"3\"><title>boot {}, from {}</title></rect>",
                top + LANE_HEAD / 2,
                to.saturating_sub(from).max(3),
                lane - LANE_HEAD,
                escape(&instance.boot),
                escape(&instance.start)
            )?;
        }
    }
    Ok(())
}

fn grid(page: &mut String, axis: &Axis, height: u64) -> fmt::Result {
    const LINES: u64 = 6;
    let span = axis.to.saturating_sub(axis.from);
    for line in 0..LINES {
        // Spans are far below 2^64 / 5 milliseconds.
        let time = axis
            .from
            .saturating_add(span.saturating_mul(line) / (LINES - 1));
        let x = Axis::x(axis.place(time));
        let full = clock::show(UnixMillis(time));
        let label = if span > 3 * DAY_MS {
            full.get(..10)
        } else {
            full.get(11..19)
        };
        let anchor = match line {
            0 => "start",
            _ if line == LINES - 1 => "end",
            _ => "middle",
        };
        writeln!(
            page,
            "<line class=\"grid\" x1=\"{x}\" x2=\"{x}\" y1=\"0\" y2=\"{}\"/><text x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            height - 30,
            height - 12,
            escape(label.unwrap_or(&full))
        )?;
    }
    Ok(())
}

/// Events as a table: all of them, or what is rare among many.
pub(super) fn events(page: &mut String, report: &Report) -> fmt::Result {
    let (events, title): (&[Event], _) = match &report.timeline {
        Timeline::Events(events) => (events, "Every entry"),
        Timeline::Days { rare, .. } => (rare, "Entries that are not signatures"),
    };
    if events.is_empty() {
        return Ok(());
    }
    writeln!(
        page,
        "<section>\n<h2>{title}</h2>\n<details><summary>{} entries</summary>\n\
         <p class=\"filter\" data-filter=\"events\" hidden><label>Only those with <input type=\"search\" \
         placeholder=\"cto fenced\"></label> <output></output></p>\n\
         <div class=\"scroll\"><table id=\"events\">\n<thead><tr><th>time</th><th>party</th><th class=\"n\">entry</th>\
         <th>kind</th><th>what</th></tr></thead>\n<tbody>",
        number(events.len() as u64)
    )?;
    for event in events {
        writeln!(
            page,
            "<tr><td><time>{}</time></td><td>{}</td><td class=\"n\">{}</td><td>{}</td><td>{}</td></tr>",
            escape(&clock::show(UnixMillis(event.time_ms))),
            escape(&event.party),
            event.index,
            escape(event.kind),
            escape(&event.text)
        )?;
    }
    page.push_str("</tbody></table></div></details>\n</section>\n");
    Ok(())
}
