//! The parts of the page that are words and tables.

use std::fmt::{self, Write as _};

use super::super::finding::Severity;
use super::super::report::Report;
use super::{escape, number, short};

pub(super) fn head(page: &mut String, report: &Report) -> fmt::Result {
    write!(
        page,
        "<header>\n<div class=\"over\">Arca audit report</div>\n<h1>{}</h1>\n",
        escape(&report.cluster)
    )?;
    if let Some(span) = &report.span {
        writeln!(
            page,
            "<p class=\"soft\">Entries from <time>{}</time> to <time>{}</time>, a {} cluster of {} parties.</p>",
            escape(&span.from),
            escape(&span.to),
            escape(&report.kind),
            parties(report).len()
        )?;
    }
    if report.kind == "simulated" {
        page.push_str(
            "<p class=\"simulated\">Simulated: for trying out. No hardware vouches for anything on this page.</p>\n",
        );
    }
    let (class, word) = if report.passed {
        ("passed", "Verified")
    } else {
        ("failed", "Not verified")
    };
    writeln!(
        page,
        "<div class=\"verdict {class}\"><b>{word}</b><span>{}.</span></div>\n</header>",
        escape(&report.sentence())
    )
}

pub(super) fn findings(page: &mut String, report: &Report) -> fmt::Result {
    page.push_str("<section>\n<h2>Findings</h2>\n");
    if report.findings.is_empty() {
        page.push_str("<p>None: nothing is missing, and nothing contradicts anything else.</p>\n");
    }
    for count in &report.counts {
        let shown = report
            .findings
            .iter()
            .filter(|finding| finding.code == count.code && finding.severity == count.severity);
        let shown = u64::try_from(shown.count()).unwrap_or(u64::MAX);
        if shown < count.count {
            writeln!(
                page,
                "<p class=\"soft\">{} of <code>{}</code>; the first {} are shown.</p>",
                number(count.count),
                escape(count.code),
                number(shown)
            )?;
        }
    }
    let mut folded = false;
    for finding in &report.findings {
        if finding.severity == Severity::Note && !folded {
            folded = true;
            writeln!(
                page,
                "<details><summary>{} {}</summary>",
                number(report.count(Severity::Note)),
                if report.count(Severity::Note) == 1 {
                    "note"
                } else {
                    "notes"
                }
            )?;
        }
        write!(
            page,
            "<div class=\"finding {}\"><p><span class=\"tag\">{}</span><code>{}</code>",
            finding.severity.as_str(),
            finding.severity.as_str(),
            escape(finding.code)
        )?;
        if let Some(party) = &finding.party {
            write!(page, " <span class=\"soft\">{}", escape(party))?;
            if let Some(log) = finding.log {
                write!(page, ", log {log}")?;
            }
            if let Some(index) = finding.index {
                write!(page, ", entry {index}")?;
            }
            page.push_str("</span>");
        }
        writeln!(
            page,
            "</p><p>{}</p><p class=\"soft\">What to do: {}.</p></div>",
            escape(&finding.message),
            escape(finding.remedy)
        )?;
    }
    if folded {
        page.push_str("</details>\n");
    }
    page.push_str("</section>\n");
    Ok(())
}

pub(super) fn figures(page: &mut String, report: &Report) -> fmt::Result {
    let totals = &report.totals;
    let mut figures = vec![
        ("entries", totals.entries),
        ("evidence documents verified", totals.evidence),
        ("signing sessions", totals.sessions),
        ("ended with signatures", totals.signed),
        ("signatures in the logs", totals.signatures),
        ("verified under their keys", totals.verified),
        ("failed sessions", totals.failed),
        ("refusals", totals.refusals),
        ("cross-checks between logs", totals.cross_checks),
    ];
    if let Some(chain) = &report.chain {
        figures.push(("chain signatures given", chain.given));
        figures.push(("explained by the logs", chain.explained));
    }
    page.push_str("<section>\n<h2>In figures</h2>\n<dl class=\"figures\">\n");
    for (name, value) in figures {
        writeln!(page, "<div><dt>{name}</dt><dd>{}</dd></div>", number(value))?;
    }
    page.push_str("</dl>\n</section>\n");
    Ok(())
}

