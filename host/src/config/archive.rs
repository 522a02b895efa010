//! The sections `[archive]` and `[[witness]]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::document::{Source, SourceTable};
use super::{
    ArchiveConfig, ArchivePlace, BucketConfig, BucketCredentials, ConfigError, StorageConfig,
    WitnessConfig,
};
use arca_audit::note::{KeyKind, VerifierKey};

/// Beside the storage file, with a folder for each party, of which a machine may have several.
const FOLDER: &str = "log";
const REGION: &str = "us-east-1";
const QUIET_SECONDS: u64 = 1;
const EVERY_SECONDS: u64 = 10;
/// More would be no more of a witness.
const MAX_WITNESSES: usize = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ArchiveTable {
    folder: Option<Spanned<PathBuf>>,
    url: Option<Spanned<String>>,
    endpoint: Option<Spanned<String>>,
    region: Option<Spanned<String>>,
    credentials: Option<Spanned<String>>,
    file: Option<Spanned<PathBuf>>,
    profile: Option<Spanned<String>>,
    imds: Option<Spanned<String>>,
    quiet_seconds: Option<Spanned<u64>>,
    every_seconds: Option<Spanned<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WitnessTable {
    url: Option<Spanned<String>>,
    vkey: Option<Spanned<String>>,
    every_seconds: Option<Spanned<u64>>,
}

impl Source<'_> {
    pub(super) fn archive(
        &self,
        table: Option<Spanned<ArchiveTable>>,
        storage: &StorageConfig,
        party: &str,
    ) -> Result<ArchiveConfig, ConfigError> {
        let beside = storage.path.parent().unwrap_or(Path::new(""));
        let beside = beside.join(FOLDER).join(party);
        let Some(table) = table else {
            return Ok(ArchiveConfig {
                place: ArchivePlace::Folder(beside),
                quiet: Duration::from_secs(QUIET_SECONDS),
                every: Duration::from_secs(EVERY_SECONDS),
            });
        };
        let span = table.span();
        let mut table = table.into_inner();
        let seconds = |field, value: Option<Spanned<u64>>, default| {
            let value = self.number(field, value.as_ref(), 1..=3600)?;
            Ok::<_, ConfigError>(Duration::from_secs(value.unwrap_or(default)))
        };
        let quiet = table.quiet_seconds.take();
        let every = table.every_seconds.take();
        Ok(ArchiveConfig {
            quiet: seconds("archive.quiet_seconds", quiet, QUIET_SECONDS)?,
            every: seconds("archive.every_seconds", every, EVERY_SECONDS)?,
            place: match table.url.take() {
                Some(url) => ArchivePlace::Bucket(self.bucket(&url, table, span)?),
                None => ArchivePlace::Folder(self.folder(table, beside)?),
            },
        })
    }

    fn folder(&self, table: ArchiveTable, beside: PathBuf) -> Result<PathBuf, ConfigError> {
        let strings = [
            ("archive.endpoint", &table.endpoint),
            ("archive.region", &table.region),
            ("archive.credentials", &table.credentials),
            ("archive.profile", &table.profile),
            ("archive.imds", &table.imds),
        ];
        let given = strings
            .into_iter()
            .find_map(|(field, value)| Some((field, value.as_ref()?.span())));
        let file = table.file.as_ref();
        if let Some((field, span)) = given.or(file.map(|file| ("archive.file", file.span()))) {
            return Err(self.wrong(field, span, "means nothing without url".into()));
        }
        match table.folder {
            None => Ok(beside),
            Some(folder) if folder.get_ref().as_os_str().is_empty() => {
                Err(self.wrong("archive.folder", folder.span(), "is empty".into()))
            }
            Some(folder) => Ok(self.resolve(folder.get_ref())),
        }
    }

    fn bucket(
        &self,
        url: &Spanned<String>,
        table: ArchiveTable,
        section: std::ops::Range<usize>,
    ) -> Result<BucketConfig, ConfigError> {
        if let Some(folder) = table.folder {
            let problem = "is set, and url is there too".into();
            return Err(self.wrong("archive.folder", folder.span(), problem));
        }
        let wrong = |field, span, text: &str, what| {
            Err(self.wrong(field, span, format!("{text:?} is no {what}")))
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let Some(place) = url.get_ref().strip_prefix("s3://") else {
            return wrong("archive.url", url.span(), url.get_ref(), "s3:// URL");
        };
        let place = place.trim_end_matches('/');
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let segments = || prefix.split('/').filter(|_| !prefix.is_empty());
        let is_plain =
            |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain);
        if !is_plain(bucket) || !segments().all(is_plain) {
            return wrong("archive.url", url.span(), url.get_ref(), "s3:// URL");
        }
        let endpoint = match table.endpoint {
            None => None,
            Some(endpoint) if is_http(endpoint.get_ref()) => {
                Some(endpoint.get_ref().trim_end_matches('/').to_owned())
            }
            Some(endpoint) => {
                let text = endpoint.get_ref();
                return wrong("archive.endpoint", endpoint.span(), text, "http(s) URL");
            }
        };
        let region = match table.region {
            None => REGION.to_owned(),
            Some(region) if is_plain(region.get_ref()) => region.into_inner(),
            Some(region) => {
                return wrong("archive.region", region.span(), region.get_ref(), "region");
            }
        };
        let field = "archive.credentials";
        let credentials = self.required(field, table.credentials, section.clone())?;
        let source = SourceTable {
            section: "archive",
            file: table.file,
            profile: table.profile,
            imds: table.imds,
        };
        let credentials = match self.credential_source(&credentials, source, section)? {
            Some(source) => BucketCredentials::Source(source),
            None if credentials.get_ref() == "environment" => BucketCredentials::Environment,
            None => {
                let text = credentials.get_ref();
                return wrong(field, credentials.span(), text, "source of credentials");
            }
        };
        Ok(BucketConfig {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint,
            region,
            credentials,
        })
    }

    pub(super) fn witnesses(
        &self,
        tables: Vec<Spanned<WitnessTable>>,
    ) -> Result<Vec<WitnessConfig>, ConfigError> {
        let mut witnesses: Vec<WitnessConfig> = Vec::new();
        for table in tables {
            let span = table.span();
            let table = table.into_inner();
            let url = self.required("witness.url", table.url, span.clone())?;
            if !is_http(url.get_ref()) {
                let problem = format!("{:?} is no http(s) URL", url.get_ref());
                return Err(self.wrong("witness.url", url.span(), problem));
            }
            let vkey = self.required("witness.vkey", table.vkey, span.clone())?;
            let refuse = |problem| Err(self.wrong("witness.vkey", vkey.span(), problem));
            let key: VerifierKey = match vkey.get_ref().parse() {
                Ok(key) => key,
                Err(error) => return refuse(error.to_string()),
            };
            if key.kind() != KeyKind::CosignatureV1 {
                return refuse("is the key of a log, not of a witness".into());
            }
            if witnesses.iter().any(|other| other.key.name() == key.name()) {
                return refuse("is of a name that another [[witness]] has".into());
            }
            if witnesses.len() == MAX_WITNESSES {
                let problem = format!("is there more than {MAX_WITNESSES} times");
                return Err(self.wrong("witness", span, problem));
            }
            let every = table.every_seconds.as_ref();
            let every = self.number("witness.every_seconds", every, 1..=86_400)?;
            witnesses.push(WitnessConfig {
                every: Duration::from_secs(every.unwrap_or(EVERY_SECONDS)),
                url: url.get_ref().trim_end_matches('/').to_owned(),
                key,
            });
        }
        Ok(witnesses)
    }
}

