//! The organisation's authority for its HSMs: a root key, and the certificates of the parties' identity keys.
//!
//! For test organisations and small ones. A large one keeps this key in an HSM of its own and uses the authority that
//! it has; all that Arca asks of it are P-384 keys, ECDSA with SHA-384, and `digitalSignature` for the identity keys.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use arca_attestation::UnixMillis;
use p384::SecretKey;
use p384::ecdsa::signature::Verifier as _;
use p384::ecdsa::{DerSignature, SigningKey, VerifyingKey};
use p384::pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _};
use rand_core::{OsRng, RngCore as _};
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::builder::{Builder as _, CertificateBuilder, Profile};
use x509_cert::der::asn1::{GeneralizedTime, ObjectIdentifier};
use x509_cert::der::pem::{self, LineEnding};
use x509_cert::der::{Decode as _, Encode as _, EncodePem as _, Reader as _, SliceReader};
use x509_cert::name::Name;
use x509_cert::request::CertReq;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::SubjectPublicKeyInfoOwned;
use x509_cert::time::{Time, Validity};

use crate::error::{Error, Result};
use crate::manifest_file::{read_bytes, write_new};
use crate::party_files::create_private;
use crate::{clock, keyfile};

/// The root certificate's file in an authority's folder, PEM: goes into the manifest.
pub const ROOT_CERTIFICATE: &str = "hsm-root.pem";
/// The root key's file in an authority's folder, PKCS#8 PEM, mode 0600.
pub const ROOT_KEY: &str = "hsm-root.key";

/// RFC 5758, 3.2. Its parameters are absent.
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
/// Issues identity certificates, and no further authority.
const NO_AUTHORITY_BELOW: Option<u8> = Some(0);
/// How far a verifier's clock may be behind this one before it calls a new certificate not yet valid.
const BACKDATED: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The most that evidence carries of one certificate.
const MAX_CERTIFICATE: usize = 2048;

/// A root key with its certificate.
pub struct Authority {
    key: SigningKey,
    certificate: Certificate,
}

/// A request for a certificate whose own signature holds: whoever made it can use the key.
#[derive(Clone, Debug)]
pub struct Request {
    subject: Name,
    key: SubjectPublicKeyInfoOwned,
    fingerprint: [u8; 32],
}

/// A certificate that was issued, with what to compare.
#[derive(Clone, Debug)]
pub struct Certified {
    /// The certificate, and below it the root: PEM, for the party's `certificates`.
    pub chain: String,
    /// In the form of RFC 4514.
    pub subject: String,
    /// SHA-256 of the identity key, `SubjectPublicKeyInfo` in DER.
    pub key_fingerprint: [u8; 32],
    /// In hexadecimal.
    pub serial: String,
    /// Until when it is valid.
    pub not_after: UnixMillis,
}

impl Authority {
    /// Makes a root for `days`.
    ///
    /// # Errors
    /// [`Error::Input`] when the name is none.
    pub fn create(name: &str, days: u16) -> Result<Self> {
        let subject = common_name(name)?;
        let key = SigningKey::random(&mut OsRng);
        let public_key = SubjectPublicKeyInfoOwned::from_key(*key.verifying_key());
        let profile = Profile::SubCA {
            issuer: subject.clone(),
            path_len_constraint: NO_AUTHORITY_BELOW,
        };
        let certificate = issue(
            &key,
            profile,
            subject,
            public_key.map_err(Error::bug)?,
            validity(days)?,
        )?;
        Ok(Self { key, certificate })
    }

