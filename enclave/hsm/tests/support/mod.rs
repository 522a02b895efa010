//! Tokens of real modules in folders of their own, the tests' authority, and processes of their own.
//!
//! A process initialises PKCS#11 once and reads its settings from the environment, so every scenario runs in a child
//! of the test: the same test program, told by the environment what to do.

use std::{
    fs,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    str::FromStr as _,
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arca_attestation::TrustAnchors;
use arca_enclave_hsm::{Config, HsmError, HsmPlatform};
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    session::{Session, UserType},
    slot::Slot,
    types::AuthPin,
};
use der::{Decode as _, DecodePem as _, Encode as _, EncodePem as _, asn1::GeneralizedTime};
use p384::ecdsa::{DerSignature, SigningKey};
use rand_core::OsRng;
use spki::SubjectPublicKeyInfoOwned;
use tempfile::TempDir;
use x509_cert::{
    Certificate,
    builder::{Builder as _, CertificateBuilder, Profile},
    name::Name,
    request::CertReq,
    serial_number::SerialNumber,
    time::{Time, Validity},
};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_arca-enclave-hsm");
pub const LABEL: &str = "arca-test";
pub const PIN: &str = "4321abcd";
const SO_PIN: &str = "12345678";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    SoftHsm,
    Kryoptic,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::SoftHsm => "softhsm",
            Self::Kryoptic => "kryoptic",
        }
    }

    /// The module, from the variable that `make test` sets, or where it usually is. Without one there is nothing to
    /// test: `ARCA_SOFTHSM=none` says that this is known.
    pub fn module(self) -> Option<PathBuf> {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools");
        let (variable, places) = match self {
            Self::SoftHsm => (
                "ARCA_SOFTHSM",
                vec![
                    "/usr/lib/softhsm/libsofthsm2.so".into(),
                    "/usr/lib64/softhsm/libsofthsm2.so".into(),
                    "/usr/local/lib/softhsm/libsofthsm2.so".into(),
                ],
            ),
            Self::Kryoptic => (
                "ARCA_KRYOPTIC",
                vec![tools.join("kryoptic/libkryoptic_pkcs11.so")],
            ),
        };
        let told = std::env::var(variable).unwrap_or_default();
        if told == "none" {
            eprintln!("{variable}=none: NOT TESTED on {}", self.name());
            return None;
        }
        let places = if told.is_empty() {
            places
        } else {
            vec![told.into()]
        };
        let found = places.into_iter().find(|place: &PathBuf| place.is_file());
        assert!(
            found.is_some(),
            "no module for the tests on {0}: `make {0}` gets it, and {variable} names it ({variable}=none: do without)",
            self.name()
        );
        found
    }
}

