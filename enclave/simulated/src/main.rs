//! `arca-enclave-simulated`: an enclave without the hardware.

#![forbid(unsafe_code)]

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use arca_attestation::UnixMillis;
use arca_enclave::{Settings, process};
use arca_enclave_simulated::{
    Config, ConfigError, EXAMPLE, SimulatedPlatform, measure_myself, nsm::LocalRoot,
};
use clap::{Parser, Subcommand};
use rand_core::OsRng;

const AFTER_HELP: &str = "\
Examples:
  arca-enclave-simulated make-root /etc/arca/simulated-root    once for a simulated cluster
  arca-enclave-simulated config example > enclave.toml         a file with every field explained
  arca-enclave-simulated --config enclave.toml config check    say what is wrong with a file
  arca-enclave-simulated --config enclave.toml                 run until SIGTERM or SIGINT
  arca-enclave-simulated measurements                          what a manifest has to name for this program

Exit codes:
  0  stopped in good order
  1  could not start, or failed
  2  the command line or the configuration is wrong";

/// One party's enclave on simulated hardware: the production service on a local NSM. For development, tests and
/// drills; it protects nothing from whoever controls the machine.
#[derive(Debug, Parser)]
#[command(name = "arca-enclave-simulated", version, after_help = AFTER_HELP)]
struct Arguments {
    /// The configuration, a TOML file.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// What to log: error, warn, info, debug, trace, or a filter such as `arca_enclave=debug,warn`.
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info",
        env = "ARCA_LOG",
        global = true
    )]
    log: String,

    /// How to log to standard error.
    #[arg(long, value_name = "text|json", default_value_t, global = true)]
    log_format: process::LogFormat,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes the local NSM root that all enclaves of one simulated cluster share.
    MakeRoot {
        /// A new or empty folder for root.der and root.key.
        folder: PathBuf,
    },
    /// Prints this program's measurements as JSON, as a manifest names them.
    Measurements,
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
            eprintln!("arca-enclave-simulated: {error:#}");
            ExitCode::from(if error.is::<ConfigError>() || error.is::<Usage>() {
                2
            } else {
                1
            })
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "which configuration? Give --config FILE; `arca-enclave-simulated config example` prints one"
)]
struct Usage;

fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Some(Command::MakeRoot { folder }) => return make_root(&folder),
        Some(Command::Measurements) => {
            let measurements = measure_myself()?;
            return print(&format!(
                "{}\n",
                serde_json::to_string_pretty(&measurements)?
            ));
        }
        Some(Command::Config(ConfigCommand::Example)) => return print(EXAMPLE),
        Some(Command::Config(ConfigCommand::Check)) | None => {}
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
        presignatures: usize::try_from(config.presignatures)?,
        danger_without_log: config.danger_without_log,
        ..Settings::default()
    };
    config.make_hardware()?;
    let log = (arguments.log.as_str(), arguments.log_format);
    process::run(log, &config.reach(), settings, async {
        let platform = SimulatedPlatform::start(&config);
        tracing::warn!(
            "SIMULATED platform: nothing here is protected from whoever controls this machine"
        );
        platform
    })?;
    Ok(())
}

fn make_root(folder: &std::path::Path) -> anyhow::Result<()> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let now = UnixMillis(u64::try_from(since.as_millis())?);
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    LocalRoot::create(&mut OsRng, now)?.save(folder)?;
    print(&format!("made a simulated root in {}\n", folder.display()))
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
