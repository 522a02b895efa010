//! Arguments, dispatch, and the end of every run.

mod audit;
mod bench;
mod config;
mod demo;
mod enroll;
mod evidence;
mod exit;
mod hsm;
mod key;
mod output;
mod party;
mod sign;
mod signals;
mod status;
mod witness;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use arca_attestation::ClusterKind;
use arca_client::{Client, Cluster, Profile};
use clap::{CommandFactory, Parser, Subcommand};

use output::{Color, Format, Output};

/// Threshold custody: keys that exist only as shares in attested enclaves.
#[derive(Parser)]
#[command(
    name = "arca",
    version,
    after_help = "Try it without any set-up: `arca demo`. Exit codes: `arca --help`.",
    after_long_help = exit::HELP,
    arg_required_else_help = true,
    propagate_version = true
)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
struct Global {
    /// How results are written: tables for people, or one JSON object
    #[arg(long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    output: Format,
    /// The profile: cluster, trust anchors, administrators, addresses, principal
    /// [default: ~/.config/arca/profile.toml]
    #[arg(
        long,
        global = true,
        env = "ARCA_PROFILE",
        value_name = "FILE",
        hide_env_values = true
    )]
    profile: Option<PathBuf>,
    /// When to colour; `auto` means on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,
}

#[derive(Subcommand)]
enum Command {
    /// Show everything: three local parties, three keys, real signatures
    Demo(demo::Arguments),
    /// Set up, enrol and look at parties
    #[command(subcommand)]
    Party(party::Command),
    /// Make keys and look at them
    #[command(subcommand)]
    Key(key::Command),
    /// Ask for signatures
    #[command(subcommand)]
    Sign(sign::Command),
    /// Verify attestation documents
    #[command(subcommand)]
    Evidence(evidence::Command),
    /// Export and verify the parties' logs, and certificates of signatures
    #[command(subcommand)]
    Audit(audit::Command),
    /// Certify the identity keys of HSM parties
    #[command(subcommand)]
    Hsm(hsm::Command),
    /// Show for each party whether it is reachable, attested and connected
    Status(status::Arguments),
    /// Look at this client's own configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Witness logs: cosign checkpoints that continue what was seen
    Witness(witness::Arguments),
    /// Measure round trips and signatures
    Bench(bench::Arguments),
    /// Write a completion script for a shell
    #[command(
        after_help = "Examples:\n  arca completions bash > ~/.local/share/bash-completion/completions/arca\n  \
                            arca completions zsh > ~/.zfunc/_arca"
    )]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Run a program that dies with the process PARENT; `arca demo` starts its processes this way
    #[command(hide = true)]
    Tied {
        parent: i32,
        program: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// What every command works with.
struct Context {
    output: Output,
    profile: Option<PathBuf>,
}

impl Context {
    /// Reads the profile. From here on everything printed says whether the cluster is simulated.
    fn profile(&self) -> anyhow::Result<Arc<Profile>> {
        let path = match &self.profile {
            Some(path) => path.clone(),
            None => Profile::default_path()?,
        };
        let profile = Profile::load(&path)?;
        self.output.set_simulated(profile.is_simulated());
        Ok(Arc::new(profile))
    }

    /// Everything printed from here on says whether this cluster is simulated.
    fn mark(&self, cluster: &str) {
        let kind = ClusterKind::of(cluster);
        self.output.set_simulated(kind == ClusterKind::Simulated);
    }

    fn cluster(&self) -> anyhow::Result<Cluster> {
        Ok(Cluster::new(self.profile()?)?)
    }

    /// Connects to one party, or to the first that can be used.
    async fn client(&self, party: Option<&str>) -> anyhow::Result<Client> {
        let cluster = self.cluster()?;
        let connect = async {
            match party {
                Some(party) => cluster.party(party).await,
                None => cluster.any(None).await,
            }
        };
        Ok(self.output.wait("connecting", connect).await?)
    }
}

/// Runs the command that the arguments name.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Command::Tied {
        parent,
        program,
        arguments,
    } = &arguments.command
    {
        let error = arca_client::local::run_tied_to_parent(*parent, program, arguments);
        eprintln!("{}: {error}", program.display());
        return ExitCode::from(exit::OTHER);
    }
    start_tracing();
    let context = Context {
        output: Output::new(arguments.global.output, arguments.global.color),
        profile: arguments.global.profile,
    };
    let outcome = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| match arguments.command {
            // Finishes what is under way when it is asked to stop.
            command @ Command::Witness(_) => runtime.block_on(run(&context, command)),
            command => runtime.block_on(signals::until_interrupted(run(&context, command))),
        });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            context.output.failure(&error);
            ExitCode::from(exit::code(&error))
        }
    }
}

async fn run(context: &Context, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(arguments) => demo::run(context, arguments).await?,
        Command::Party(command) => party::run(context, command).await?,
        Command::Key(command) => key::run(context, command).await?,
        Command::Sign(command) => sign::run(context, command).await?,
        Command::Evidence(command) => evidence::run(context, command)?,
        Command::Audit(command) => return audit::run(context, command).await,
        Command::Hsm(command) => hsm::run(context, command)?,
        Command::Status(arguments) => return status::run(context, arguments).await,
        Command::Config(command) => config::run(context, command)?,
        Command::Witness(arguments) => witness::run(context, arguments).await?,
        Command::Bench(arguments) => bench::run(context, arguments).await?,
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Arguments::command(),
                "arca",
                &mut std::io::stdout(),
            );
        }
        Command::Tied { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Diagnostics on standard error, when `ARCA_LOG` asks for them.
fn start_tracing() {
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("ARCA_LOG") {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command, path: &str) {
            for child in command
                .get_subcommands()
                .filter(|child| !child.is_hide_set())
            {
                let path = format!("{path} {}", child.get_name());
                if child.has_subcommands() {
                    check(child, &path);
                } else {
                    let help = child
                        .get_after_help()
                        .map(ToString::to_string)
                        .unwrap_or_default();
                    assert!(help.contains("Examples:"), "{path} has no examples");
                    assert!(
                        help.contains(&path),
                        "{path}'s examples are of another command"
                    );
                }
            }
        }
        check(&Arguments::command(), "arca");
    }
}
