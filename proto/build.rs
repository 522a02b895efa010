//! Compiles the `.proto` files with protox, so that no `protoc` is needed.

use std::path::PathBuf;

use prost::Message;

const FILES: [&str; 9] = [
    "arca/v1/audit.proto",
    "arca/v1/channel.proto",
    "arca/v1/host.proto",
    "arca/v1/keys.proto",
    "arca/v1/operations.proto",
    "arca/v1/parties.proto",
    "arca/v1/peers.proto",
    "arca/v1/sealing.proto",
    "arca/v1/signing.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=arca");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("arca.v1.bin"), descriptors.encode_to_vec())?;
    // Written by hand in src/lib.rs, without the secrets.
    tonic_prost_build::configure()
        .skip_debug(["arca.v1.GetCredentialsResponse"])
        .compile_fds(descriptors)?;
    Ok(())
}
