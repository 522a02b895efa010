//! Results on standard output, for people or as JSON; progress and errors on standard error.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use arca_attestation::TrustClass;
use arca_client::Error;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[value(alias = "text")]
    Table,
    /// One object.
    Json,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

/// What takes longer than this shows that it goes on.
const QUIET: Duration = Duration::from_secs(1);

/// Where results go.
pub(crate) struct Output {
    format: Format,
    color: bool,
    /// None as long as no cluster or document is involved.
    simulated: Cell<Option<bool>>,
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    simulated: Option<bool>,
    #[serde(flatten)]
    body: &'a T,
}

impl Output {
    pub fn new(format: Format, color: Color) -> Self {
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                std::io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            }
        };
        Self {
            format,
            color: color && format == Format::Table,
            simulated: Cell::new(None),
        }
    }

    /// Everything printed from now on says so.
    pub fn set_simulated(&self, simulated: bool) {
        self.simulated.set(Some(simulated));
    }

    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Writes a result: `value` as JSON, or the page that `render` fills.
    pub fn show(
        &self,
        value: &impl Serialize,
        render: impl FnOnce(&mut Page),
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Json => {
                let envelope = Envelope {
                    simulated: self.simulated.get(),
                    body: value,
                };
                let mut text = serde_json::to_string_pretty(&envelope)?;
                text.push('\n');
                print(&text)
            }
            Format::Table => {
                let mut page = Page::new(self.color);
                if self.simulated.get() == Some(true) {
                    page.simulated();
                }
                render(&mut page);
                print(&page.text)
            }
        }
    }

    /// Writes part of a result for people while the rest is still under way. Nothing in JSON.
    pub fn live(&self, render: impl FnOnce(&mut Page)) -> anyhow::Result<()> {
        if self.is_json() {
            return Ok(());
        }
        let mut page = Page::new(self.color);
        render(&mut page);
        print(&page.text)
    }

    /// Awaits `work`, showing on a terminal that it goes on once it takes longer than a second.
    pub async fn wait<T>(&self, label: &str, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        if let Ok(done) = tokio::time::timeout(QUIET, &mut work).await {
            return done;
        }
        if self.is_json() || !std::io::stderr().is_terminal() {
            return work.await;
        }
        let bar = ProgressBar::new_spinner().with_message(label.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        let done = work.await;
        bar.finish_and_clear();
        done
    }

    /// Says on standard error what went wrong and what to do.
    pub fn failure(&self, error: &anyhow::Error) {
        if is_broken_pipe(error) {
            return;
        }
        let known = error.downcast_ref::<Error>();
        // With the context that was added on the way, such as the step of the demo.
        let message = format!("{error:#}");
        let advice = known.map(Error::advice).filter(|advice| !advice.is_empty());
        let log_tail = match known {
            Some(Error::Process { log_tail, .. }) if !log_tail.is_empty() => {
                Some(log_tail.as_str())
            }
            _ => None,
        };
        let simulated = self.simulated.get();
        let text = match self.format {
            Format::Json => serde_json::json!({
                "simulated": simulated,
                "error": {
                    "reason": known.map_or("FAILED", Error::reason),
                    "message": message,
                    "advice": advice,
                    "log": log_tail,
                    "exit_code": super::exit::code(error),
                }
            })
            .to_string(),
            Format::Table => {
                let mark = if simulated == Some(true) {
                    " (simulated)"
                } else {
                    ""
                };
                let mut text = format!("error{mark}: {}", clean(&message));
                if let Some(log) = log_tail {
                    text.push_str("\n  the end of its log:");
                    for line in log.lines() {
                        let _ = write!(text, "\n    {}", clean(line));
                    }
                }
                if let Some(advice) = advice {
                    let _ = write!(text, "\n  what to do: {}", clean(&advice));
                }
                text
            }
        };
        eprintln!("{text}");
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// A class with what it does not prove, where that is less than one may think.
pub(crate) fn class_shown(class: TrustClass) -> String {
    match class {
        TrustClass::Hsm => format!("{class} ({HSM_PROVES})"),
        TrustClass::Nitro | TrustClass::Simulated => class.to_string(),
    }
}

/// What evidence of class `hsm` says.
const HSM_PROVES: &str = "custody of the key, not which code runs";

/// What a party sent goes to a terminal: characters that control it, or that reorder text, do not.
pub(crate) fn clean(text: &str) -> String {
    let harmful = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|c| if harmful(c) { '\u{fffd}' } else { c })
        .collect()
}

/// A result for people.
pub(crate) struct Page {
    text: String,
    color: bool,
}

impl Page {
    fn new(color: bool) -> Self {
        Self {
            text: String::new(),
            color,
        }
    }

    fn simulated(&mut self) {
        let line = self.paint(
            "33",
            "simulated: for trying out, no hardware protects this cluster's keys",
        );
        self.line(line);
    }

    pub fn line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    /// Adds to the line before.
    pub fn amend(&mut self, more: &str) {
        self.text.pop();
        self.line(more);
    }

    pub fn heading(&mut self, line: &str) {
        let line = self.paint("1", line);
        self.line(line);
    }

    /// Under a table of parties: what the class of some of them does not prove.
    pub fn class_note(&mut self, classes: impl IntoIterator<Item = TrustClass>) {
        if classes.into_iter().any(|class| class == TrustClass::Hsm) {
            self.line(format!("hsm: {HSM_PROVES}"));
        }
    }

    /// A check that held, or did not.
    pub fn check(&mut self, holds: bool, line: &str) {
        let mark = if holds {
            self.paint("32", "ok  ")
        } else {
            self.paint("31", "FAIL")
        };
        self.line(format!("  {mark} {}", clean(line)));
    }

    /// A check that was not made.
    pub fn no_check(&mut self, line: &str) {
        self.line(format!("  -    {}", clean(line)));
    }

    /// Names and values, the values under each other.
    pub fn fields<'a>(&mut self, fields: impl IntoIterator<Item = (&'a str, String)>) {
        let fields: Vec<_> = fields.into_iter().collect();
        let width = fields
            .iter()
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or(0);
        for (name, value) in fields {
            let name = self.paint("2", &format!("{name:width$}"));
            // Further lines of a value stand under its first one.
            let value = clean(&value).replace('\n', &format!("\n{:width$}  ", ""));
            self.line(format!("{name}  {value}"));
        }
    }

    /// Rows under a head, columns aligned.
    pub fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|row| {
                row.iter()
                    .map(|cell| clean(cell).replace('\n', " "))
                    .collect()
            })
            .collect();
        let widths: Vec<usize> = head
            .iter()
            .enumerate()
            .map(|(column, name)| {
                let cells = rows.iter().filter_map(|row| row.get(column));
                cells
                    .map(|cell| cell.chars().count())
                    .chain([name.len()])
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let align = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for (cell, width) in cells.zip(&widths) {
                let _ = write!(line, "{cell:width$}  ");
            }
            line.trim_end().to_owned()
        };
        let head = align(&mut head.iter().copied());
        let head = self.paint("2", &head);
        self.line(head);
        for row in &rows {
            self.line(align(&mut row.iter().map(String::as_str)));
        }
    }

    pub fn paint(&self, code: &str, text: &str) -> String {
        if self.color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_control_characters_gone() {
        let mut page = Page::new(false);
        page.table(
            &["party", "state"],
            &[
                vec!["ceo".to_owned(), "\x1b[31mup\u{202e}".to_owned()],
                vec!["cloud-of-somebody".to_owned(), "down".to_owned()],
            ],
        );
        assert_eq!(
            page.text,
            "party              state\nceo                \u{fffd}[31mup\u{fffd}\ncloud-of-somebody  down\n"
        );
    }

    #[test]
    fn colour_only_where_it_was_asked_for() {
        let mut page = Page::new(false);
        page.simulated();
        assert!(page.text.starts_with("simulated"));
        let mut page = Page::new(true);
        page.simulated();
        assert!(page.text.starts_with("\x1b["));
    }
}
