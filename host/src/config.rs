//! Configuration: one TOML file per host, checked as a whole before anything starts.

mod archive;
mod document;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arca_audit::note::VerifierKey;

use crate::sockets::STORAGE_SOCKET;

/// A configuration file with every field explained, its optional ones commented out at their defaults.
pub const EXAMPLE: &str = include_str!("../host.toml");

/// What a host needs to know. Read it with [`Config::load`]; the values are then within their bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of the party whose enclave this host serves.
    pub party: String,
    /// TCP address for clients and peers; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How host and enclave reach each other.
    pub transport: Transport,
    /// Peers' addresses (`host:port`) by name.
    pub peers: BTreeMap<String, String>,
    /// Where blobs go.
    pub storage: StorageConfig,
    /// Where the audit log goes.
    pub archive: ArchiveConfig,
    /// Who is asked to cosign the audit log's checkpoints.
    pub witnesses: Vec<WitnessConfig>,
    /// For an enclave that seals under AWS KMS; none, no relay to KMS and no credentials.
    pub kms: Option<KmsConfig>,
    /// HTTP address of `/metrics`, `/healthz` and `/readyz`; none, no listener.
    pub metrics: Option<SocketAddr>,
    /// Bounds on what the network may take.
    pub limits: Limits,
}

/// How host and enclave reach each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Unix sockets in this folder.
    Unix(PathBuf),
    /// The enclave is a machine of its own.
    Vsock(VsockConfig),
}

/// The enclave as a machine, and the ports of both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VsockConfig {
    /// The enclave's context id. Connections from any other are closed.
    pub cid: u32,
    /// Where the enclave listens.
    pub enclave_port: u32,
    /// Where the host listens for storage, metrics and credentials.
    pub storage_port: u32,
    /// Where the host listens for dial requests.
    pub dial_port: u32,
    /// Where the host listens for connections to KMS.
    pub kms_port: u32,
}

/// AWS KMS, for an enclave that seals under a key there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsConfig {
    /// The key's region. The host uses it for the endpoint's name alone; the enclave has its own.
    pub region: String,
    /// Where the enclave's connections are relayed to, as `host:port`.
    pub endpoint: String,
    /// Where credentials are read from, anew for each request.
    pub credentials: CredentialSource,
}

/// Where AWS credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// A profile of a file in the format of AWS' shared credentials file.
    File {
        /// The file, closed to other accounts.
        path: PathBuf,
        /// The section.
        profile: String,
    },
    /// The role of the EC2 instance, from its metadata service.
    Instance {
        /// `host:port` of the metadata service.
        address: String,
    },
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(folder) => folder.display().fmt(f),
            Self::Vsock(vsock) => write!(f, "vsock {}", vsock.cid),
        }
    }
}

/// Where blobs go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageConfig {
    /// The redb file; made if there is none.
    pub path: PathBuf,
    /// Bytes of names and blobs beyond which puts are refused.
    pub quota_bytes: u64,
}

/// Where the audit log goes, and how soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveConfig {
    /// A folder or a bucket.
    pub place: ArchivePlace,
    /// A checkpoint is published once no entry has come for so long,
    pub quiet: Duration,
    /// or when the one before it is that old.
    pub every: Duration,
}

/// Where the audit log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchivePlace {
    /// A folder; made if there is none.
    Folder(PathBuf),
    /// An S3-compatible bucket.
    Bucket(BucketConfig),
}

/// An S3-compatible bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketConfig {
    /// Its name.
    pub bucket: String,
    /// Before the names of all objects, without slashes at its ends; may be empty.
    pub prefix: String,
    /// `http://` or `https://` and the server; none for AWS.
    pub endpoint: Option<String>,
    /// The region; servers other than AWS' mostly take any.
    pub region: String,
    /// With what requests are signed.
    pub credentials: BucketCredentials,
}

impl BucketConfig {
    /// `s3://bucket/prefix`.
    pub fn url(&self) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("s3://{}{slash}{}", self.bucket, self.prefix)
    }
}

