//! `arca audit export`

use std::path::PathBuf;

use arca_client::audit::{Selection, export};
use serde::Serialize;

use crate::cli::Context;

#[derive(clap::Args)]
pub(crate) struct Export {
    /// The folder: a new one, or that of an export that is to go on
    folder: PathBuf,
    /// This party's logs alone
    #[arg(long)]
    party: Option<String>,
    /// Only entries from this index on, in every log
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,
    /// Only entries before this index
    #[arg(long, value_name = "N")]
    to: Option<u64>,
}

#[derive(Serialize)]
struct Summary {
    folder: PathBuf,
    entries: u64,
    fetched: u64,
    openings: u64,
    withheld: Vec<String>,
    logs: Vec<Log>,
}

#[derive(Serialize)]
struct Log {
    party: String,
    log: u64,
    size: u64,
    ranges: Vec<(u64, u64)>,
}

pub(crate) async fn run(context: &Context, arguments: Export) -> anyhow::Result<()> {
    let cluster = context.cluster()?;
    let selection = Selection {
        party: arguments.party,
        from: arguments.from,
        to: arguments.to,
    };
    let bar = super::verify::bar(context, "exporting");
    let exported = export(&cluster, &arguments.folder, &selection, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })
    .await?;
    bar.finish_and_clear();
    let logs: Vec<Log> = exported
        .export
        .logs
        .iter()
        .map(|log| Log {
            party: log.party.clone(),
            log: log.log,
            size: log.size,
            ranges: log.ranges.clone(),
        })
        .collect();
    let entries = logs
        .iter()
        .flat_map(|log| &log.ranges)
        .map(|(from, to)| to - from)
        .sum();
    let summary = Summary {
        folder: arguments.folder,
        entries,
        fetched: exported.fetched,
        openings: exported.openings,
        withheld: exported.withheld,
        logs,
    };
    context.output.show(&summary, |page| {
        let rows: Vec<Vec<String>> = summary
            .logs
            .iter()
            .map(|log| {
                let ranges = log
                    .ranges
                    .iter()
                    .map(|(from, to)| format!("{from} to {to}"));
                vec![
                    log.party.clone(),
                    log.log.to_string(),
                    log.size.to_string(),
                    ranges.collect::<Vec<_>>().join(", "),
                ]
            })
            .collect();
        page.table(&["party", "log", "entries", "here"], &rows);
        page.fields([
            (
                "entries",
                format!("{}, {} fetched now", summary.entries, summary.fetched),
            ),
            ("openings", summary.openings.to_string()),
            ("folder", summary.folder.display().to_string()),
        ]);
        for withheld in &summary.withheld {
            page.check(false, &format!("withheld: {withheld}"));
        }
        page.line(format!(
            "verify it with: arca audit verify {}",
            summary.folder.display()
        ));
    })?;
    Ok(())
}
