//! A local NSM: attestation documents in the format of AWS Nitro enclaves, under a root of one's own.
//!
//! [`LocalRoot`] is made once per simulated cluster, [`Nsm`] once per start of an enclave. The documents have
//! the structures of real ones (COSE_Sign1 with ES384, a root-first bundle, a leaf for hours), so that the
//! verifier runs whole, with another root. They prove nothing about any hardware.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arca_attestation::{Measurements, UnixMillis};
use ciborium::Value;
use coset::{CborSerializable as _, CoseSign1Builder, HeaderBuilder, iana};
use der::asn1::GeneralizedTime;
use der::{Decode as _, Encode as _};
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{DerSignature, Signature, SigningKey};
use p384::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use rand_core::CryptoRngCore;
use sha2::{Digest as _, Sha384};
use spki::SubjectPublicKeyInfoOwned;
use x509_cert::Certificate;
use x509_cert::builder::{Builder as _, CertificateBuilder, Profile};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time, Validity};

/// The root certificate's file in the root's folder, DER. Verifiers need this one.
pub const ROOT_CERTIFICATE: &str = "root.der";
/// The root key's file in the root's folder, PKCS#8 DER, mode 0600.
pub const ROOT_KEY: &str = "root.key";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// As long as AWS gives its leaves.
const LEAF_LIFE: Duration = Duration::from_secs(3 * 60 * 60);
/// A leaf with less than this is replaced before it signs.
const LEAF_MARGIN: Duration = Duration::from_secs(90 * 60);
/// How far a verifier's clock may be behind this one before it calls a new certificate not yet valid.
const BACKDATED: Duration = Duration::from_secs(5 * 60);

const PCRS: u8 = 16;
/// The device's own limits.
const MAX_PUBLIC_KEY: usize = 1024;
const MAX_NONCE: usize = 512;
const MAX_USER_DATA: usize = 512;

/// Why the local NSM could not be set up or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NsmError {
    /// A file of the local root cannot be read or written.
    #[error("{path}: {cause}")]
    File {
        /// Which file.
        path: String,
        /// What the system said.
        cause: io::Error,
    },
    /// A file of the local root has the wrong contents.
    #[error("{path} holds no {expected}")]
    Contents {
        /// Which file.
        path: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// A value is longer than the device takes.
    #[error("{field} has {size} bytes; the NSM takes at most {max}")]
    TooLong {
        /// `nonce`, `user_data` or `public_key`.
        field: &'static str,
        /// Its length in bytes.
        size: usize,
        /// The device's limit.
        max: usize,
    },
    /// Unreachable: an encoder refused this module's own values.
    #[error("bug: the local NSM could not encode {what}")]
    Bug {
        /// What it was encoding.
        what: &'static str,
    },
}

/// The value of a PCR that was extended once from zeros with SHA-384 of `bytes`, as an image is measured.
pub fn measure(bytes: &[u8]) -> [u8; 48] {
    Sha384::new()
        .chain_update([0; 48])
        .chain_update(Sha384::digest(bytes))
        .finalize()
        .into()
}

/// The authority under which every NSM of one simulated cluster signs.
pub struct LocalRoot {
    authority: Authority,
}

impl LocalRoot {
    /// Makes a root that is valid for ten years.
    ///
    /// # Errors
    /// [`NsmError::Bug`] alone.
    pub fn create(rng: &mut dyn CryptoRngCore, now: UnixMillis) -> Result<Self, NsmError> {
        let key = SigningKey::random(&mut &mut *rng);
        let subject = name("CN=arca simulated root,O=Arca")?;
        let public_key = public_key_of(&key)?;
        let certificate = issue(
            &key,
            Profile::Root,
            subject,
            public_key,
            validity(now, ROOT_LIFE)?,
            rng,
        )?;
        Ok(Self {
            authority: Authority { key, certificate },
        })
    }

    /// Reads the root that [`save`](Self::save) wrote to `folder`.
    ///
    /// # Errors
    /// [`NsmError::File`] or [`NsmError::Contents`], naming the file.
    pub fn load(folder: &Path) -> Result<Self, NsmError> {
        let (path, bytes) = read(folder, ROOT_KEY)?;
        let bytes = zeroize::Zeroizing::new(bytes);
        let key = SigningKey::from_pkcs8_der(&bytes).map_err(|_| NsmError::Contents {
            path,
            expected: "P-384 private key (PKCS#8 DER)",
        })?;
        let (path, bytes) = read(folder, ROOT_CERTIFICATE)?;
        let certificate = Certificate::from_der(&bytes)
            .ok()
            .filter(|found| {
                public_key_of(&key).ok().as_ref()
                    == Some(&found.tbs_certificate.subject_public_key_info)
            })
            .ok_or(NsmError::Contents {
                path,
                expected: "certificate (DER) of the key beside it",
            })?;
        Ok(Self {
            authority: Authority { key, certificate },
        })
    }

