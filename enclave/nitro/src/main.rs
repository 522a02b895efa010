//! `arca-enclave-nitro`: one party's enclave on AWS Nitro.

#![forbid(unsafe_code)]

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use arca_enclave::{Settings, process};
use arca_enclave_nitro::{Config, ConfigError, EXAMPLE, NitroPlatform};
use clap::{Parser, Subcommand};

const AFTER_HELP: &str = "\
Examples:
  arca-enclave-nitro config example > enclave.toml       a file with every field explained
  arca-enclave-nitro --config enclave.toml config check  say what is wrong with a file
  arca-enclave-nitro --config /etc/arca/enclave.toml     run, inside an enclave, until SIGTERM or SIGINT

The configuration belongs into the enclave's image: what the host could exchange, nothing would protect.

Exit codes:
  0  stopped in good order
  1  could not start, or failed
  2  the command line or the configuration is wrong";

/// One party's enclave on AWS Nitro: evidence of its NSM, sealing under AWS KMS.
#[derive(Debug, Parser)]
#[command(name = "arca-enclave-nitro", version, after_help = AFTER_HELP)]
struct Arguments {
    /// The configuration, a TOML file of the enclave's image.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// What to log: error, warn, info, debug, trace, or a filter such as `arca_enclave=debug,warn`.
    #[arg(long, value_name = "FILTER", default_value = "info", global = true)]
    log: String,

    /// How to log to standard error, which is the enclave's console.
    #[arg(long, value_name = "text|json", default_value_t, global = true)]
    log_format: process::LogFormat,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// About the configuration; runs nothing.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Checks the file.
    Check,
    /// Prints a configuration with every field explained.
    Example,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("arca-enclave-nitro: {error:#}");
            ExitCode::from(if error.is::<ConfigError>() || error.is::<Usage>() {
                2
            } else {
                1
            })
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("which configuration? Give --config FILE; `arca-enclave-nitro config example` prints one")]
struct Usage;

fn run(arguments: Arguments) -> anyhow::Result<()> {
    if let Some(Command::Config(ConfigCommand::Example)) = arguments.command {
        return print(EXAMPLE);
    }
    let file = arguments.config.ok_or(Usage)?;
    let config = Config::load(&file)?;
    if arguments.command.is_some() {
        return print(&format!(
            "{}: configuration is valid\n{config:#?}\n",
            file.display()
        ));
    }
    let settings = Settings {
        presignatures: usize::try_from(config.ecdsa.presignatures)?,
        ..Settings::default()
    };
    let log = (arguments.log.as_str(), arguments.log_format);
    process::run(log, &config.reach(), settings, async {
        NitroPlatform::start(&config)
    })?;
    Ok(())
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
