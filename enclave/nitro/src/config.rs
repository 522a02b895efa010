//! `enclave.toml`: under which key of AWS KMS this enclave seals, and the ports to its host.
//!
//! It is a part of the enclave's image, and so measured: the host cannot exchange it. That matters for the key, since
//! whoever owns the key decides who may open what is sealed under it.

use std::{fmt, path::Path, path::PathBuf};

use arca_enclave::process::Reach;
use serde::Deserialize;

/// A configuration with every field explained.
pub const EXAMPLE: &str = r#"# A part of the enclave's image, and measured with it: what is said here shows in PCR0. Unknown fields are refused.

# Under which key everything is sealed: the ARN of a symmetric key of AWS KMS in the party's own account, whose
# policy names the measurements of this image. Not an alias: whoever may move an alias could exchange the key.
[kms]
key = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"

# Authenticated with every ciphertext of KMS, and shown in CloudTrail. Each of the two may be left out. What was
# sealed with one context opens with no other: never change them.
cluster = "treasury"
party = "ceo"

# The host's CID and the ports of both sides, the same as in [vsock] of host.toml. All may be left out; these are
# the defaults. The CID of a parent instance on AWS is 3.
[vsock]
parent_cid = 3
enclave_port = 7001
storage_port = 7002
dial_port = 7003
kms_port = 7004

# ECDSA presignatures that are kept ready for each key and set of signers, at most 4096. They are made in the
# background, in memory only, and again when a quarter is left. 0: none, and every signature takes three rounds.
# This section may be left out; 256 is the default.
[ecdsa]
presignatures = 256
"#;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The key that everything is sealed under.
    pub kms: KmsConfig,
    /// How the host is reached.
    #[serde(default)]
    pub vsock: VsockConfig,
    /// About ECDSA.
    #[serde(default)]
    pub ecdsa: EcdsaConfig,
}

/// The key that everything is sealed under.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KmsConfig {
    /// The key's ARN.
    pub key: KeyArn,
    /// For the encryption context.
    pub cluster: Option<String>,
    /// For the encryption context.
    pub party: Option<String>,
}

/// How the host is reached.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VsockConfig {
    /// CID of the host.
    pub parent_cid: u32,
    /// Where this enclave listens.
    pub enclave_port: u32,
    /// The host's storage, metrics and credentials.
    pub storage_port: u32,
    /// The host's dialler.
    pub dial_port: u32,
    /// The host's relay to KMS.
    pub kms_port: u32,
}

impl Default for VsockConfig {
    fn default() -> Self {
        Self {
            parent_cid: 3,
            enclave_port: 7001,
            storage_port: 7002,
            dial_port: 7003,
            kms_port: 7004,
        }
    }
}

/// About ECDSA.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EcdsaConfig {
    /// Presignatures that a pool is filled up to.
    pub presignatures: u32,
}

impl Default for EcdsaConfig {
    fn default() -> Self {
        let default = arca_enclave::Settings::default().presignatures;
        Self {
            presignatures: u32::try_from(default).unwrap_or(MAX_PRESIGNATURES),
        }
    }
}

/// More would take more memory than they are worth.
const MAX_PRESIGNATURES: u32 = 4096;
/// As in the manifest.
const MAX_NAME: usize = 32;

/// The ARN of a key: `arn:PARTITION:kms:REGION:ACCOUNT:key/ID`, of a partition whose endpoints stand under
/// `amazonaws.com`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct KeyArn {
    text: String,
    region: String,
    id: String,
}

impl KeyArn {
    /// The whole ARN.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Name of the region's endpoint.
    pub fn endpoint(&self) -> String {
        format!("kms.{}.amazonaws.com", self.region)
    }

    /// Names the key in sealed blobs: region and id, at most 64 bytes.
    pub fn kek_id(&self) -> String {
        format!("kms:{}:{}", self.region, self.id)
    }
}

impl TryFrom<String> for KeyArn {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const WANTED: &str = "no ARN of a key, such as \
            arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        let parts: Vec<&str> = text.split(':').collect();
        let &["arn", partition, "kms", region, account, resource] = parts.as_slice() else {
            return Err(WANTED);
        };
        if resource.starts_with("alias/") {
            return Err("the ARN of an alias; give that of the key itself, which nobody can move");
        }
        let plain = |text: &str, most: usize| {
            let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
            (1..=most).contains(&text.len()) && text.bytes().all(allowed)
        };
        let id = resource.strip_prefix("key/").filter(|id| plain(id, 40));
        let account_is = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        match id {
            Some(id)
                if matches!(partition, "aws" | "aws-us-gov")
                    && plain(region, 18)
                    && !region.starts_with('-')
                    && !region.ends_with('-')
                    && account_is =>
            {
                Ok(Self {
                    region: region.to_owned(),
                    id: id.to_owned(),
                    text: text.clone(),
                })
            }
            _ => Err(WANTED),
        }
    }
}

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a configuration was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {cause}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Not TOML, or not these fields.
    #[error("{}: {what}; `arca-enclave-nitro config example` prints a file with every field", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Line, field and what is wrong.
        what: String,
    },
}

impl Config {
    /// Files that the platform needs after the start.
    pub fn reach(&self) -> Reach {
        Reach {
            write: vec!["/dev/nsm".into()],
            ..Reach::default()
        }
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`], naming file, line and field.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::Unreadable {
            path: path.to_owned(),
            cause,
        })?;
        let invalid = |what: String| ConfigError::Invalid {
            path: path.to_owned(),
            what,
        };
        let config: Self =
            toml::from_str(&text).map_err(|error| invalid(error.to_string().trim().to_owned()))?;
        config.check().map_err(invalid)?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        for (field, name) in [
            ("kms.cluster", &self.kms.cluster),
            ("kms.party", &self.kms.party),
        ] {
            let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
            if let Some(name) = name
                && (name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed))
            {
                return Err(format!(
                    "{field}: {name:?} is no name: 1 to {MAX_NAME} of a-z, 0-9 and -"
                ));
            }
        }
        let VsockConfig {
            parent_cid,
            enclave_port,
            storage_port,
            dial_port,
            kms_port,
        } = self.vsock;
        for (field, value) in [
            ("parent_cid", parent_cid),
            ("enclave_port", enclave_port),
            ("storage_port", storage_port),
            ("dial_port", dial_port),
            ("kms_port", kms_port),
        ] {
            // The largest number stands for any CID or port.
            if value == u32::MAX || value == 0 {
                return Err(format!("vsock.{field}: {value} is none"));
            }
        }
        if storage_port == dial_port || storage_port == kms_port || dial_port == kms_port {
            return Err("vsock: two services of the host have one port".to_owned());
        }
        let presignatures = self.ecdsa.presignatures;
        if presignatures > MAX_PRESIGNATURES {
            return Err(format!(
                "ecdsa.presignatures: {presignatures} exceeds the limit of {MAX_PRESIGNATURES}"
            ));
        }
        Ok(())
    }
}