    /// Writes key and certificate into `folder`, and replaces neither.
    ///
    /// # Errors
    /// [`NsmError::File`], when a file is there already too.
    pub fn save(&self, folder: &Path) -> Result<(), NsmError> {
        let key = self
            .authority
            .key
            .to_pkcs8_der()
            .map_err(|_| NsmError::Bug {
                what: "the root key",
            })?;
        write_new(folder, ROOT_KEY, 0o600, key.as_bytes())?;
        write_new(folder, ROOT_CERTIFICATE, 0o644, &self.certificate_der()?)
    }

    /// What verifiers pin: the root certificate, DER.
    ///
    /// # Errors
    /// [`NsmError::Bug`] alone.
    pub fn certificate_der(&self) -> Result<Vec<u8>, NsmError> {
        self.authority.certificate_der()
    }
}

impl fmt::Debug for LocalRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalRoot(redacted)")
    }
}

/// One enclave's NSM: its PCRs, and a key that it signs with until the enclave ends.
pub struct Nsm {
    module_id: String,
    pcrs: BTreeMap<u8, [u8; 48]>,
    /// DER, root first.
    bundle: Vec<Vec<u8>>,
    instance: Authority,
    key: SigningKey,
    leaf: Mutex<Option<Leaf>>,
}

/// What the caller wants inside a document. `None` becomes null.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// The verifier's, at most 512 bytes.
    pub nonce: Option<&'a [u8]>,
    /// At most 512 bytes.
    pub user_data: Option<&'a [u8]>,
    /// At most 1024 bytes.
    pub public_key: Option<&'a [u8]>,
}

impl Nsm {
    /// Starts an NSM for an enclave with these measurements. PCRs 3 to 15 are zero.
    ///
    /// `module_id` names the enclave, `i-….-enc…` on AWS.
    ///
    /// # Errors
    /// [`NsmError::Bug`] alone.
    pub fn new(
        root: &LocalRoot,
        module_id: &str,
        measurements: &Measurements,
        rng: &mut dyn CryptoRngCore,
        now: UnixMillis,
    ) -> Result<Self, NsmError> {
        let key = SigningKey::random(&mut &mut *rng);
        let profile = Profile::SubCA {
            issuer: root.authority.subject().clone(),
            path_len_constraint: Some(0),
        };
        let subject = name("CN=arca simulated instance,O=Arca")?;
        let public_key = public_key_of(&key)?;
        let certificate = issue(
            &root.authority.key,
            profile,
            subject,
            public_key,
            validity(now, 365 * DAY)?,
            rng,
        )?;
        let instance = Authority { key, certificate };

        let mut pcrs: BTreeMap<u8, [u8; 48]> = (0..PCRS).map(|index| (index, [0; 48])).collect();
        pcrs.extend([
            (0, measurements.pcr0),
            (1, measurements.pcr1),
            (2, measurements.pcr2),
        ]);
        Ok(Self {
            module_id: module_id.to_owned(),
            pcrs,
            bundle: vec![root.certificate_der()?, instance.certificate_der()?],
            instance,
            key: SigningKey::random(&mut &mut *rng),
            leaf: Mutex::new(None),
        })
    }

    /// An attestation document over `request`. Costs one signature, and another when the leaf is due.
    ///
    /// # Errors
    /// [`NsmError::TooLong`].
    pub fn attest(
        &self,
        request: &Request<'_>,
        now: UnixMillis,
        rng: &mut dyn CryptoRngCore,
    ) -> Result<Vec<u8>, NsmError> {
        check_length("nonce", request.nonce, MAX_NONCE)?;
        check_length("user_data", request.user_data, MAX_USER_DATA)?;
        check_length("public_key", request.public_key, MAX_PUBLIC_KEY)?;
        let payload = self.payload(request, &self.leaf(now, rng)?, now);
        let mut encoded = Vec::new();
        ciborium::into_writer(&payload, &mut encoded)
            .map_err(|_| NsmError::Bug { what: "a payload" })?;

        let header = HeaderBuilder::new()
            .algorithm(iana::Algorithm::ES384)
            .build();
        CoseSign1Builder::new()
            .protected(header)
            .payload(encoded)
            .create_signature(b"", |message| {
                let signature: Signature = self.key.sign(message);
                signature.to_vec()
            })
            .build()
            .to_vec()
            .map_err(|_| NsmError::Bug { what: "a document" })
    }

    /// In the order, and with the nulls, of real documents.
    fn payload(&self, request: &Request<'_>, leaf: &[u8], now: UnixMillis) -> Value {
        let optional =
            |field: Option<&[u8]>| field.map_or(Value::Null, |field| Value::Bytes(field.to_vec()));
        let pcrs = self
            .pcrs
            .iter()
            .map(|(index, pcr)| (Value::from(*index), Value::Bytes(pcr.to_vec())));
        let bundle = self
            .bundle
            .iter()
            .map(|certificate| Value::Bytes(certificate.clone()));
        let fields = [
            ("module_id", Value::from(self.module_id.as_str())),
            ("digest", Value::from("SHA384")),
            ("timestamp", Value::from(now.0)),
            ("pcrs", Value::Map(pcrs.collect())),
            ("certificate", Value::Bytes(leaf.to_vec())),
            ("cabundle", Value::Array(bundle.collect())),
            ("public_key", optional(request.public_key)),
            ("user_data", optional(request.user_data)),
            ("nonce", optional(request.nonce)),
        ];
        Value::Map(
            fields
                .into_iter()
                .map(|(key, value)| (Value::from(key), value))
                .collect(),
        )
    }