/// With what requests to a bucket are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BucketCredentials {
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, if set, `AWS_SESSION_TOKEN`, as they are at the start.
    Environment,
    /// Read anew for each request.
    Source(CredentialSource),
}

/// An external witness, which speaks C2SP tlog-witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessConfig {
    /// What `/add-checkpoint` is appended to.
    pub url: String,
    /// Its name and public key: `name+id+key`.
    pub key: VerifierKey,
    /// Least time between two checkpoints that it is shown.
    pub every: Duration,
}

/// Bounds on what the network may take. [`Limits::default`] is what an empty `[limits]` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Inbound connections open at once.
    pub max_connections: usize,
    /// Inbound connections open at once from one IPv4 address or IPv6 /64.
    pub max_connections_per_address: usize,
    /// New inbound connections per second.
    pub accepts_per_second: u32,
    /// New inbound connections per second from one IPv4 address or IPv6 /64.
    pub accepts_per_second_per_address: u32,
    /// From connecting to the first byte.
    pub first_byte: Duration,
    /// Without a byte in either direction.
    pub idle: Duration,
    /// Without a byte after one side has said that it is done.
    pub half_closed: Duration,
    /// Per connection and direction; none, no limit.
    pub bytes_per_second: Option<u64>,
    /// Outbound connections open at once.
    pub max_dials: usize,
    /// To resolve and connect to a peer.
    pub dial: Duration,
    /// At shutdown, for connections that are in use.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_connections_per_address: 256,
            accepts_per_second: 200,
            accepts_per_second_per_address: 100,
            first_byte: Duration::from_secs(10),
            idle: Duration::from_secs(900),
            half_closed: Duration::from_secs(10),
            bytes_per_second: None,
            max_dials: 256,
            dial: Duration::from_secs(5),
            drain: Duration::from_secs(10),
        }
    }
}

/// Why a configuration is refused: where, what, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1; none when the file could not be read.
    pub line: Option<usize>,
    /// Field with its section, such as `limits.idle_seconds`; empty when no single field is to blame.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}. {}", self.problem, self.remedy)
    }
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            file: file.to_owned(),
            line: None,
            field: String::new(),
            problem: format!("cannot be read: {error}"),
            remedy: "`arca-host config example` prints a file to start from".to_owned(),
        })?;
        Self::from_toml(&text, file)
    }

    /// Checks a configuration that is already in memory; `file` is for messages, and relative paths count
    /// from its folder.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn from_toml(text: &str, file: &Path) -> Result<Self, ConfigError> {
        document::read(text, file)
    }
}

