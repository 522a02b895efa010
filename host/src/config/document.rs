//! From the text of the file to a checked [`Config`], with the line of whatever is wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::archive::{ArchiveTable, WitnessTable};
use super::{
    Config, ConfigError, CredentialSource, KmsConfig, Limits, MAX_SOCKETS_FOLDER, StorageConfig,
    Transport, VsockConfig,
};

const DEFAULT_QUOTA: u64 = 1024 * 1024 * 1024;
/// One buffer of the forwarder per second.
const MIN_BYTES_PER_SECOND: u64 = 17 * 1024;
/// Ports of a vsock, when none are given. The enclave's defaults are the same.
const VSOCK_PORTS: [u32; 4] = [7001, 7002, 7003, 7004];
/// Lower ones are the hypervisor's, this machine's loopback and this machine.
const LEAST_ENCLAVE_CID: u64 = 3;
/// Where EC2 instances find their metadata.
const IMDS: &str = "169.254.169.254:80";
/// As in the manifest.
const MAX_NAME: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    party: Option<Spanned<String>>,
    listen: Option<Spanned<String>>,
    sockets: Option<Spanned<PathBuf>>,
    #[serde(default)]
    peers: BTreeMap<Spanned<String>, Spanned<String>>,
    storage: Option<Spanned<StorageTable>>,
    vsock: Option<Spanned<VsockTable>>,
    archive: Option<Spanned<ArchiveTable>>,
    #[serde(default)]
    witness: Vec<Spanned<WitnessTable>>,
    kms: Option<Spanned<KmsTable>>,
    metrics: Option<Spanned<MetricsTable>>,
    #[serde(default)]
    limits: LimitsTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StorageTable {
    path: Option<Spanned<PathBuf>>,
    quota_bytes: Option<Spanned<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VsockTable {
    cid: Option<Spanned<u64>>,
    enclave_port: Option<Spanned<u64>>,
    storage_port: Option<Spanned<u64>>,
    dial_port: Option<Spanned<u64>>,
    kms_port: Option<Spanned<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KmsTable {
    region: Option<Spanned<String>>,
    endpoint: Option<Spanned<String>>,
    credentials: Option<Spanned<String>>,
    file: Option<Spanned<PathBuf>>,
    profile: Option<Spanned<String>>,
    imds: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricsTable {
    listen: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsTable {
    max_connections: Option<Spanned<u64>>,
    max_connections_per_address: Option<Spanned<u64>>,
    accepts_per_second: Option<Spanned<u64>>,
    accepts_per_second_per_address: Option<Spanned<u64>>,
    first_byte_seconds: Option<Spanned<u64>>,
    idle_seconds: Option<Spanned<u64>>,
    half_closed_seconds: Option<Spanned<u64>>,
    bytes_per_second: Option<Spanned<u64>>,
    max_dials: Option<Spanned<u64>>,
    dial_seconds: Option<Spanned<u64>>,
    drain_seconds: Option<Spanned<u64>>,
}

/// Parses and checks.
pub(super) fn read(text: &str, file: &Path) -> Result<Config, ConfigError> {
    let source = Source { text, file };
    let document: Document = toml::from_str(text).map_err(|error| source.syntax(&error))?;
    let party = source.required("party", document.party, 0..0)?;
    source.check_name("party", &party)?;
    let party = party.into_inner();
    let listen = source.required("listen", document.listen, 0..0)?;
    let storage = source.storage(source.required("storage", document.storage, 0..0)?)?;
    Ok(Config {
        peers: source.peers(&party, document.peers)?,
        archive: source.archive(document.archive, &storage, &party)?,
        witnesses: source.witnesses(document.witness)?,
        party,
        listen: source.address("listen", &listen)?,
        transport: source.transport(document.sockets, document.vsock)?,
        storage,
        kms: document.kms.map(|kms| source.kms(kms)).transpose()?,
        metrics: document
            .metrics
            .map(|metrics| source.metrics(metrics))
            .transpose()?,
        limits: source.limits(&document.limits)?,
    })
}

/// Where credentials are read from, in a section that has more.
pub(super) struct SourceTable {
    pub section: &'static str,
    pub file: Option<Spanned<PathBuf>>,
    pub profile: Option<Spanned<String>>,
    pub imds: Option<Spanned<String>>,
}

/// The text, for finding lines, and the file's name.
pub(super) struct Source<'a> {
    text: &'a str,
    file: &'a Path,
}

impl Source<'_> {
    fn peers(
        &self,
        party: &str,
        peers: BTreeMap<Spanned<String>, Spanned<String>>,
    ) -> Result<BTreeMap<String, String>, ConfigError> {
        let mut checked = BTreeMap::new();
        for (name, address) in peers {
            let field = format!("peers.{}", name.get_ref());
            self.check_name(&field, &name)?;
            if name.get_ref() == party {
                return Err(self.wrong(&field, name.span(), "is this party itself".into()));
            }
            checked.insert(name.into_inner(), self.host_and_port(&field, address)?);
        }
        Ok(checked)
    }

    fn storage(&self, table: Spanned<StorageTable>) -> Result<StorageConfig, ConfigError> {
        let span = table.span();
        let StorageTable { path, quota_bytes } = table.into_inner();
        let path = self.required("storage.path", path, span)?;
        if path.get_ref().file_name().is_none() {
            return Err(self.wrong("storage.path", path.span(), "is no file".into()));
        }
        Ok(StorageConfig {
            path: self.resolve(path.get_ref()),
            quota_bytes: self
                .number(
                    "storage.quota_bytes",
                    quota_bytes.as_ref(),
                    1..=u64::MAX / 4,
                )?
                .unwrap_or(DEFAULT_QUOTA),
        })
    }

    fn transport(
        &self,
        sockets: Option<Spanned<PathBuf>>,
        vsock: Option<Spanned<VsockTable>>,
    ) -> Result<Transport, ConfigError> {
        let Some(vsock) = vsock else {
            let sockets = self.required("sockets", sockets, 0..0)?;
            return self.sockets(sockets).map(Transport::Unix);
        };
        let span = vsock.span();
        if let Some(sockets) = sockets {
            let problem = "is set, and [vsock] is there too".into();
            return Err(self.wrong("sockets", sockets.span(), problem));
        }
        let table = vsock.into_inner();
        let cid = self.required("vsock.cid", table.cid, span.clone())?;
        let most = u64::from(u32::MAX);
        let in_range = |field, value: Option<&Spanned<u64>>, range| {
            let value = self.number(field, value, range)?;
            Ok::<_, ConfigError>(value.and_then(|value| u32::try_from(value).ok()))
        };
        let cid = in_range("vsock.cid", Some(&cid), LEAST_ENCLAVE_CID..=most - 1)?;
        let mut ports = VSOCK_PORTS;
        let given = [
            ("vsock.enclave_port", &table.enclave_port),
            ("vsock.storage_port", &table.storage_port),
            ("vsock.dial_port", &table.dial_port),
            ("vsock.kms_port", &table.kms_port),
        ];
        for (port, (field, value)) in ports.iter_mut().zip(given) {
            *port = in_range(field, value.as_ref(), 1..=most - 1)?.unwrap_or(*port);
        }
        let [enclave_port, storage_port, dial_port, kms_port] = ports;
        if storage_port == dial_port || storage_port == kms_port || dial_port == kms_port {
            return Err(self.wrong("vsock", span, "has one port twice".into()));
        }
        Ok(Transport::Vsock(VsockConfig {
            cid: cid.unwrap_or(u32::MAX),
            enclave_port,
            storage_port,
            dial_port,
            kms_port,
        }))
    }

    fn kms(&self, table: Spanned<KmsTable>) -> Result<KmsConfig, ConfigError> {
        let span = table.span();
        let table = table.into_inner();
        let region = self.required("kms.region", table.region, span.clone())?;
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if region.get_ref().is_empty() || !region.get_ref().bytes().all(allowed) {
            let problem = format!("{:?} is no region", region.get_ref());
            return Err(self.wrong("kms.region", region.span(), problem));
        }
        let region = region.into_inner();
        let endpoint = match table.endpoint {
            Some(endpoint) => self.host_and_port("kms.endpoint", endpoint)?,
            None => format!("kms.{region}.amazonaws.com:443"),
        };
        let credentials = self.required("kms.credentials", table.credentials, span.clone())?;
        let source = SourceTable {
            section: "kms",
            file: table.file,
            profile: table.profile,
            imds: table.imds,
        };
        let Some(credentials) = self.credential_source(&credentials, source, span)? else {
            let problem = format!("{:?} is no source of credentials", credentials.get_ref());
            return Err(self.wrong("kms.credentials", credentials.span(), problem));
        };
        Ok(KmsConfig {
            region,
            endpoint,
            credentials,
        })
    }

    /// None when `credentials` is neither "file" nor "imds".
    pub(super) fn credential_source(
        &self,
        credentials: &Spanned<String>,
        table: SourceTable,
        section: Range<usize>,
    ) -> Result<Option<CredentialSource>, ConfigError> {
        let field = |name: &str| format!("{}.{name}", table.section);
        let kind = credentials.get_ref().as_str();
        let file = table.file.as_ref().map(|file| ("file", file.span()));
        let profile = table.profile.as_ref().map(|it| ("profile", it.span()));
        let imds = table.imds.as_ref().map(|imds| ("imds", imds.span()));
        let unused = match kind {
            "file" => imds,
            "imds" => file.or(profile),
            _ => file.or(profile).or(imds),
        };
        if let Some((name, span)) = unused {
            let problem = format!("means nothing with credentials = {kind:?}");
            return Err(self.wrong(&field(name), span, problem));
        }
        Ok(match kind {
            "file" => {
                let path = self.required(&field("file"), table.file, section)?;
                Some(CredentialSource::File {
                    path: self.resolve(path.get_ref()),
                    profile: table
                        .profile
                        .map_or_else(|| "default".to_owned(), Spanned::into_inner),
                })
            }
            "imds" => Some(CredentialSource::Instance {
                address: match table.imds {
                    Some(address) => self.host_and_port(&field("imds"), address)?,
                    None => IMDS.to_owned(),
                },
            }),
            _ => None,
        })
    }

    fn metrics(&self, table: Spanned<MetricsTable>) -> Result<SocketAddr, ConfigError> {
        let span = table.span();
        let listen = self.required("metrics.listen", table.into_inner().listen, span)?;
        self.address("metrics.listen", &listen)
    }

    fn limits(&self, table: &LimitsTable) -> Result<Limits, ConfigError> {
        const COUNT: RangeInclusive<u64> = 1..=1_000_000;
        const SECONDS: RangeInclusive<u64> = 1..=86_400;
        let default = Limits::default();
        let count = |name: &str, value: &Option<Spanned<u64>>, default: usize| {
            let value = self.number(name, value.as_ref(), COUNT)?;
            Ok::<_, ConfigError>(value.map_or(default, |value| {
                usize::try_from(value).unwrap_or(usize::MAX)
            }))
        };
        let rate = |name: &str, value: &Option<Spanned<u64>>, default: u32| {
            let value = self.number(name, value.as_ref(), COUNT)?;
            Ok::<_, ConfigError>(
                value.map_or(default, |value| u32::try_from(value).unwrap_or(u32::MAX)),
            )
        };
        let seconds = |name: &str, value: &Option<Spanned<u64>>, default: Duration| {
            let value = self.number(name, value.as_ref(), SECONDS)?;
            Ok::<_, ConfigError>(value.map_or(default, Duration::from_secs))
        };
        Ok(Limits {
            max_connections: count(
                "limits.max_connections",
                &table.max_connections,
                default.max_connections,
            )?,
            max_connections_per_address: count(
                "limits.max_connections_per_address",
                &table.max_connections_per_address,
                default.max_connections_per_address,
            )?,
            accepts_per_second: rate(
                "limits.accepts_per_second",
                &table.accepts_per_second,
                default.accepts_per_second,
            )?,
            accepts_per_second_per_address: rate(
                "limits.accepts_per_second_per_address",
                &table.accepts_per_second_per_address,
                default.accepts_per_second_per_address,
            )?,
            first_byte: seconds(
                "limits.first_byte_seconds",
                &table.first_byte_seconds,
                default.first_byte,
            )?,
            idle: seconds("limits.idle_seconds", &table.idle_seconds, default.idle)?,
            half_closed: seconds(
                "limits.half_closed_seconds",
                &table.half_closed_seconds,
                default.half_closed,
            )?,
            bytes_per_second: self.number(
                "limits.bytes_per_second",
                table.bytes_per_second.as_ref(),
                MIN_BYTES_PER_SECOND..=u64::MAX / 4,
            )?,
            max_dials: count("limits.max_dials", &table.max_dials, default.max_dials)?,
            dial: seconds("limits.dial_seconds", &table.dial_seconds, default.dial)?,
            drain: seconds("limits.drain_seconds", &table.drain_seconds, default.drain)?,
        })
    }

    fn check_name(&self, field: &str, name: &Spanned<String>) -> Result<(), ConfigError> {
        let text = name.get_ref();
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(allowed) {
            let problem = format!("{text:?} is no name of a party");
            return Err(self.wrong(field, name.span(), problem));
        }
        Ok(())
    }

    fn sockets(&self, sockets: Spanned<PathBuf>) -> Result<PathBuf, ConfigError> {
        let wrong = |length: usize| {
            let problem = format!("is {length} bytes long; 1 to {MAX_SOCKETS_FOLDER} are possible");
            self.wrong("sockets", sockets.span(), problem)
        };
        if sockets.get_ref().as_os_str().is_empty() {
            return Err(wrong(0));
        }
        let folder = self.resolve(sockets.get_ref());
        match folder.as_os_str().len() {
            length if length > MAX_SOCKETS_FOLDER => Err(wrong(length)),
            _ => Ok(folder),
        }
    }

    /// Relative paths count from the file's own folder.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }

    fn address(&self, field: &str, text: &Spanned<String>) -> Result<SocketAddr, ConfigError> {
        text.get_ref().parse().map_err(|_| {
            self.wrong(
                field,
                text.span(),
                format!("{:?} is no address:port", text.get_ref()),
            )
        })
    }

    fn host_and_port(&self, field: &str, text: Spanned<String>) -> Result<String, ConfigError> {
        let host_and_port = text.get_ref().rsplit_once(':');
        let valid = host_and_port.is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
        if !valid {
            let problem = format!("{:?} is no host:port", text.get_ref());
            return Err(self.wrong(field, text.span(), problem));
        }
        Ok(text.into_inner())
    }

    pub(super) fn number(
        &self,
        field: &str,
        value: Option<&Spanned<u64>>,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ConfigError> {
        let Some(value) = value else { return Ok(None) };
        if range.contains(value.get_ref()) {
            return Ok(Some(*value.get_ref()));
        }
        let (least, most) = range.into_inner();
        let problem = format!("is {}; {least} to {most} are possible", value.get_ref());
        Err(self.wrong(field, value.span(), problem))
    }

    pub(super) fn required<T>(
        &self,
        field: &str,
        value: Option<Spanned<T>>,
        section: Range<usize>,
    ) -> Result<Spanned<T>, ConfigError> {
        value.ok_or_else(|| self.wrong(field, section, "is missing".into()))
    }

    /// What the TOML reader itself refuses: syntax, types, unknown and repeated fields.
    fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let at = error.span().map_or(0, |span| span.start);
        let field = self.field_at(at);
        let problem = error.message().replace('\n', "; ");
        self.wrong(&field, at..at, problem)
    }

    pub(super) fn wrong(&self, field: &str, span: Range<usize>, problem: String) -> ConfigError {
        ConfigError {
            file: self.file.to_owned(),
            line: Some(1 + self.before(span.start).matches('\n').count()),
            field: field.to_owned(),
            problem,
            remedy: remedy(field).to_owned(),
        }
    }

    /// Section and key of the line at an offset, as well as they can be told.
    fn field_at(&self, offset: usize) -> String {
        let before = self.before(offset);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = self
            .text
            .get(line_start..)
            .unwrap_or("")
            .lines()
            .next()
            .unwrap_or("");
        if let Some(section) = section_of(line) {
            return section.to_owned();
        }
        let key = line.split_once('=').map_or("", |(key, _)| key).trim();
        let section = before
            .get(..line_start)
            .unwrap_or("")
            .lines()
            .rev()
            .find_map(section_of);
        match section {
            Some(section) if !key.is_empty() => format!("{section}.{key}"),
            Some(section) => section.to_owned(),
            None => key.to_owned(),
        }
    }

    fn before(&self, offset: usize) -> &str {
        self.text.get(..offset).unwrap_or(self.text)
    }
}

fn section_of(line: &str) -> Option<&str> {
    line.trim()
        .strip_prefix('[')?
        .trim_start_matches('[')
        .split(']')
        .next()
        .map(str::trim)
}

/// What to write in a field.
fn remedy(field: &str) -> &'static str {
    match field {
        "party" => {
            "Write the party's name in the manifest, 1 to 32 of a-z, 0-9 and -: party = \"ceo\""
        }
        "listen" | "metrics.listen" => "Write an IP address and port: listen = \"127.0.0.1:7101\"",
        "sockets" => {
            "Write the path of a folder, short enough for a socket: sockets = \"/run/arca/ceo\"; \
             or [vsock] instead, for a Nitro enclave"
        }
        "vsock" => "Give each of the host's services a port of its own",
        "vsock.cid" => {
            "Write what the enclave is started with (--enclave-cid), 3 or above: cid = 16"
        }
        "kms.region" => "Write the region of the party's key: region = \"eu-central-1\"",
        "kms.endpoint" => "Write host:port, or leave it out for kms.REGION.amazonaws.com:443",
        "kms.credentials" => "Write credentials = \"imds\" (the instance's role) or \"file\"",
        _ if field.starts_with("archive") || field.starts_with("witness") => {
            super::archive::remedy(field)
        }
        "kms.file" | "kms.profile" => {
            "With credentials = \"file\", write the path of a file: file = \"/etc/arca/credentials\""
        }
        "kms.imds" => "With credentials = \"imds\", write host:port, or leave it out",
        "storage" => "Write a section [storage] with path = \"/var/lib/arca/ceo.redb\"",
        "storage.path" => "Write the path of a file: path = \"/var/lib/arca/ceo.redb\"",
        "storage.quota_bytes" => "Write a number of bytes: quota_bytes = 1073741824",
        "limits.bytes_per_second" => "Write a number of bytes, or leave it out for no limit",
        _ if field.starts_with("peers") => {
            "Write one line for each other party: cto = \"cto.example.com:7101\""
        }
        _ if field.starts_with("vsock.") => "Write a number, or leave it out for the default",
        _ if field.starts_with("limits.") && field.ends_with("_seconds") => {
            "Write whole seconds, or leave it out for the default"
        }
        _ if field.starts_with("limits.") => {
            "Write a whole number, or leave it out for the default"
        }
        _ => "`arca-host config example` prints a file with every field explained",
    }
}