/// A test for each module, each with a token and a process of its own.
#[macro_export]
macro_rules! scenario {
    ($(#[$about:meta])* $name:ident, $body:expr) => {
        $(#[$about])*
        mod $name {
            use super::*;

            #[test]
            fn softhsm() {
                support::run(support::Kind::SoftHsm, concat!(stringify!($name), "::inside"));
            }

            #[test]
            fn kryoptic() {
                support::run(support::Kind::Kryoptic, concat!(stringify!($name), "::inside"));
            }

            #[test]
            #[ignore = "runs in a child process of the other two"]
            fn inside() {
                if let Some(world) = support::World::here() {
                    let body: fn(support::World) = $body;
                    body(world);
                }
            }
        }
    };
}

const KIND: &str = "ARCA_TEST_KIND";
const FOLDER: &str = "ARCA_TEST_FOLDER";

/// Runs one scenario in a child process, on a fresh token.
pub fn run(kind: Kind, test: &str) {
    let Some(module) = kind.module() else { return };
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["tokens", "sockets", "certificates"] {
        fs::create_dir(at(name)).unwrap();
    }
    let settings = match kind {
        Kind::SoftHsm => format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            at("tokens").display()
        ),
        Kind::Kryoptic => format!(
            "[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n",
            at("tokens/token.sql").display()
        ),
    };
    fs::write(at("module.conf"), settings).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(KIND, kind.name())
        .env(FOLDER, folder.path())
        .env("SOFTHSM2_CONF", at("module.conf"))
        .env("KRYOPTIC_CONF", at("module.conf"))
        .env("ARCA_SHIM_MODULE", module)
        .env("ARCA_SHIM_TRIGGER", at("trigger"))
        .env("ARCA_SHIM_LOGINS", at("logins"))
        .env_remove("ARCA_LOG")
        .output()
        .unwrap();
    let (out, err) = (text(&child.stdout), text(&child.stderr));
    assert!(
        child.status.success() && out.contains("1 passed"),
        "{test} on {kind:?}: {}\n{out}\n{err}",
        child.status
    );
}

/// Inside the child.
pub struct World {
    pub kind: Kind,
    pub folder: PathBuf,
}

impl World {
    pub fn here() -> Option<Self> {
        let kind = match std::env::var(KIND).ok()?.as_str() {
            "softhsm" => Kind::SoftHsm,
            _ => Kind::Kryoptic,
        };
        Some(Self {
            kind,
            folder: std::env::var(FOLDER).ok()?.into(),
        })
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Does something with the module alone in this process: C_Initialize before, C_Finalize after.
    pub fn with_module<T>(&self, work: impl FnOnce(&Pkcs11) -> T) -> T {
        let pkcs11 = Pkcs11::new(self.kind.module().unwrap()).unwrap();
        pkcs11
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .unwrap();
        let done = work(&pkcs11);
        pkcs11.finalize().unwrap();
        done
    }

    /// Initialises a token of this label.
    pub fn make_token(&self, label: &str) {
        self.with_module(|pkcs11| {
            let mut slots = pkcs11.get_slots_with_token().unwrap().into_iter();
            let free = |slot: &Slot| !pkcs11.get_token_info(*slot).unwrap().token_initialized();
            let slot = slots.find(free).unwrap();
            let so: AuthPin = SO_PIN.to_owned().into();
            pkcs11.init_token(slot, &so, label).unwrap();
            // SoftHSM gives the token another slot.
            let slot = slot_of(pkcs11, label);
            let session = pkcs11.open_rw_session(slot).unwrap();
            session.login(UserType::So, Some(&so)).unwrap();
            session.init_pin(&PIN.to_owned().into()).unwrap();
        });
    }

    /// A logged-in session that can write.
    pub fn with_session<T>(&self, work: impl FnOnce(&Session) -> T) -> T {
        self.with_module(|pkcs11| {
            let session = pkcs11.open_rw_session(slot_of(pkcs11, LABEL)).unwrap();
            let pin: AuthPin = PIN.to_owned().into();
            session.login(UserType::User, Some(&pin)).unwrap();
            work(&session)
        })
    }

    pub fn write_pin(&self, pin: &str, mode: u32) {
        let path = self.at("pin");
        let _ = fs::remove_file(&path);
        let mut file = fs::OpenOptions::new();
        let file = file.write(true).create_new(true).mode(mode).open(path);
        std::io::Write::write_all(&mut file.unwrap(), pin.as_bytes()).unwrap();
    }

    /// Writes the configuration, with lines of the test's own.
    pub fn configure(&self, module: &Path, lines: &str) -> PathBuf {
        let file = self.at("enclave.toml");
        // What the shim loads.
        let real = self.kind.module().unwrap();
        let real = real.parent().unwrap().canonicalize().unwrap();
        let text = format!(
            "module = '{}'\ntoken = {{ label = '{LABEL}' }}\npin = {{ file = 'pin' }}\nsockets = 'sockets'\n\
             certificates = ['certificates']\n{lines}\n[module_needs]\nread = ['{}']\nwrite = ['.']\n",
            module.display(),
            real.display()
        );
        fs::write(&file, text).unwrap();
        file
    }

    pub fn program(&self, arguments: &[&str]) -> Output {
        Command::new(PROGRAM)
            .arg("--config")
            .arg(self.at("enclave.toml"))
            .args(arguments)
            .output()
            .unwrap()
    }

    /// Token, PIN, configuration, keys and certificates: a party that can start.
    pub fn party(&self, module: &Path, lines: &str) -> Config {
        self.make_token(LABEL);
        self.write_pin(&format!("{PIN}\n"), 0o600);
        let file = self.configure(module, lines);
        let made = self.program(&["init"]);
        assert!(made.status.success(), "{}", text(&made.stderr));
        self.certify();
        Config::load(&file).unwrap()
    }

    /// As [`party`](Self::party), on the module itself.
    pub fn plain_party(&self) -> Config {
        self.party(&self.kind.module().unwrap(), "")
    }

    pub fn certify(&self) {
        let request = self.program(&["request", "--cluster", "demo", "--party", "ceo"]);
        assert!(request.status.success(), "{}", text(&request.stderr));
        let request = CertReq::from_pem(&request.stdout).unwrap();
        certify(&request.info.public_key, &self.at("certificates"));
    }

    /// The module behind the shim, and a call timeout of two seconds.
    pub fn shimmed_party(&self) -> Config {
        self.party(&shim(), "call_timeout_seconds = 2\nsessions = 2\n")
    }

    /// Tells the shim what to do from now on.
    pub fn trigger(&self, what: Option<&str>) {
        let path = self.at("trigger");
        match what {
            // Whole, or not at all: the shim reads it at any time.
            Some(what) => {
                fs::write(self.at("trigger.new"), what).unwrap();
                fs::rename(self.at("trigger.new"), path).unwrap();
            }
            None => {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// How often a PIN was tried through the shim.
    pub fn logins(&self) -> usize {
        fs::read(self.at("logins")).map_or(0, |tries| tries.len())
    }
}

pub fn slot_of(pkcs11: &Pkcs11, label: &str) -> Slot {
    let slots = pkcs11.get_slots_with_token().unwrap();
    let mut slots = slots.into_iter();
    let named = |slot: &Slot| pkcs11.get_token_info(*slot).unwrap().label().trim() == label;
    slots.find(named).unwrap()
}

/// A runtime as the program has it.
pub fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().unwrap()
}

pub async fn start(config: &Config) -> Result<HsmPlatform, HsmError> {
    HsmPlatform::start(config, config.pin.read()?, TrustAnchors::production()).await
}

/// Compiles the shim, once a process.
pub fn shim() -> PathBuf {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
        let library = folder.join("libshim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/shim.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .output()
            .expect("cc compiles the shim");
        assert!(compiled.status.success(), "{}", text(&compiled.stderr));
        library
    })
    .clone()
}

/// Waits until `probe` gives something, for at most 20 seconds.
pub async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let waited = async {
        loop {
            tick.tick().await;
            if let Some(found) = probe().await {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited)
        .await
        .unwrap_or_else(|_| panic!("not within 20 s: {what}"))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Root and leaf as an organisation's authority would make them.
pub fn certify(key: &SubjectPublicKeyInfoOwned, folder: &Path) {
    let authority = SigningKey::random(&mut OsRng);
    let root_name = Name::from_str("CN=HSM root,O=Example").unwrap();
    let public = SubjectPublicKeyInfoOwned::from_key(*authority.verifying_key()).unwrap();
    let root = certificate(Profile::Root, &root_name, public, &authority);
    let leaf = Profile::Leaf {
        issuer: root_name,
        enable_key_agreement: false,
        enable_key_encipherment: false,
    };
    let subject = Name::from_str("CN=ceo").unwrap();
    let leaf = certificate(leaf, &subject, key.clone(), &authority);
    // One in PEM, one in DER: both are read.
    let pem = leaf.to_pem(der::pem::LineEnding::LF).unwrap();
    fs::write(folder.join("leaf.pem"), pem).unwrap();
    fs::write(folder.join("root.der"), root.to_der().unwrap()).unwrap();
}

fn certificate(
    profile: Profile,
    subject: &Name,
    key: SubjectPublicKeyInfoOwned,
    authority: &SigningKey,
) -> Certificate {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let time = |at| Time::GeneralTime(GeneralizedTime::from_unix_duration(at).unwrap());
    let day = Duration::from_secs(24 * 60 * 60);
    let validity = Validity {
        not_before: time(now - day),
        not_after: time(now + day),
    };
    let serial = SerialNumber::new(&[1]).unwrap();
    CertificateBuilder::new(profile, serial, validity, subject.clone(), key, authority)
        .unwrap()
        .build::<DerSignature>()
        .unwrap()
}

pub fn root_of(folder: &Path) -> Vec<u8> {
    let der = fs::read(folder.join("root.der")).unwrap();
    Certificate::from_der(&der).unwrap().to_der().unwrap()
}
