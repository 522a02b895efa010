//! `arca bench`
use crate::cli::Context;
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  arca bench")]
pub(crate) struct Arguments {}
pub(crate) async fn run(_: &Context, _: Arguments) -> anyhow::Result<()> {
    Ok(())
}