fn table(
    page: &mut String,
    head: &[(&str, bool)],
    rows: impl Iterator<Item = Vec<String>>,
) -> fmt::Result {
    page.push_str("<div class=\"scroll\"><table>\n<thead><tr>");
    let class = |is_number: bool| if is_number { " class=\"n\"" } else { "" };
    for (name, is_number) in head {
        write!(page, "<th{}>{name}</th>", class(*is_number))?;
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        page.push_str("<tr>");
        for (cell, (_, is_number)) in row.iter().zip(head) {
            write!(page, "<td{}>{cell}</td>", class(*is_number))?;
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div>\n");
    Ok(())
}

fn yes(holds: bool, yes: &str, no: &str) -> String {
    if holds {
        format!("<span class=\"yes\">{yes}</span>")
    } else {
        format!("<span class=\"no\">{no}</span>")
    }
}

pub(super) fn witnesses(page: &mut String, report: &Report) -> fmt::Result {
    page.push_str(
        "<section>\n<h2>Who witnesses whom</h2>\n<p>Each entry that announces a signature names the last checkpoint of \
         every peer's log that its party had cosigned. Each such point is compared with that log as it was exported.</p>\n",
    );
    table(
        page,
        &[
            ("log of", false),
            ("seen by", false),
            ("times", true),
            ("points compared", true),
            ("largest", true),
            ("all in the log", false),
            ("cosigned the checkpoint", false),
        ],
        report.witnesses.iter().map(|witness| {
            vec![
                format!("{}/{}", escape(&witness.of), witness.log),
                escape(&witness.by).to_string(),
                number(witness.seen),
                number(witness.compared),
                number(witness.largest),
                yes(witness.holds, "yes", "no"),
                if witness.cosigned { "yes" } else { "\u{2013}" }.to_owned(),
            ]
        }),
    )?;
    page.push_str("</section>\n");
    Ok(())
}

pub(super) fn manifests(page: &mut String, report: &Report) -> fmt::Result {
    page.push_str("<section>\n<h2>Manifests</h2>\n");
    table(
        page,
        &[
            ("epoch", true),
            ("SHA-384", false),
            ("valid", false),
            ("parties", false),
            ("quorum", false),
            ("vouched for by", false),
        ],
        report.manifests.iter().map(|manifest| {
            vec![
                number(manifest.epoch),
                short(&manifest.digest),
                format!(
                    "{} to {}",
                    escape(&manifest.not_before),
                    escape(&manifest.not_after)
                ),
                escape(&manifest.parties.join(", ")).to_string(),
                escape(&manifest.quorum).to_string(),
                escape(&manifest.vouched_by).to_string(),
            ]
        }),
    )?;
    page.push_str("</section>\n");
    Ok(())
}

pub(super) fn logs(page: &mut String, report: &Report) -> fmt::Result {
    page.push_str("<section>\n<h2>Logs and what ran</h2>\n");
    for log in &report.logs {
        writeln!(
            page,
            "<h3>{}{} <span class=\"soft\">class {}</span></h3>\n<p><code>{}</code></p>\n\
             <p>{} entries, of which {} to {} are here. Root {}. Cosigned by {}.</p>",
            escape(&log.party),
            if log.log == 1 {
                String::new()
            } else {
                format!(", log {}", log.log)
            },
            escape(&log.class),
            escape(&log.origin),
            number(log.size),
            number(log.range.0),
            number(log.range.1),
            short(&log.root),
            if log.cosigned.is_empty() {
                "nobody".to_owned()
            } else {
                let names = log.cosigned.iter().map(|(name, time)| {
                    format!("<code>{}</code> at {}", escape(name), escape(time))
                });
                names.collect::<Vec<_>>().join(", ")
            }
        )?;
        let kinds: Vec<String> = log
            .kinds
            .iter()
            .map(|(kind, count)| format!("{} {}", number(*count), escape(kind)))
            .collect();
        writeln!(page, "<p class=\"soft\">{}</p>", kinds.join(" \u{b7} "))?;
        table(
            page,
            &[
                ("entry", true),
                ("started", false),
                ("boot", false),
                ("manifest", true),
                ("PCR 0", false),
                ("evidence", false),
                ("verifies", false),
            ],
            log.instances.iter().map(|instance| {
                vec![
                    number(instance.index),
                    escape(&instance.start).to_string(),
                    short(&instance.boot),
                    number(instance.epoch),
                    instance
                        .pcr0
                        .as_deref()
                        .map_or_else(|| "\u{2013}".to_owned(), short),
                    short(&instance.evidence),
                    yes(instance.verified, "yes", "no"),
                ]
            }),
        )?;
    }
    page.push_str("</section>\n");
    Ok(())
}

pub(super) fn keys(page: &mut String, report: &Report) -> fmt::Result {
    if report.keys.is_empty() {
        return Ok(());
    }
    page.push_str("<section>\n<h2>Keys</h2>\n");
    table(
        page,
        &[
            ("key", false),
            ("scheme", false),
            ("public key", false),
            ("shares", false),
            ("held by", false),
            ("created", false),
            ("sessions signed", true),
        ],
        report.keys.iter().map(|key| {
            vec![
                short(&key.key),
                escape(&key.scheme).to_string(),
                short(&key.public_key),
                escape(&key.threshold).to_string(),
                escape(&key.parties.join(", ")).to_string(),
                escape(&key.created).to_string(),
                number(key.signed),
            ]
        }),
    )?;
    page.push_str("</section>\n");
    Ok(())
}

pub(super) fn foot(page: &mut String) -> fmt::Result {
    page.push_str(
        "<footer><p>Made by <code>arca audit verify</code> from exported files alone, without a network. Times are those of \
         the parties' own clocks, in UTC. What is not shown here: whether an initiator was right to ask, and what a party \
         of class hsm runs; its evidence proves custody of a key, not which code uses it.</p></footer>\n",
    );
    Ok(())
}

/// The names of all parties that have a log here, each once.
pub(super) fn parties(report: &Report) -> Vec<&str> {
    let mut parties: Vec<&str> = report.logs.iter().map(|log| log.party.as_str()).collect();
    parties.sort_unstable();
    parties.dedup();
    parties
}
