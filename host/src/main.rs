//! `arca-host`: the untrusted host of one party.

#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use arca_host::{Config, EXAMPLE, Error, Host, Limits};
use clap::{Parser, Subcommand, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

const AFTER_HELP: &str = "\
Examples:
  arca-host --config /etc/arca/host.toml                 run in the foreground until SIGTERM or SIGINT
  arca-host --config /etc/arca/host.toml config check    show what the file says, or what is wrong with it
  arca-host config example > host.toml                   a file with every field explained
  arca-host --config host.toml --log debug --log-format json 2>> host.log

Exit codes:
  0  stopped in good order, or the configuration is right
  1  could not start, or a second signal cut the shutdown short
  2  the command line or the configuration is wrong

`arca-host config example` documents every field of the configuration, with the defaults of all limits.";

/// The untrusted host of one Arca party: forwards bytes between the network and the party's enclave, keeps
/// the enclave's sealed blobs, shows metrics.
#[derive(Debug, Parser)]
#[command(name = "arca-host", version, after_help = AFTER_HELP)]
struct Arguments {
    /// The configuration, a TOML file.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// What to log: error, warn, info, debug, trace, or a filter such as `arca_host=debug,warn`.
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info",
        env = "ARCA_LOG",
        global = true
    )]
    log: String,

    /// How to log to standard error.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    log_format: LogFormat,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// About the configuration; runs nothing.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Checks the file and prints what it means, defaults included.
    Check,
    /// Prints a configuration with every field explained.
    Example,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("arca-host: {error:#}");
            let usage =
                error.is::<Usage>() || matches!(error.downcast_ref(), Some(Error::Config(_)));
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

/// The command line asks for something that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

fn run(arguments: Arguments) -> anyhow::Result<()> {
    if let Some(Command::Config(ConfigCommand::Example)) = arguments.command {
        return print(EXAMPLE);
    }
    let file = arguments.config.ok_or_else(|| {
        Usage(
            "which configuration? Give --config FILE; `arca-host config example` prints one".into(),
        )
    })?;
    let config = Config::load(&file).map_err(Error::from)?;
    if let Some(Command::Config(ConfigCommand::Check)) = arguments.command {
        return print(&format!(
            "# {}: configuration is valid\n{config}",
            file.display()
        ));
    }
    start_logging(&arguments.log, arguments.log_format)?;
    raise_open_files(&config.limits);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(config))
}

/// Runs until a signal.
async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let mut host = Host::start(config).await?;
    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        failure = host.ended() => Some(failure),
    };
    tokio::select! {
        () = host.shutdown() => {}
        _ = terminate.recv() => anyhow::bail!("shutdown cut short by a second signal"),
        _ = interrupt.recv() => anyhow::bail!("shutdown cut short by a second signal"),
    }
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}

fn start_logging(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(filter).map_err(|error| Usage(format!("--log {filter:?}: {error}")))?;
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => logging.init(),
        LogFormat::Json => logging.json().init(),
    }
    Ok(())
}

/// Every forwarded connection takes two descriptors, so the soft limit goes as far up as the hard one lets
/// it.
fn raise_open_files(limits: &Limits) {
    let wanted = 2 * (limits.max_connections as u64 + limits.max_dials as u64) + 128;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    let reachable = wanted.min(hard).max(soft);
    if reachable > soft && setrlimit(Resource::RLIMIT_NOFILE, reachable, hard).is_ok() {
        info!(soft = reachable, "limit on open files raised");
    }
    if reachable < wanted {
        warn!(
            hard,
            wanted,
            "too few open files for limits.max_connections and limits.max_dials; raise the limit \
             (LimitNOFILE= in a systemd unit) or lower them"
        );
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    // A reader that has seen enough (`| head`) is no error.
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