    /// Writes key and certificate into `folder`, which only its owner can enter, and replaces neither. Returns the
    /// certificate's path.
    ///
    /// # Errors
    /// [`Error::Config`] when a file exists or cannot be written.
    pub fn save(&self, folder: &Path) -> Result<PathBuf> {
        create_private(folder)?;
        let key = self.key.to_pkcs8_pem(LineEnding::LF).map_err(Error::bug)?;
        keyfile::write_new(&folder.join(ROOT_KEY), key.as_bytes())?;
        let certificate = self
            .certificate
            .to_pem(LineEnding::LF)
            .map_err(Error::bug)?;
        let path = folder.join(ROOT_CERTIFICATE);
        write_new(&path, certificate.as_bytes())?;
        Ok(path)
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Error::Config`] when a file is missing or holds something else, or others can read the key.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(ROOT_KEY);
        let wrong = |path: &Path, problem: &str| {
            Error::config(
                path.display(),
                problem,
                "name the folder that `arca hsm make-root` wrote",
            )
        };
        let key = SecretKey::from_pkcs8_pem(&keyfile::read(&path)?)
            .map_err(|_| wrong(&path, "is no P-384 private key in PKCS#8 PEM"))?;
        let key = SigningKey::from(key);
        let path = folder.join(ROOT_CERTIFICATE);
        let certificate = Certificate::from_der(&read_root(&path)?)
            .map_err(|_| wrong(&path, "is no certificate"))?;
        let public_key = SubjectPublicKeyInfoOwned::from_key(*key.verifying_key());
        if public_key.ok().as_ref() != Some(&certificate.tbs_certificate.subject_public_key_info) {
            return Err(wrong(&path, "is not the certificate of the key beside it"));
        }
        Ok(Self { key, certificate })
    }

    /// The root certificate, DER.
    ///
    /// # Errors
    /// [`Error::Bug`] alone.
    pub fn certificate_der(&self) -> Result<Vec<u8>> {
        self.certificate.to_der().map_err(Error::bug)
    }

    /// Until when the root is valid.
    pub fn not_after(&self) -> UnixMillis {
        not_after(&self.certificate)
    }

    /// Certifies a key for `days`: `digitalSignature` and `nonRepudiation`, no authority. Whatever else the request
    /// asks for is left out.
    ///
    /// # Errors
    /// [`Error::Input`] when the certificate would outlive the root or bear its name.
    ///
    /// # Security
    /// The request shows that its maker can use the key, and not that the key is in an HSM: compare
    /// [`Request::fingerprint`] with what the token's operator reads out, where the key was made.
    pub fn certify(&self, request: &Request, days: u16) -> Result<Certified> {
        let root = &self.certificate.tbs_certificate.subject;
        let object = format!("certificate for {}", request.subject);
        if request.subject == *root {
            return Err(Error::input(object, "bears the name of the root itself"));
        }
        let profile = Profile::Leaf {
            issuer: root.clone(),
            enable_key_agreement: false,
            enable_key_encipherment: false,
        };
        let certificate = issue(
            &self.key,
            profile,
            request.subject.clone(),
            request.key.clone(),
            validity(days)?,
        )?;
        if not_after(&certificate) > self.not_after() {
            return Err(Error::input(
                object,
                format!(
                    "would be valid longer than the root, which ends on {}; take fewer days",
                    clock::show(self.not_after())
                ),
            ));
        }
        if certificate.to_der().map_err(Error::bug)?.len() > MAX_CERTIFICATE {
            return Err(Error::input(object, "has a name that is too long"));
        }
        let mut chain = certificate.to_pem(LineEnding::LF).map_err(Error::bug)?;
        chain.push_str(
            &self
                .certificate
                .to_pem(LineEnding::LF)
                .map_err(Error::bug)?,
        );
        Ok(Certified {
            chain,
            subject: request.subject.to_string(),
            key_fingerprint: request.fingerprint,
            serial: hex::encode(certificate.tbs_certificate.serial_number.as_bytes()),
            not_after: not_after(&certificate),
        })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(redacted)")
    }
}

impl Request {
    /// Reads a PKCS#10 request (RFC 2986), PEM or DER, and verifies its signature: P-384 with SHA-384.
    ///
    /// # Errors
    /// [`Error::Input`] when it is none, [`Error::Unverified`] when its signature does not hold.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let subject = "certification request";
        let input = |problem: &str| Error::input(subject, problem);
        let der = der_of(bytes, "CERTIFICATE REQUEST")
            .ok_or_else(|| input("is neither PEM nor DER of PKCS#10"))?;
        let request = CertReq::from_der(&der).map_err(|_| input("is no PKCS#10"))?;
        let signed = signed_part(&der).map_err(|_| input("is no PKCS#10"))?;
        if request.algorithm.oid != ECDSA_WITH_SHA384 || request.algorithm.parameters.is_some() {
            return Err(input(
                "is signed with another algorithm than ECDSA with SHA-384",
            ));
        }
        let spki = request.info.public_key.to_der().map_err(Error::bug)?;
        // Refuses other algorithms and curves, and points that are not on this one.
        let key = VerifyingKey::from_public_key_der(&spki)
            .map_err(|_| input("is for a key that is not on P-384"))?;
        let signature = request.signature.as_bytes().unwrap_or_default();
        DerSignature::from_bytes(signature)
            .and_then(|signature| key.verify(signed, &signature))
            .map_err(|_| Error::unverified(subject, "the key in it did not sign it"))?;
        if request.info.subject.0.is_empty() {
            return Err(input("names nobody"));
        }
        Ok(Self {
            subject: request.info.subject,
            key: request.info.public_key,
            fingerprint: Sha256::digest(&spki).into(),
        })
    }

    /// Who it says it is for, in the form of RFC 4514.
    pub fn subject(&self) -> String {
        self.subject.to_string()
    }

    /// SHA-256 of the key, `SubjectPublicKeyInfo` in DER.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

/// Reads a root of HSMs for a manifest: one certificate, PEM or DER. What the manifest demands of it is checked there.
///
/// # Errors
/// [`Error::Config`] when it cannot be read or is no certificate.
pub fn read_root(path: &Path) -> Result<Vec<u8>> {
    let der = der_of(&read_bytes(path)?, "CERTIFICATE");
    der.filter(|der| Certificate::from_der(der).is_ok())
        .ok_or_else(|| {
            Error::config(
                path.display(),
                "is no certificate in PEM or DER, or more than one",
                "name the root of your HSMs' identity keys, as `arca hsm make-root` writes it",
            )
        })
}

/// Reads a public key: DER of `SubjectPublicKeyInfo`, or that in PEM.
pub fn public_key_der(bytes: &[u8]) -> Option<Vec<u8>> {
    der_of(bytes, "PUBLIC KEY")
}

/// DER as it is, or out of PEM with this label.
fn der_of(bytes: &[u8], label: &str) -> Option<Vec<u8>> {
    if bytes.starts_with(&[0x30]) {
        return Some(bytes.to_vec());
    }
    let (found, der) = pem::decode_vec(bytes).ok()?;
    (found == label).then_some(der)
}

/// The bytes that the signature of a request is over, as they came.
fn signed_part(request: &[u8]) -> x509_cert::der::Result<&[u8]> {
    let mut reader = SliceReader::new(request)?;
    reader.sequence(|reader| {
        let signed = reader.tlv_bytes()?;
        reader.tlv_bytes()?;
        reader.tlv_bytes()?;
        Ok(signed)
    })
}

fn issue(
    key: &SigningKey,
    profile: Profile,
    subject: Name,
    public_key: SubjectPublicKeyInfoOwned,
    validity: Validity,
) -> Result<Certificate> {
    let mut serial = [0; 16];
    OsRng.fill_bytes(&mut serial);
    let serial = SerialNumber::new(&serial).map_err(Error::bug)?;
    CertificateBuilder::new(profile, serial, validity, subject, public_key, key)
        .and_then(|builder| builder.build::<DerSignature>())
        .map_err(Error::bug)
}

fn validity(days: u16) -> Result<Validity> {
    let now = Duration::from_millis(clock::now().0);
    let time = |at: Duration| {
        GeneralizedTime::from_unix_duration(at)
            .map(Time::GeneralTime)
            .map_err(|_| Error::input("validity", "ends after the year 9999"))
    };
    let life = DAY.saturating_mul(u32::from(days));
    Ok(Validity {
        not_before: time(now.saturating_sub(BACKDATED))?,
        not_after: time(now.saturating_add(life))?,
    })
}

fn not_after(certificate: &Certificate) -> UnixMillis {
    let end = certificate.tbs_certificate.validity.not_after;
    UnixMillis(end.to_unix_duration().as_secs().saturating_mul(1000))
}

/// A name in which no character means anything in the form of RFC 4514.
fn common_name(name: &str) -> Result<Name> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.');
    let trimmed = name.trim();
    if trimmed.is_empty() || trimmed.chars().count() > 64 || !trimmed.chars().all(plain) {
        return Err(Error::input(
            format!("name {name:?}"),
            "is not 1 to 64 letters, digits, blanks, `-`, `_` and `.`",
        ));
    }
    Name::from_str(&format!("CN={trimmed}")).map_err(Error::bug)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use x509_cert::builder::RequestBuilder;

    fn request(subject: &str, key: &SigningKey) -> CertReq {
        let subject = Name::from_str(subject).unwrap();
        RequestBuilder::new(subject, key)
            .unwrap()
            .build::<DerSignature>()
            .unwrap()
    }

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_slice(&[byte; 48]).unwrap()
    }

    #[test]
    fn an_authority_comes_back_and_certifies() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("root");
        let made = Authority::create("ACME HSM root", 3650).unwrap();
        let path = made.save(&folder).unwrap();
        assert!(made.save(&folder).is_err(), "a key was overwritten");
        let authority = Authority::load(&folder).unwrap();
        assert_eq!(read_root(&path).unwrap(), made.certificate_der().unwrap());

        let request = request("CN=ceo,OU=acme,O=Arca", &key(1));
        let pem = request.to_pem(LineEnding::LF).unwrap();
        let parsed = Request::parse(pem.as_bytes()).unwrap();
        let certified = authority.certify(&parsed, 365).unwrap();
        assert_eq!(certified.subject, "CN=ceo,OU=acme,O=Arca");
        let chain = Certificate::load_pem_chain(certified.chain.as_bytes()).unwrap();
        let [leaf, root] = &chain[..] else {
            panic!("{} certificates", chain.len());
        };
        assert_eq!(root.to_der().unwrap(), authority.certificate_der().unwrap());
        assert_eq!(
            leaf.tbs_certificate.subject_public_key_info,
            request.info.public_key
        );
        let again = authority.certify(&parsed, 365).unwrap();
        assert_ne!(again.serial, certified.serial);
    }

    #[test]
    fn a_certificate_does_not_outlive_its_root_or_bear_its_name() {
        let authority = Authority::create("root", 30).unwrap();
        let parse = |subject| Request::parse(&request(subject, &key(1)).to_der().unwrap()).unwrap();
        assert!(authority.certify(&parse("CN=ceo"), 29).is_ok());
        let error = authority.certify(&parse("CN=ceo"), 31).unwrap_err();
        assert!(
            error.to_string().contains("longer than the root"),
            "{error}"
        );
        assert!(authority.certify(&parse("CN=root"), 10).is_err());
    }

    #[test]
    fn a_request_that_its_key_did_not_sign_is_refused() {
        let good = request("CN=ceo", &key(1));
        let refused = |request: &CertReq| Request::parse(&request.to_der().unwrap()).unwrap_err();
        let mut other_name = good.clone();
        other_name.info.subject = Name::from_str("CN=cfo").unwrap();
        assert!(matches!(refused(&other_name), Error::Unverified { .. }));
        let mut other_key = good.clone();
        other_key.info.public_key = request("CN=ceo", &key(2)).info.public_key;
        assert!(matches!(refused(&other_key), Error::Unverified { .. }));
        let mut other_algorithm = good.clone();
        other_algorithm.algorithm.oid = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
        assert!(refused(&other_algorithm).to_string().contains("SHA-384"));
        let mut nobody = request("CN=x", &key(1));
        nobody.info.subject = Name::default();
        assert!(matches!(refused(&nobody), Error::Unverified { .. }));

        // Every byte of it counts.
        let der = good.to_der().unwrap();
        for offset in 0..der.len() {
            let mut changed = der.clone();
            changed[offset] ^= 1;
            assert!(Request::parse(&changed).is_err(), "byte {offset}");
        }
    }

    #[test]
    fn a_request_of_another_curve_is_refused() {
        let key = p256::ecdsa::SigningKey::from_slice(&[1; 32]).unwrap();
        let request = RequestBuilder::new(Name::from_str("CN=ceo").unwrap(), &key)
            .unwrap()
            .build::<p256::ecdsa::DerSignature>()
            .unwrap();
        assert!(Request::parse(&request.to_der().unwrap()).is_err());
    }

    #[test]
    fn what_is_no_request_or_root_is_said() {
        for bytes in [
            &b""[..],
            b"nonsense",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert!(Request::parse(bytes).is_err());
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.pem");
        for name in ["", "a,b", "a=b", &"x".repeat(65)] {
            assert!(Authority::create(name, 1).is_err(), "{name}");
        }
        // A chain is no root: which of them is to be trusted?
        let pem = Authority::create("root", 1)
            .unwrap()
            .certificate
            .to_pem(LineEnding::LF)
            .unwrap();
        fs::write(&path, format!("{pem}{pem}")).unwrap();
        assert!(read_root(&path).is_err());
        fs::write(&path, pem).unwrap();
        assert!(read_root(&path).is_ok());
    }

    #[test]
    fn a_root_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create("root", 1).unwrap();
        authority.save(folder.path()).unwrap();
        let key = folder.path().join(ROOT_KEY);
        assert_eq!(
            fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Authority::load(folder.path()).is_err());
    }
}
