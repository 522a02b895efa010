//! `arca audit`

mod export;
mod log;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use arca_client::Profile;
use arca_client::audit::Trust;

use crate::cli::Context;
pub(super) use verify::bar;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Verify a signature's certificate or an export, offline
    #[command(
        after_help = "Examples:\n  arca audit verify payment.cert.json --trust trust.toml\n  \
                      arca audit verify payment.cert.json --public-key HEX --witness VKEY\n  \
                      arca audit verify export --trust trust.toml --html report.html\n  \
                      arca audit verify export --chain-signatures found-on-chain.jsonl --output json\n\n\
                      Needs trust anchors and the files, and no network: a trust file has the cluster's id and kind, the \
                      root of a simulated cluster, and the administrators with their quorum; a profile is one too. What is \
                      checked, in which order, and what it does not show, stands in docs/audit.md.\n\n\
                      Exit code 5 when a step of a certificate fails, which is then named, or a finding of an export is an \
                      error."
    )]
    Verify(verify::Verify),
    /// Fetch the parties' logs, evidence and openings into a folder
    #[command(
        after_help = "Examples:\n  arca audit export export\n  arca audit export march --from 120000 --to 180000\n  \
                      arca audit export export --party cloud\n\n\
                      For auditors of the manifest. Run again, it goes on where it stopped and fetches what is new; what is \
                      there is looked at. Nothing that arrives is believed: `arca audit verify` verifies it all."
    )]
    Export(export::Export),
    /// Show the newest checkpoints and who cosigned them
    #[command(
        after_help = "Examples:\n  arca audit checkpoint\n  arca audit checkpoint --party ceo --note > ceo.checkpoint"
    )]
    Checkpoint(log::CheckpointOf),
    /// List entries of a party's log
    #[command(
        after_help = "Examples:\n  arca audit list --party ceo\n  arca audit list --party ceo --from 1000 --count 50 --output json"
    )]
    List(log::List),
    /// Show the last entries of a party's log, and those that come
    #[command(
        after_help = "Examples:\n  arca audit tail --party ceo\n  arca audit tail --party ceo --follow"
    )]
    Tail(log::Tail),
    /// Fetch one entry's proof, as a C2SP tlog-proof
    #[command(
        after_help = "Examples:\n  arca audit proof 1234 --party ceo > entry-1234.tlog-proof"
    )]
    Proof(log::Proof),
    /// Fetch the certificate of a signed request
    #[command(
        after_help = "Examples:\n  arca audit certificate signingRequests/0123... payment.cert.json --party ceo"
    )]
    Certificate(log::CertificateOf),
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Verify(arguments) => verify::run(context, arguments)?,
        Command::Export(arguments) => export::run(context, arguments).await?,
        Command::Checkpoint(arguments) => log::checkpoint(context, arguments).await?,
        Command::List(arguments) => log::list(context, arguments).await?,
        Command::Tail(arguments) => log::tail(context, arguments).await?,
        Command::Proof(arguments) => log::proof(context, arguments).await?,
        Command::Certificate(arguments) => log::certificate(context, arguments).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// From the trust file, or else the profile. From here on everything printed says whether the cluster is simulated.
fn trust(context: &Context, file: Option<&PathBuf>) -> anyhow::Result<Trust> {
    let path = match (file, &context.profile) {
        (Some(path), _) | (None, Some(path)) => path.clone(),
        (None, None) => Profile::default_path()?,
    };
    let trust = Trust::load(&path)?;
    context.output.set_simulated(trust.is_simulated());
    Ok(trust)
}
