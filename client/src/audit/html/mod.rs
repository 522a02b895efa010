//! A [`Report`] as one page of HTML that needs nothing else: no network, no script to be read.
//!
//! # Security
//! What a log says comes from a party, and what an export holds from anybody. All of it is escaped; the
//! page's own policy lets nothing run but its one script, by its hash, and loads nothing.

mod sections;
mod timeline;

use std::fmt::{self, Write as _};

use bitcoin::base64::Engine as _;
use bitcoin::base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::report::Report;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("filter.js");

/// The page. The same report always gives the same bytes.
pub fn render(report: &Report) -> String {
    let mut page = String::new();
    // A String takes everything that is written to it.
    let _ = write_page(&mut page, report);
    page
}

fn write_page(page: &mut String, report: &Report) -> fmt::Result {
    let script_hash = STANDARD.encode(Sha256::digest(SCRIPT));
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'sha256-{script_hash}'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>Audit of {}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n",
        escape(&report.cluster)
    )?;
    sections::head(page, report)?;
    sections::findings(page, report)?;
    sections::figures(page, report)?;
    timeline::write(page, report)?;
    sections::witnesses(page, report)?;
    sections::manifests(page, report)?;
    sections::logs(page, report)?;
    sections::keys(page, report)?;
    timeline::events(page, report)?;
    sections::foot(page)?;
    write!(
        page,
        "</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
}

/// Text in a place where HTML is expected.
pub(super) struct Escaped<'a>(&'a str);

/// For text between tags and for attributes in double quotes.
pub(super) fn escape(text: &str) -> Escaped<'_> {
    Escaped(text)
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Nothing that a log says changes how the rest of the page reads.
                c if (c.is_control() && c != '\n')
                    || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
                {
                    f.write_char('\u{fffd}')?;
                }
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Digits in groups of three, with a thin space between.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push('\u{2009}');
        }
        grouped.push(digit);
    }
    grouped
}

/// The beginning of something long, the whole of it on hover.
pub(super) fn short(hex: &str) -> String {
    let beginning: String = hex.chars().take(12).collect();
    format!(
        "<code title=\"{}\">{}{}</code>",
        escape(hex),
        escape(&beginning),
        if beginning.len() < hex.len() {
            "\u{2026}"
        } else {
            ""
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let plain = |value| number(value).replace('\u{2009}', " ");
        assert_eq!(plain(0), "0");
        assert_eq!(plain(999), "999");
        assert_eq!(plain(1_000), "1 000");
        assert_eq!(plain(1_234_567), "1 234 567");
    }

    #[test]
    fn nothing_gets_out_of_its_place() {
        assert_eq!(
            escape("<script>\"'&\u{202e}\u{1b}").to_string(),
            "&lt;script&gt;&quot;&#39;&amp;\u{fffd}\u{fffd}"
        );
    }
}
