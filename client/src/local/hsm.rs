//! HSM parties of a local cluster: each with a token of its own in software, made anew, and certified by a root that lives
//! in the cluster's folder.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rand_core::{OsRng, RngCore as _};

use crate::error::{Error, Result};
use crate::hsm::{Authority, Request};
use crate::local::cluster::run;
use crate::local::party::EnclaveProgram;
use crate::party_files::{create_private, quote_path};

/// Names SoftHSM's library.
pub const SOFTHSM_VARIABLE: &str = "ARCA_SOFTHSM";
/// Names Kryoptic's library.
pub const KRYOPTIC_VARIABLE: &str = "ARCA_KRYOPTIC";

/// A PKCS#11 module whose tokens are files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SoftToken {
    /// SoftHSM2.
    SoftHsm(PathBuf),
    /// Kryoptic.
    Kryoptic(PathBuf),
}

impl SoftToken {
    /// SoftHSM, where the variable or the distribution has it.
    ///
    /// # Errors
    /// [`Error::Config`] when it is nowhere.
    pub fn softhsm() -> Result<Self> {
        let usual = ["/usr/lib", "/usr/lib64", "/usr/local/lib"];
        let usual = usual.map(|folder| Path::new(folder).join("softhsm/libsofthsm2.so"));
        find(SOFTHSM_VARIABLE, &usual, "make softhsm").map(Self::SoftHsm)
    }

    /// Kryoptic, where the variable has it.
    ///
    /// # Errors
    /// [`Error::Config`] when it is not there.
    pub fn kryoptic() -> Result<Self> {
        find(KRYOPTIC_VARIABLE, &[], "make kryoptic").map(Self::Kryoptic)
    }

    fn library(&self) -> &Path {
        match self {
            Self::SoftHsm(library) | Self::Kryoptic(library) => library,
        }
    }

    /// The module's configuration, and the variable that names it.
    fn settings(&self, tokens: &Path) -> (&'static str, String) {
        match self {
            Self::SoftHsm(_) => (
                "SOFTHSM2_CONF",
                format!(
                    "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
                    tokens.display()
                ),
            ),
            Self::Kryoptic(_) => (
                "KRYOPTIC_CONF",
                format!(
                    "[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = {}\n",
                    quote_path(&tokens.join("token.sql"))
                ),
            ),
        }
    }
}

fn find(variable: &str, usual: &[PathBuf], remedy: &str) -> Result<PathBuf> {
    let told = std::env::var_os(variable).filter(|told| !told.is_empty());
    let places = match told {
        Some(told) => vec![PathBuf::from(told)],
        None => usual.to_vec(),
    };
    places
        .into_iter()
        .find(|place| place.is_file())
        .ok_or_else(|| {
            Error::config(
                variable,
                "names no PKCS#11 module, and none is where it usually is",
                format!("run `{remedy}`, or set {variable} to the module's library"),
            )
        })
}

/// Makes a party's token, its keys in it and their certificate, and writes its `enclave.toml`.
///
/// `simulated_root`: for a cluster that has parties on a simulated NSM too.
pub(super) fn set_up(
    token: &SoftToken,
    program: &Path,
    simulated_root: Option<&Path>,
    (cluster, party): (&str, &str),
    authority: &Authority,
    folder: &Path,
    presignatures: Option<u32>,
) -> Result<EnclaveProgram> {
    let failed = |path: &Path, cause: std::io::Error| {
        Error::config(path.display(), cause, "name another folder")
    };
    let hardware = folder.join("hardware");
    let tokens = hardware.join("tokens");
    create_private(&tokens)?;
    let (variable, settings) = token.settings(&tokens);
    let settings_file = hardware.join("module.conf");
    fs::write(&settings_file, settings).map_err(|cause| failed(&settings_file, cause))?;
    let (pin, so_pin) = (hardware.join("pin"), hardware.join("so-pin"));
    for file in [&pin, &so_pin] {
        let mut random = [0; 8];
        OsRng.fill_bytes(&mut random);
        let mut private = fs::OpenOptions::new();
        let private = private.write(true).create_new(true).mode(0o600);
        private
            .open(file)
            .and_then(|mut file| file.write_all(hex::encode(random).as_bytes()))
            .map_err(|cause| failed(file, cause))?;
    }
    let chain = hardware.join("chain.pem");
    let config = folder.join("enclave.toml");
    let library =
        fs::canonicalize(token.library()).map_err(|cause| failed(token.library(), cause))?;
    let beside = library.parent().unwrap_or_else(|| Path::new("/"));
    let text = format!(
        "# Enclave of party {party}, its keys in a token in SOFTWARE: nothing here is protected by hardware.\n\
         module = {}\ntoken = {{ label = \"arca-{party}\" }}\npin = {{ file = {} }}\ncertificates = [{}]\nsockets = {}\n\
         {}\n[module_needs]\nread = [{}]\nwrite = [{}]\n",
        quote_path(&library),
        quote_path(&pin),
        quote_path(&chain),
        quote_path(&folder.join("run")),
        presignatures.map_or_else(String::new, |count| format!("presignatures = {count}\n")),
        quote_path(beside),
        quote_path(&hardware),
    );
    fs::write(&config, text).map_err(|cause| failed(&config, cause))?;

    let environment = vec![format!("{variable}={}", settings_file.display())];
    let config = config.to_string_lossy();
    let arguments: Vec<String> = simulated_root
        .map(|root| {
            [
                "--simulated-root".to_owned(),
                root.to_string_lossy().into_owned(),
            ]
        })
        .into_iter()
        .flatten()
        .collect();
    let call = |more: &[&str]| {
        let mut line: Vec<&str> = environment.iter().map(String::as_str).collect();
        let program = program.to_string_lossy();
        line.push(&program);
        line.extend(arguments.iter().map(String::as_str));
        line.extend(["--config", &config]);
        line.extend(more);
        run(Path::new("/usr/bin/env"), &line)
    };
    call(&["make-token", "--so-pin", &so_pin.to_string_lossy()])?;
    call(&["init"])?;
    let request = call(&["request", "--cluster", cluster, "--party", party])?;
    let certified = authority.certify(&Request::parse(&request)?, 180)?;
    fs::write(&chain, certified.chain).map_err(|cause| failed(&chain, cause))?;
    Ok(EnclaveProgram {
        program: program.to_owned(),
        arguments,
        environment,
    })
}