    /// The leaf in use, or its successor. Always for the same key: only the certificate runs out.
    fn leaf(&self, now: UnixMillis, rng: &mut dyn CryptoRngCore) -> Result<Vec<u8>, NsmError> {
        let mut current = self.leaf.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = current.as_ref().filter(|leaf| leaf.serves_at(now)) {
            return Ok(leaf.certificate.clone());
        }
        let profile = Profile::Leaf {
            issuer: self.instance.subject().clone(),
            enable_key_agreement: false,
            enable_key_encipherment: false,
        };
        let subject = name("CN=arca simulated enclave,O=Arca")?;
        let public_key = public_key_of(&self.key)?;
        let validity = validity(now, LEAF_LIFE)?;
        let certificate = issue(
            &self.instance.key,
            profile,
            subject,
            public_key,
            validity,
            rng,
        )?;
        let certificate = certificate
            .to_der()
            .map_err(|_| NsmError::Bug { what: "a leaf" })?;
        *current = Some(Leaf {
            certificate: certificate.clone(),
            since: now,
        });
        Ok(certificate)
    }
}

impl fmt::Debug for Nsm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nsm")
            .field("module_id", &self.module_id)
            .finish_non_exhaustive()
    }
}

struct Leaf {
    /// DER.
    certificate: Vec<u8>,
    since: UnixMillis,
}

impl Leaf {
    /// Also replaced when the clock was set back to before it.
    fn serves_at(&self, now: UnixMillis) -> bool {
        let life = LEAF_LIFE.saturating_sub(LEAF_MARGIN).as_millis();
        now.0
            .checked_sub(self.since.0)
            .is_some_and(|age| u128::from(age) < life)
    }
}

/// A key that issues certificates.
struct Authority {
    key: SigningKey,
    certificate: Certificate,
}

impl Authority {
    fn subject(&self) -> &Name {
        &self.certificate.tbs_certificate.subject
    }

    fn certificate_der(&self) -> Result<Vec<u8>, NsmError> {
        self.certificate.to_der().map_err(|_| NsmError::Bug {
            what: "a certificate",
        })
    }
}

fn issue(
    issuer: &SigningKey,
    profile: Profile,
    subject: Name,
    public_key: SubjectPublicKeyInfoOwned,
    validity: Validity,
    rng: &mut dyn CryptoRngCore,
) -> Result<Certificate, NsmError> {
    let bug = |_| NsmError::Bug {
        what: "a certificate",
    };
    let mut serial = [0; 16];
    rng.fill_bytes(&mut serial);
    let serial = SerialNumber::new(&serial).map_err(|_| NsmError::Bug {
        what: "a serial number",
    })?;
    CertificateBuilder::new(profile, serial, validity, subject, public_key, issuer)
        .and_then(|builder| builder.build::<DerSignature>())
        .map_err(bug)
}

fn validity(now: UnixMillis, life: Duration) -> Result<Validity, NsmError> {
    let now = Duration::from_millis(now.0);
    let time = |at| match GeneralizedTime::from_unix_duration(at) {
        Ok(time) => Ok(Time::GeneralTime(time)),
        Err(_) => Err(NsmError::Bug { what: "a time" }),
    };
    Ok(Validity {
        not_before: time(now.saturating_sub(BACKDATED))?,
        not_after: time(now.saturating_add(life))?,
    })
}

fn name(text: &str) -> Result<Name, NsmError> {
    Name::from_str(text).map_err(|_| NsmError::Bug { what: "a name" })
}

fn public_key_of(key: &SigningKey) -> Result<SubjectPublicKeyInfoOwned, NsmError> {
    SubjectPublicKeyInfoOwned::from_key(*key.verifying_key()).map_err(|_| NsmError::Bug {
        what: "a public key",
    })
}

fn check_length(field: &'static str, value: Option<&[u8]>, max: usize) -> Result<(), NsmError> {
    let size = value.map_or(0, <[u8]>::len);
    if size > max {
        Err(NsmError::TooLong { field, size, max })
    } else {
        Ok(())
    }
}

fn read(folder: &Path, file: &str) -> Result<(String, Vec<u8>), NsmError> {
    let path = folder.join(file);
    let shown = path.display().to_string();
    match fs::read(&path) {
        Ok(bytes) => Ok((shown, bytes)),
        Err(cause) => Err(NsmError::File { path: shown, cause }),
    }
}

fn write_new(folder: &Path, file: &str, mode: u32, bytes: &[u8]) -> Result<(), NsmError> {
    let path = folder.join(file);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(|cause| NsmError::File {
            path: path.display().to_string(),
            cause,
        })
}
