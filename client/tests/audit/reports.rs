//! The page of HTML.

use arca_audit::entry::{Event, Outcome};
use arca_client::audit::html;
use arca_client::audit::report::Timeline;
use arca_client::audit::sample::{PACE_MS, Plan, Sample};

use super::{SMALL, audit};

#[test]
fn the_page_stands_alone_and_shows_everything() {
    let sample = Sample::new().unwrap();
    let report = audit(&sample.export(&SMALL).unwrap(), &sample.trust().unwrap());
    let page = html::render(&report);
    assert_eq!(page, html::render(&report), "it is not the same each time");
    for part in [
        "<!doctype html>",
        "sim-sample",
        "Verified",
        "Simulated",
        "<svg",
        "prefers-color-scheme:dark",
        "None: nothing is missing",
        "Every entry",
        "ceo",
        "cloud",
        "cto",
        "default-src 'none'",
    ] {
        assert!(page.contains(part), "{part}");
    }
    for part in [
        "http://", "https://", "src=", "@import", "url(", "<link", "<iframe",
    ] {
        assert!(!page.contains(part), "{part}");
    }
}

#[test]
fn what_a_log_says_stays_text() {
    let evil = "\"><script>alert(1)</script><b onmouseover='x'>\u{202e}";
    let sample = Sample::new().unwrap();
    let export = sample
        .export_false(&SMALL, &mut |_, entry| {
            if let Event::SigningOutcome { result, .. } = &mut entry.event {
                *result = Outcome::Failed {
                    reason: evil.to_owned(),
                    culprits: vec![evil.to_owned()],
                };
            }
            true
        })
        .unwrap();
    let report = audit(&export, &sample.trust().unwrap());
    let page = html::render(&report);
    assert!(page.contains("&lt;script&gt;alert(1)"));
    assert_eq!(
        page.matches("<script>").count(),
        1,
        "there is one script, ours"
    );
    assert!(!page.contains("<b onmouseover") && !page.contains('\u{202e}'));
}

#[test]
fn many_events_are_shown_by_day() {
    let sample = Sample::new().unwrap();
    let plan = Plan {
        sessions: 1400,
        openings: false,
        restart_every: 500,
        pace_ms: PACE_MS,
    };
    let report = audit(&sample.export(&plan).unwrap(), &sample.trust().unwrap());
    assert!(matches!(report.timeline, Timeline::Days { .. }));
    let page = html::render(&report);
    assert!(page.contains("entries, by day") && page.contains("Entries that are not signatures"));
    assert!(page.len() < 400_000, "{} bytes", page.len());
}
