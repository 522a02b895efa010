//! `arca-enclave-hsm-simulated`: the HSM platform in a simulated cluster, beside parties on a local NSM.

#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use arca_attestation::TrustAnchors;
use arca_enclave_hsm::cli;
use clap::Parser;

const EXAMPLES: &str = "\
Examples:
  arca-enclave-hsm-simulated --simulated-root root.der --config enclave.toml    run until SIGTERM or SIGINT

Everything else is as with arca-enclave-hsm, which serves production, and simulated clusters of HSM parties alone.
";

/// One party's enclave with its keys in an HSM, in a SIMULATED cluster: it accepts peers on a local NSM, whose evidence
/// anybody with that NSM's key can make. For development, tests and drills.
#[derive(Debug, Parser)]
#[command(
    name = "arca-enclave-hsm-simulated",
    version,
    after_help = format!("{EXAMPLES}\n{}", cli::EXIT_CODES)
)]
struct Arguments {
    /// The root of the simulated cluster's local NSM: root.der.
    #[arg(long, value_name = "FILE")]
    simulated_root: PathBuf,

    #[command(flatten)]
    common: cli::Common,
}

fn main() -> ExitCode {
    let Arguments {
        simulated_root,
        common,
    } = Arguments::parse();
    let anchors = std::fs::read(&simulated_root)
        .with_context(|| simulated_root.display().to_string())
        .and_then(|root| {
            TrustAnchors::simulated(&root).with_context(|| simulated_root.display().to_string())
        });
    cli::main("arca-enclave-hsm-simulated", anchors, common)
}
