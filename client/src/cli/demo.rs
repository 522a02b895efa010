//! `arca demo`
use crate::cli::Context;
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  arca demo\n  arca demo --keep ./demo")]
pub(crate) struct Arguments {}
pub(crate) async fn run(_: &Context, _: Arguments) -> anyhow::Result<()> {
    Ok(())
}
