//! What the demo shows: for people while it happens, as JSON at its end.

use std::path::Path;
use std::time::{Duration, Instant};

use arca_client::SigningRequest;
use arca_client::local::LocalCluster;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::output::Output;

/// One thing that happened.
pub(super) struct Item {
    text: String,
    details: Vec<(&'static str, String)>,
    fields: Map<String, Value>,
    took: Option<Duration>,
}

impl Item {
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            details: Vec::new(),
            fields: Map::new(),
            took: None,
        }
    }

    /// For JSON.
    pub fn with(mut self, name: &str, value: &(impl Serialize + ?Sized)) -> Self {
        // Everything shown here has string keys, so that it can be JSON.
        let value = serde_json::to_value(value).unwrap_or(Value::Null);
        self.fields.insert(name.to_owned(), value);
        self
    }

    /// For people, under the item.
    pub fn detail(mut self, name: &'static str, value: &str) -> Self {
        self.details.push((name, value.to_owned()));
        self
    }

    pub fn took(self, since: Instant) -> Self {
        self.took_for(since.elapsed())
    }

    pub fn took_for(mut self, duration: Duration) -> Self {
        self.took = Some(duration);
        self
    }
}

/// What has happened so far.
pub(super) struct Report<'a> {
    output: &'a Output,
    started: Instant,
    steps: Vec<Step>,
    signatures: Vec<Duration>,
    signers: Vec<String>,
}

#[derive(Serialize)]
struct Step {
    step: usize,
    title: &'static str,
    items: Vec<Value>,
}

#[derive(Serialize)]
struct Summary<'a> {
    outcome: &'static str,
    cluster: &'a str,
    duration_ms: u64,
    signatures: usize,
    pairs: &'a [String],
    steps: &'a [Step],
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_in: Option<&'a Path>,
}

impl<'a> Report<'a> {
    pub fn new(output: &'a Output) -> anyhow::Result<Self> {
        output.live(|page| {
            page.heading("Arca demo: three parties, three keys, real signatures");
            let mark = page.paint(
                "33",
                "simulated: everything runs on this machine, no hardware protects these keys",
            );
            page.line(mark);
        })?;
        Ok(Self {
            output,
            started: Instant::now(),
            steps: Vec::new(),
            signatures: Vec::new(),
            signers: Vec::new(),
        })
    }

    /// The next step.
    pub fn begin(&mut self, title: &'static str) {
        let step = self.steps.len() + 1;
        self.steps.push(Step {
            step,
            title,
            items: Vec::new(),
        });
        // Whoever cannot be shown a title is told by the next item.
        let _ = self.output.live(|page| {
            page.line("");
            page.heading(&format!("{step}  {title}"));
        });
    }

    pub async fn wait<T>(&self, label: &str, work: impl Future<Output = T>) -> T {
        self.output.wait(label, work).await
    }

    pub fn item(&mut self, item: Item) -> anyhow::Result<()> {
        let Item {
            text,
            details,
            mut fields,
            took,
        } = item;
        self.output.live(|page| {
            let took = took.map_or_else(String::new, |took| format!("  [{}]", show(took)));
            let took = page.paint("2", &took);
            page.check(true, &text);
            if !took.is_empty() {
                page.amend(&took);
            }
            for (name, value) in &details {
                page.line(format!("       {name}: {value}"));
            }
        })?;
        fields.insert("what".to_owned(), Value::String(text));
        if let Some(took) = took {
            fields.insert(
                "duration_ms".to_owned(),
                (took.as_secs_f64() * 1000.0).into(),
            );
        }
        if let Some(step) = self.steps.last_mut() {
            step.items.push(Value::Object(fields));
        }
        Ok(())
    }

    /// Something that is not shown, and why.
    pub fn skip(&mut self, why: &str) -> anyhow::Result<()> {
        self.output.live(|page| {
            let mark = page.paint("33", "skip");
            page.line(format!("  {mark} {why}"));
        })?;
        if let Some(step) = self.steps.last_mut() {
            step.items.push(serde_json::json!({ "skipped": why }));
        }
        Ok(())
    }

    /// A signature, with who made it.
    pub fn signature(&mut self, item: Item, signed: &SigningRequest) -> anyhow::Result<()> {
        self.signatures.extend(item.took);
        let signers = signed.signers.join(" and ");
        if !self.signers.contains(&signers) {
            self.signers.push(signers.clone());
        }
        let item = item
            .detail(
                "signed by",
                &format!("{signers}, coordinated by {}", signed.coordinator),
            )
            .with("signers", &signed.signers)
            .with("coordinator", &signed.coordinator)
            .with("signing_request", &signed.name);
        self.item(item)
    }

    /// The step that was under way.
    pub fn failed_at(&self) -> String {
        match self.steps.last() {
            Some(step) => format!("step {} ({}) failed", step.step, step.title),
            None => "the preparation failed".to_owned(),
        }
    }

    pub fn finish(&self, cluster: &LocalCluster, kept_in: Option<&Path>) -> anyhow::Result<()> {
        let duration = self.started.elapsed();
        let summary = Summary {
            outcome: "ok",
            cluster: cluster.id(),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            signatures: self.signatures.len(),
            pairs: &self.signers,
            steps: &self.steps,
            kept_in,
        };
        if self.output.is_json() {
            return self.output.show(&summary, |_| ());
        }
        let mut sorted = self.signatures.clone();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        self.output.live(|page| {
            page.line("");
            page.heading("Summary");
            page.fields([
                ("cluster", format!("{} (simulated)", cluster.id())),
                (
                    "signatures",
                    format!(
                        "{}, all verified here; median {}",
                        self.signatures.len(),
                        show(median)
                    ),
                ),
                ("signed by", self.signers.join("; ")),
                ("whole keys", "none, at no time, in no process".to_owned()),
                ("took", show(duration)),
            ]);
            match kept_in {
                None => page.line("no process and no file is left behind"),
                Some(folder) => {
                    let folder = folder.display();
                    page.line(format!(
                        "kept in {folder}; to go on with this cluster, for each party:"
                    ));
                    page.line(format!("  arca-host --config {folder}/ceo/host.toml &"));
                    page.line(format!(
                        "  {} --config {folder}/ceo/enclave.toml &",
                        cluster.enclave_command("ceo")
                    ));
                    page.line(format!("  arca --profile {folder}/profile.toml status"));
                }
            }
        })
    }
}

fn show(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    if ms < 1000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.1} s", ms / 1000.0)
    }
}
