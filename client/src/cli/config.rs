//! `arca config`

use arca_client::clock;
use serde::Serialize;

use crate::cli::Context;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Read the profile and everything it names, and show what it means
    #[command(
        after_help = "Examples:\n  arca config check\n  arca --profile ./profile.toml config check"
    )]
    Check,
}

#[derive(Serialize)]
struct Checked {
    profile: String,
    cluster: String,
    kind: String,
    manifest_epoch: u64,
    manifest_digest: String,
    manifest_valid_until: String,
    administrators: Vec<String>,
    administrator_quorum: u16,
    principal: Option<String>,
    parties: Vec<(String, String)>,
}

pub(crate) fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    let Command::Check = command;
    let profile = context.profile()?;
    let manifest = profile.manifest();
    let checked = Checked {
        profile: profile.path().display().to_string(),
        cluster: manifest.cluster().to_owned(),
        kind: profile.kind().to_string(),
        manifest_epoch: manifest.epoch(),
        manifest_digest: hex::encode(manifest.digest()),
        manifest_valid_until: clock::show(manifest.not_after()),
        administrators: manifest
            .administrators()
            .keys
            .iter()
            .map(|key| key.name.clone())
            .collect(),
        administrator_quorum: manifest.administrators().quorum,
        principal: profile.principal().map(|(name, _)| name.to_owned()),
        parties: profile.parties().clone().into_iter().collect(),
    };
    context.output.show(&checked, |page| {
        page.fields([
            ("profile", checked.profile.clone()),
            ("cluster", format!("{} ({})", checked.cluster, checked.kind)),
            (
                "manifest",
                format!(
                    "epoch {}, until {}",
                    checked.manifest_epoch, checked.manifest_valid_until
                ),
            ),
            ("sha-384", checked.manifest_digest.clone()),
            (
                "administrators",
                format!(
                    "{} of {}",
                    checked.administrator_quorum,
                    checked.administrators.join(", ")
                ),
            ),
            (
                "principal",
                checked
                    .principal
                    .clone()
                    .unwrap_or_else(|| "none: can look, not ask".to_owned()),
            ),
        ]);
        for (party, endpoint) in &checked.parties {
            page.fields([("party         ", format!("{party} at {endpoint}"))]);
        }
        page.line("The profile is in order.");
    })
}
