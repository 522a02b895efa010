//! `arca-enclave-hsm`: an enclave whose party's keys are in a PKCS#11 token.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use arca_attestation::TrustAnchors;
use arca_enclave_hsm::cli;
use clap::Parser;

const EXAMPLES: &str = "\
Examples:
  arca-enclave-hsm config example > enclave.toml                   a file with every field explained
  arca-enclave-hsm --config enclave.toml probe                     can this module and token do it?
  arca-enclave-hsm --config enclave.toml init                      make the party's keys in the token, once
  arca-enclave-hsm --config enclave.toml request --cluster treasury --party ceo > ceo.csr
  arca-enclave-hsm --config enclave.toml config check              say what is wrong with a file
  arca-enclave-hsm --config enclave.toml                           run until SIGTERM or SIGINT
";

/// One party's enclave with its keys in an HSM, through the vendor's PKCS#11 library.
///
/// The token keeps the keys from being copied. It does not attest which program uses them.
#[derive(Debug, Parser)]
#[command(
    name = "arca-enclave-hsm",
    version,
    after_help = format!("{EXAMPLES}\n{}", cli::EXIT_CODES)
)]
struct Arguments {
    #[command(flatten)]
    common: cli::Common,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::main(
        "arca-enclave-hsm",
        Ok(TrustAnchors::production()),
        arguments.common,
    )
}