/// Whether it is a URL that a client can go to, of which no part is anybody's password.
fn is_http(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    })
}

/// What to write in a field.
pub(super) fn remedy(field: &str) -> &'static str {
    match field {
        "archive.folder" => {
            "Write the path of a folder, without url: folder = \"/var/lib/arca/log/ceo\"; or leave it out"
        }
        "archive.url" => "Write a bucket and where in it: url = \"s3://bucket/ceo\"",
        "archive.endpoint" => {
            "Write where the server is: endpoint = \"https://minio.example.com:9000\"; leave it out for AWS"
        }
        "archive.region" => "Write the bucket's region: region = \"eu-central-1\"",
        "archive.credentials" => {
            "Write credentials = \"environment\" (AWS_ACCESS_KEY_ID and so on), \"file\" or \"imds\" (the \
             instance's role); keys do not stand in this file"
        }
        "archive.file" | "archive.profile" => {
            "With credentials = \"file\", write the path of a file: file = \"/etc/arca/archive-credentials\""
        }
        "archive.imds" => "With credentials = \"imds\", write host:port, or leave it out",
        "archive.quiet_seconds" | "archive.every_seconds" | "witness.every_seconds" => {
            "Write whole seconds, or leave it out for the default"
        }
        "witness.url" => "Write where it takes checkpoints: url = \"https://witness.example.com\"",
        "witness.vkey" => {
            "Write its name and key as `arca witness key` or its operator says them: vkey = \"NAME+ID+KEY\""
        }
        _ => "`arca-host config example` prints a file with every field explained",
    }
}