/// The configuration as TOML with every field in it.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits {
            max_connections,
            max_connections_per_address,
            accepts_per_second,
            accepts_per_second_per_address,
            first_byte,
            idle,
            half_closed,
            bytes_per_second,
            max_dials,
            dial,
            drain,
        } = &self.limits;
        writeln!(f, "party = {}", quoted(&self.party))?;
        writeln!(f, "listen = \"{}\"", self.listen)?;
        if let Transport::Unix(folder) = &self.transport {
            writeln!(f, "sockets = {}", quoted(&folder.to_string_lossy()))?;
        }
        writeln!(f, "\n[peers]")?;
        for (name, address) in &self.peers {
            writeln!(f, "{name} = {}", quoted(address))?;
        }
        writeln!(f, "\n[storage]")?;
        writeln!(f, "path = {}", quoted(&self.storage.path.to_string_lossy()))?;
        writeln!(f, "quota_bytes = {}", self.storage.quota_bytes)?;
        self.show_archive(f)?;
        if let Transport::Vsock(vsock) = &self.transport {
            writeln!(f, "\n[vsock]")?;
            writeln!(f, "cid = {}", vsock.cid)?;
            writeln!(f, "enclave_port = {}", vsock.enclave_port)?;
            writeln!(f, "storage_port = {}", vsock.storage_port)?;
            writeln!(f, "dial_port = {}", vsock.dial_port)?;
            writeln!(f, "kms_port = {}", vsock.kms_port)?;
        }
        if let Some(kms) = &self.kms {
            writeln!(f, "\n[kms]")?;
            writeln!(f, "region = {}", quoted(&kms.region))?;
            writeln!(f, "endpoint = {}", quoted(&kms.endpoint))?;
            show_source(&kms.credentials, f)?;
        }
        for WitnessConfig { url, key, every } in &self.witnesses {
            writeln!(f, "\n[[witness]]\nurl = {}", quoted(url))?;
            writeln!(f, "vkey = {}", quoted(&key.to_string()))?;
            writeln!(f, "every_seconds = {}", every.as_secs())?;
        }
        if let Some(metrics) = self.metrics {
            writeln!(f, "\n[metrics]\nlisten = \"{metrics}\"")?;
        }
        writeln!(f, "\n[limits]")?;
        writeln!(f, "max_connections = {max_connections}")?;
        writeln!(
            f,
            "max_connections_per_address = {max_connections_per_address}"
        )?;
        writeln!(f, "accepts_per_second = {accepts_per_second}")?;
        writeln!(
            f,
            "accepts_per_second_per_address = {accepts_per_second_per_address}"
        )?;
        writeln!(f, "first_byte_seconds = {}", first_byte.as_secs())?;
        writeln!(f, "idle_seconds = {}", idle.as_secs())?;
        writeln!(f, "half_closed_seconds = {}", half_closed.as_secs())?;
        match bytes_per_second {
            Some(bytes) => writeln!(f, "bytes_per_second = {bytes}")?,
            None => writeln!(f, "# bytes_per_second: no limit")?,
        }
        writeln!(f, "max_dials = {max_dials}")?;
        writeln!(f, "dial_seconds = {}", dial.as_secs())?;
        writeln!(f, "drain_seconds = {}", drain.as_secs())
    }
}

impl Config {
    fn show_archive(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n[archive]")?;
        match &self.archive.place {
            ArchivePlace::Folder(folder) => {
                writeln!(f, "folder = {}", quoted(&folder.to_string_lossy()))?;
            }
            ArchivePlace::Bucket(bucket) => {
                writeln!(f, "url = {}", quoted(&bucket.url()))?;
                match &bucket.endpoint {
                    Some(endpoint) => writeln!(f, "endpoint = {}", quoted(endpoint))?,
                    None => writeln!(f, "# endpoint: AWS")?,
                }
                writeln!(f, "region = {}", quoted(&bucket.region))?;
                match &bucket.credentials {
                    BucketCredentials::Environment => {
                        writeln!(f, "credentials = \"environment\"")?;
                    }
                    BucketCredentials::Source(source) => show_source(source, f)?,
                }
            }
        }
        writeln!(f, "quiet_seconds = {}", self.archive.quiet.as_secs())?;
        writeln!(f, "every_seconds = {}", self.archive.every.as_secs())
    }
}

fn show_source(source: &CredentialSource, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match source {
        CredentialSource::File { path, profile } => {
            writeln!(f, "credentials = \"file\"")?;
            writeln!(f, "file = {}", quoted(&path.to_string_lossy()))?;
            writeln!(f, "profile = {}", quoted(profile))
        }
        CredentialSource::Instance { address } => {
            writeln!(f, "credentials = \"imds\"")?;
            writeln!(f, "imds = {}", quoted(address))
        }
    }
}

fn quoted(text: &str) -> toml::Value {
    toml::Value::String(text.to_owned())
}

/// Longest path of a Unix socket on Linux (`sun_path` of unix(7), with its closing zero).
const MAX_SOCKET_PATH: usize = 107;

/// Longest folder of sockets for which every socket's path fits.
const MAX_SOCKETS_FOLDER: usize = MAX_SOCKET_PATH - 1 - STORAGE_SOCKET.len();
