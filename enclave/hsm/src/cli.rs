//! The command line, for the binary of this crate and the one for simulated clusters.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use arca_attestation::TrustAnchors;
use arca_enclave::{Settings, process};
use clap::{Args, Subcommand, ValueEnum};

use crate::{
    Config, ConfigError, EXAMPLE, HsmError, HsmPlatform, TokenChoice, ceremony, pin::PinSource,
};

/// For `after_help` of the binaries.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  stopped in good order, or done
  1  could not start, or failed; probe: something is missing
  2  the command line or the configuration is wrong
  3  the PIN was refused, or trying it would be dangerous: do not start again by itself";

/// What both binaries take.
#[derive(Debug, Args)]
pub struct Common {
    /// The configuration, a TOML file.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// What to log: error, warn, info, debug, trace, or a filter such as `arca_enclave=debug,warn`.
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info",
        env = "ARCA_LOG",
        global = true
    )]
    pub log: String,

    /// How to log to standard error.
    #[arg(long, value_name = "text|json", default_value_t, global = true)]
    pub log_format: process::LogFormat,

    /// What to do; run until SIGTERM or SIGINT, when nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Initialises a token in software, SoftHSM's say, with the label and PIN of the configuration. Hardware comes with
    /// tools of its own for that. Nothing is ever replaced.
    MakeToken {
        /// A private file with the PIN of the token's security officer.
        #[arg(long, value_name = "FILE")]
        so_pin: PathBuf,
    },
    /// Makes the party's two keys in the token. Once; nothing is ever replaced.
    Init {
        /// For people, or JSON.
        #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Prints a certification request (PKCS#10, PEM) for the identity key, signed by the token.
    Request {
        /// The cluster's name.
        #[arg(long, value_name = "NAME")]
        cluster: String,
        /// The party's name in it.
        #[arg(long, value_name = "NAME")]
        party: String,
    },
    /// Says what a module and token can do of what is needed; with --config and a PIN by trying it.
    Probe {
        /// Without a configuration: the vendor's PKCS#11 library.
        #[arg(
            long,
            value_name = "FILE",
            conflicts_with = "config",
            requires = "token"
        )]
        module: Option<PathBuf>,
        /// Without a configuration: the token's label.
        #[arg(long, value_name = "LABEL")]
        token: Option<String>,
        /// A table for people, or JSON.
        #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// About the configuration; runs nothing.
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// JSON.
    Json,
}

/// About the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Checks the file.
    Check,
    /// Prints a configuration with every field explained.
    Example,
}

/// Does what was asked for, with peers' NSMs judged by `anchors`. `program` is the binary's name.
pub fn main(program: &str, anchors: anyhow::Result<TrustAnchors>, arguments: Common) -> ExitCode {
    match anchors.and_then(|anchors| run(anchors, arguments)) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{program}: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    // The start-up wraps what the platform says.
    let hsm = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<HsmError>())
        .or_else(|| match error.downcast_ref::<process::StartError>() {
            Some(process::StartError::Platform(cause)) => cause.downcast_ref::<HsmError>(),
            _ => None,
        });
    if hsm.is_some_and(HsmError::is_about_pin) {
        3
    } else if error.is::<ConfigError>() || error.is::<Usage>() {
        2
    } else {
        1
    }
}

#[derive(Debug, thiserror::Error)]
#[error("which configuration? Give --config FILE; `arca-enclave-hsm config example` prints one")]
struct Usage;

fn run(anchors: TrustAnchors, arguments: Common) -> anyhow::Result<ExitCode> {
    if let Some(Command::Config(ConfigCommand::Example)) = arguments.command {
        return print(EXAMPLE);
    }
    if let Some(Command::Probe {
        module: Some(module),
        token: Some(token),
        output,
    }) = &arguments.command
    {
        let choice = TokenChoice::Label(token.clone());
        return report(&ceremony::probe(module, &choice, None)?, *output);
    }
    let file = arguments.config.ok_or(Usage)?;
    let config = Config::load(&file)?;
    match &arguments.command {
        Some(Command::Config(_)) => {
            config.check_for_running(&file)?;
            return print(&format!(
                "{}: configuration is valid\n{config:#?}\n",
                file.display()
            ));
        }
        Some(Command::MakeToken { so_pin }) => {
            let (so_pin, pin) = (PinSource::File(so_pin.clone()).read()?, config.pin.read()?);
            process::harden();
            ceremony::make_token(&config, so_pin, pin)?;
            return print("made the token; next: init\n");
        }
        Some(Command::Init { output }) => {
            let pin = config.pin.read()?;
            process::harden();
            let keys = ceremony::init(&config, pin)?;
            return print(&match output {
                Output::Json => format!("{}\n", serde_json::to_string_pretty(&keys)?),
                Output::Text => format!(
                    "made in the token with {}:\n  {:<32} AES-256, cannot be taken out; sealed blobs name it {}\n  \
                     {:<32} P-384, cannot be taken out; SHA-256 of its public key {}\n",
                    keys.token,
                    keys.kek_label,
                    keys.kek_id,
                    keys.identity_label,
                    keys.identity_sha256
                ),
            });
        }
        Some(Command::Request { cluster, party }) => {
            let pin = config.pin.read()?;
            process::harden();
            return print(&ceremony::request(&config, pin, cluster, party)?);
        }
        Some(Command::Probe { output, .. }) => {
            let pin = config.pin.read()?;
            process::harden();
            let found = ceremony::probe(&config.module, &config.token, Some(pin))?;
            return report(&found, *output);
        }
        None => {}
    }
    config.check_for_running(&file)?;
    // Before the process is hardened: an inherited descriptor may be out of reach after that.
    let pin = config.pin.read()?;
    let settings = Settings {
        presignatures: usize::try_from(config.presignatures)?,
        ..Settings::default()
    };
    let log = (arguments.log.as_str(), arguments.log_format);
    process::run(log, &config.reach(), settings, async {
        HsmPlatform::start(&config, pin, anchors).await
    })?;
    Ok(ExitCode::SUCCESS)
}

fn report(report: &crate::Report, output: Output) -> anyhow::Result<ExitCode> {
    print(&match output {
        Output::Text => report.table(),
        Output::Json => format!("{}\n", serde_json::to_string_pretty(report)?),
    })?;
    let missing = report.missing();
    if missing.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::bail!("this module or token lacks: {}", missing.join(", "))
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
